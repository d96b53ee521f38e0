"""Configs and documented train commands, built for 1 to 64 devices.

Nothing compiles and no weights are read. The number of fake devices is fixed
once, so a process of its own (`flagship_plans.py`) builds all runs.
"""

import json
import subprocess
import sys
from pathlib import Path

import doc_commands
import pytest
from doc_pages import ROOT

from synermedgen_jax.models.presets import PRESETS

DEVICES = (1, 8, 16, 64)
STAGES = ('autoencoder', 'stage1', 'stage2', 'joint')
MODELS = ('bagel_7b', 'base_1b')
FLAGSHIPS = {
  f'{stage} {model}': [f'--config=configs/{stage}.py:{model}']
  for stage in STAGES
  for model in MODELS
}
# Systems of the arena have no rows of tokens to fill.
DOCUMENTED = {
  name: arguments
  for name, arguments in doc_commands.plans().items()
  if 'capacity' in doc_commands.parse_config(arguments)
}


def devices_of(arguments):
  """Numbers of devices that a train command has to work on.

  A mesh without -1 fixes it; the configs of small models are for one machine.
  """
  config = doc_commands.parse_config(arguments)
  sizes = tuple(config.mesh)
  if -1 not in sizes:
    return [sizes[0] * sizes[1] * sizes[2]]
  return DEVICES if config.rows == -1 else (1,)


@pytest.fixture(scope='module')
def plans():
  cases = FLAGSHIPS | DOCUMENTED
  done = subprocess.run(
    [sys.executable, str(Path(__file__).with_name('flagship_plans.py'))],
    input=json.dumps(
      {
        name: {'arguments': arguments, 'devices': devices_of(arguments)}
        for name, arguments in cases.items()
      }
    ),
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('devices', DEVICES)
@pytest.mark.parametrize('case', FLAGSHIPS)
def test_mesh_and_rows_follow_the_devices(plans, case, devices):
  plan = plans[case][str(devices)]
  assert plan['mesh'] == {'data': 1, 'fsdp': devices, 'tensor': 1}
  assert plan['rows'] == plan['streams'] == devices
  # The largest matrices are split over all devices.
  assert plan['parts'] == devices


@pytest.mark.parametrize('case', FLAGSHIPS)
def test_a_row_holds_an_example_of_every_task(plans, case):
  plan = plans[case]
  assert plan['tasks']
  for task, fill in plan['tasks'].items():
    assert fill > 0, task
  assert plan['fill'] > 0.5


@pytest.mark.parametrize('case', DOCUMENTED, ids=str)
def test_a_documented_command_fits_its_devices_and_its_rows(plans, case):
  plan = plans[case]
  for devices in map(str, devices_of(DOCUMENTED[case])):
    assert 'error' not in plan[devices], plan[devices]['error']
  assert 'error' not in plan['tasks'], plan['tasks']['error']
  assert all(fill > 0 for fill in plan['tasks'].values())


def test_every_model_has_a_config_that_trains_it():
  cases = [*FLAGSHIPS.values(), *DOCUMENTED.values()]
  models = {doc_commands.parse_config(arguments).model for arguments in cases}
  assert set(PRESETS) <= models


def test_stage_1_trains_half_of_the_7b(plans):
  """Stage I trains one expert, the ViT and the embeddings."""
  plan = plans['stage1 bagel_7b']['1']
  assert 7.9e9 < plan['trainable'] < 8.1e9
