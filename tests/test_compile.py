"""Plans of small models; the compiler is real, the devices are not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def compile_step(*arguments):
  """In a process of its own: the number of devices is fixed once."""
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',  # quick to compile
  }
  return subprocess.run(
    [sys.executable, '-m', 'synermedgen_jax.compile', *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope='module')
def stage2():
  done = compile_step(
    '--config=configs/tiny/stage2.py',
    '--topology=cpu:4',
    '--config.mesh=(1,2,2)',
    '--config.optimizer=adamw',
    '--json',
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_state_and_batch_are_split_over_the_mesh(stage2):
  assert (stage2['devices'], stage2['mesh']) == (
    4,
    {'data': 1, 'fsdp': 2, 'tensor': 2},
  )
  state = stage2['state_bytes']
  # The gen expert and its projections: 0.54 M parameters in float32, mostly in
  # quarters; two moments and an average of each.
  assert state['trainable'] == state['ema']
  assert 2 * state['trainable'] == pytest.approx(state['opt_state'], rel=0.01)
  assert stage2['batch_bytes'] > 4 * 64 * 64 * 4 * 2  # canvases of four rows


def test_messages_are_named_by_axis(stage2):
  moved = {
    (c['part'], axis) for c in stage2['collectives'] for axis in c['axes']
  }
  assert {('gen', 'fsdp'), ('gen', 'tensor'), ('und', 'fsdp')} <= moved
  assert 'data' not in {axis for _, axis in moved}


def test_operations_follow_from_the_shapes(stage2):
  """Six operations a weight and token trained, four frozen but passed back."""
  width, mlp, layers = 96, 256, 4
  heads = 96 * 96 * 2 + 2 * 48 * 96
  expert = layers * (heads + 3 * width * mlp)
  gen, und = 128, 24
  rows = 8
  rough = rows * expert * (6 * gen + 4 * und)
  assert 0.5 * rough < stage2['flops']['other'] < 2 * rough


def test_a_tpu_slice_by_its_rented_name():
  pytest.importorskip(
    'libtpu', reason='compiles for TPUs: requirements-dev.txt'
  )
  done = compile_step(
    '--config=configs/tiny/stage1.py',
    '--topology=v5p-8',
    '--config.mesh=(1,4,1)',
    '--config.optimizer=adamw',
    '--json',
  )
  assert done.returncode == 0, done.stderr
  plan = json.loads(done.stdout)
  assert plan['devices'] == 4  # two cores a chip
  assert plan['limit_bytes'] == 95 * 2**30
  assert not [c for c in plan['collectives'] if c['part'] == 'gen']
  work = sum(plan['flops'].values())
  assert plan['step_seconds'] == pytest.approx(work / (4 * 459e12 * 0.4))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      ['--topology=v9-8', '--config=configs/tiny/stage1.py'],
      "Error: Unknown topology 'v9-8': expected cpu:N or one of v5e-4",
    ),
    (
      [
        '--topology=cpu:1',
        '--config=configs/tiny/stage1.py',
        '--config.mesh=(3,1,1)',
      ],
      'Error: config.mesh: mesh (3, 1, 1) over axes',
    ),
    (
      ['--topology=cpu:1', '--config=configs/stage1.py:init_from'],
      "Error: config.model 'init_from' needs config.init_from",
    ),
  ],
)
def test_a_config_that_cannot_compile_is_one_line(arguments, message):
  done = compile_step(*arguments)
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith(message)


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_an_error():
  pytest.importorskip(
    'libtpu', reason='compiles for TPUs: requirements-dev.txt'
  )
  done = compile_step(
    '--config=configs/stage1.py:bagel_7b',
    '--topology=v5e-4',
    '--config.mesh=(1,4,1)',
    '--config.rows=4',
  )
  assert done.returncode == 1
  assert 'Error: bagel_7b does not fit' in done.stderr
