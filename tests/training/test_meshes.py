"""Several devices compute the losses of one."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# In how many parts the most divided parameter lies: the mesh is really used.
PARTS = {'8,1,1': 1, '2,4,1': 4, '2,2,2': 4, '1,4,2': 8}
# All of them, in all stages, are slow; this one divides each axis.
QUICK = '2,2,2'
# Stage -> what it minimises. Joint training has the losses of both stages.
TERMS = {
  'autoencoder': {'l1', 'l2', 'kl'},
  'stage1': {'ntp/cts', 'ntp/mi', 'ntp/tia'},
  'stage2': {'flow'},
  'joint': {'flow', 'ntp/cts', 'ntp/mi', 'ntp/tia'},
}


@functools.cache
def compared(store: Path, meshes: tuple[str, ...], *stages: str) -> dict:
  done = subprocess.run(
    [
      *(sys.executable, TESTS / 'training' / 'mesh_losses.py', store),
      *(' '.join(meshes), *stages),
    ],
    env=os.environ
    | {
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def check(alone: list[dict], losses: dict, mesh: str, stage: str) -> None:
  assert losses['parts'] == (1 if stage == 'autoencoder' else PARTS[mesh])
  for step, expected in zip(losses['losses'], alone, strict=True):
    assert step.keys() == expected.keys() >= {'loss', *TERMS[stage]}
    assert step == pytest.approx(expected, rel=1e-5)
  assert losses['gradients_off'] <= 1e-5


def test_losses_and_gradients_do_not_depend_on_the_mesh(store_path):
  losses = compared(store_path, (QUICK,), 'joint')['joint']
  check(losses['alone'], losses[QUICK], QUICK, 'joint')


@pytest.mark.slow
@pytest.mark.parametrize('mesh', PARTS)
@pytest.mark.parametrize('stage', TERMS)
def test_no_stage_depends_on_the_mesh(store_path, stage, mesh):
  losses = compared(store_path, tuple(PARTS), *TERMS)[stage]
  check(losses['alone'], losses[mesh], mesh, stage)


def test_every_step_is_another_one(store_path):
  alone = compared(store_path, (QUICK,), 'joint')['joint']['alone']
  assert len({step['loss'] for step in alone}) == 3


def test_a_kernel_runs_on_each_devices_rows_and_heads(store_path):
  losses = compared(store_path, (QUICK,), 'joint')
  assert losses['attention'][QUICK] <= 1e-5
