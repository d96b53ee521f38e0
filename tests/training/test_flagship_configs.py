"""configs/*.py for 1 to 64 devices, without weights and without compiling.

The number of fake devices is fixed once, so a process of its own
(`flagship_plans.py`) builds all runs.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEVICES = (1, 8, 16, 64)
STAGES = ('autoencoder', 'stage1', 'stage2', 'joint')
MODELS = ('bagel_7b', 'base_1b')


@pytest.fixture(scope='module')
def plans():
  done = subprocess.run(
    [
      sys.executable,
      str(Path(__file__).with_name('flagship_plans.py')),
      *map(str, DEVICES),
    ],
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('devices', DEVICES)
@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('stage', STAGES)
def test_mesh_and_rows_follow_the_devices(plans, stage, model, devices):
  plan = plans[f'{stage} {model}'][str(devices)]
  assert plan['mesh'] == {'data': 1, 'fsdp': devices, 'tensor': 1}
  assert plan['rows'] == plan['streams'] == devices
  # The largest matrices are split over all devices.
  assert plan['parts'] == devices


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('stage', STAGES)
def test_a_row_holds_an_example_of_every_task(plans, stage, model):
  plan = plans[f'{stage} {model}']
  assert plan['tasks']
  for task, fill in plan['tasks'].items():
    assert fill > 0, task
  assert plan['fill'] > 0.5


def test_stage_1_trains_half_of_the_7b(plans):
  """Stage I trains one expert, the ViT and the embeddings."""
  plan = plans['stage1 bagel_7b']['1']
  assert 7.9e9 < plan['trainable'] < 8.1e9
