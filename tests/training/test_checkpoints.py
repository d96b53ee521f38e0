"""What is saved is read back, and what is not whole is not read."""

import json
import os
import shutil
import subprocess
import sys

import grain.python as grain
import jax
import nano
import numpy as np
import pytest

from synermedgen_jax.input.streams import BatchIterator
from synermedgen_jax.models import presets
from synermedgen_jax.training import checkpoints as ckpt
from synermedgen_jax.training.checkpoints import CheckpointError

DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


class Numbers(BatchIterator):
  """One stream of 0, 1, 2, ... whose place can be saved."""

  def __next__(self):
    return next(self.streams[0])


def numbers():
  return Numbers({0: iter(grain.MapDataset.range(100).to_iter_dataset())})


def params(step):
  """The first one trains, the second is frozen."""
  return {
    'vit': {'kernel': np.arange(4, dtype=np.float32) * step},
    'autoencoder': {'bias': np.full(2, 9.0, np.float32)},
  }


def average(step):
  return {'vit': {'kernel': np.full(4, 0.5 * step, np.float32)}}


def optimizer(step):
  return {'opt_state': (np.float32([step]), {'mu': np.float32([2.0 * step])})}


def save(checkpoints, step, data, *, ema=True):
  ckpt.save(
    checkpoints,
    step,
    params=params(step),
    ema=average(step) if ema else {},
    optimizer=optimizer(step),
    data=data,
    model=nano.MODEL,
  )


def write(directory, *steps, ema=True):
  """A checkpoint after each of these steps; data is then at that place."""
  checkpoints, data = ckpt.manager(directory), numbers()
  for step in range(1, max(steps) + 1):
    next(data)
    if step in steps:
      save(checkpoints, step, data, ema=ema)
  checkpoints.wait_until_finished()
  checkpoints.close()
  return directory


def write_and_die(directory, step):
  """Ends as a killed process does, while a checkpoint is being written."""
  save(ckpt.manager(directory), step, numbers())
  os._exit(9)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  return write(tmp_path_factory.mktemp('run') / 'checkpoints', 1, 3)


@pytest.fixture
def copy(written, tmp_path):
  """One to spoil."""
  return shutil.copytree(written, tmp_path / 'checkpoints')


def assert_equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(a), b)
    assert a.dtype == b.dtype


def restore(directory, step, data, **other):
  trees = {'params': params(0), 'ema': average(0), 'optimizer': optimizer(0)}
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=DEVICE),
    trees | other,
  )
  checkpoints = ckpt.manager(directory)
  try:
    return ckpt.restore(checkpoints, step, **abstract, data=data)
  finally:
    checkpoints.close()


@pytest.mark.parametrize('step', [1, 3])
def test_a_checkpoint_comes_back_as_it_was_saved(written, step):
  data = numbers()
  found = restore(written, step, data)
  assert_equal(found['params'], params(step))
  assert_equal(found['ema'], average(step))
  assert_equal(found['optimizer'], optimizer(step))
  assert next(data) == step


def test_the_newest_checkpoint_is_the_latest(written):
  checkpoints, step = ckpt.latest(written)
  checkpoints.close()
  assert step == 3


def test_as_many_checkpoints_are_kept_as_asked(tmp_path):
  directory = write(tmp_path / 'checkpoints', 1, 2, 3)
  assert sorted(path.name for path in directory.iterdir()) == ['2', '3']


def test_checkpoints_of_every_so_many_steps_are_kept_too(tmp_path):
  checkpoints, data = ckpt.manager(tmp_path, keep=1, keep_every=4), numbers()
  for step in (2, 4, 6, 8, 10, 11):
    save(checkpoints, step, data)
  checkpoints.wait_until_finished()
  checkpoints.close()
  assert {path.name for path in tmp_path.iterdir()} == {'4', '8', '11'}


@pytest.mark.parametrize('name', presets.PRESETS)
def test_a_model_is_written_as_json_and_read_back(name):
  model = presets.preset(name)
  written = json.dumps(ckpt.model_to_json(model))
  assert ckpt.model_from_json(json.loads(written)) == model


def test_a_model_has_the_average_of_what_trained_and_the_frozen(written):
  model, found = ckpt.load_model(written)
  assert model == nano.MODEL
  assert_equal(found, params(3) | average(3))
  assert np.asarray(found['vit']['kernel']).tolist() == [1.5] * 4


def test_a_model_without_its_average_when_asked(written):
  assert_equal(ckpt.load_model(written, use_ema=False)[1], params(3))


def test_a_run_that_kept_no_average_has_its_parameters(tmp_path):
  directory = write(tmp_path / 'checkpoints', 2, ema=False)
  assert_equal(ckpt.load_model(directory)[1], params(2))


def refused(function, *arguments):
  with pytest.raises(CheckpointError) as error:
    function(*arguments)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_a_missing_directory_is_named(tmp_path):
  missing = tmp_path / 'nowhere'
  assert refused(ckpt.load_model, missing) == (
    f'{missing}: no checkpoint directory there.'
  )
  assert not missing.exists()


def test_a_directory_without_a_checkpoint_is_named(tmp_path):
  assert refused(ckpt.load_model, tmp_path) == (
    f'{tmp_path}: holds no whole checkpoint.'
  )


@pytest.fixture(scope='module')
def killed(written, tmp_path_factory):
  """Two whole checkpoints, and a third one whose writer was killed."""
  directory = tmp_path_factory.mktemp('killed') / 'checkpoints'
  shutil.copytree(written, directory)
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      'import pathlib, sys, test_checkpoints as test\n'
      'test.write_and_die(pathlib.Path(sys.argv[1]), 5)',
      directory,
    ],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
    check=False,
  )
  assert done.returncode == 9
  assert {path.name for path in directory.iterdir()} > {'1', '3'}
  return directory


def test_a_save_that_was_killed_leaves_the_checkpoint_before_it(killed):
  assert_equal(ckpt.load_model(killed)[1], params(3) | average(3))


def test_a_first_save_that_was_killed_is_no_checkpoint(killed, tmp_path):
  directory = shutil.copytree(killed, tmp_path / 'checkpoints')
  shutil.rmtree(directory / '1')
  shutil.rmtree(directory / '3')
  assert list(directory.iterdir())
  assert refused(ckpt.load_model, directory) == (
    f'{directory}: holds no whole checkpoint.'
  )


@pytest.mark.parametrize('item', ['params', 'model', 'params/d', 'ema/d'])
def test_a_checkpoint_with_a_part_removed_is_not_read(copy, item):
  shutil.rmtree(copy / '3' / item)
  message = refused(ckpt.load_model, copy)
  assert message.startswith(f'{copy}/3: cannot be read (')
  assert message.endswith(
    'delete it and train on from the one before it, or from the start.'
  )


@pytest.mark.parametrize('item', ['params', 'optimizer', 'data', 'ema'])
def test_a_run_does_not_resume_from_a_part(copy, item):
  shutil.rmtree(copy / '3' / item)
  assert f'{copy}/3: cannot be read' in refused(restore, copy, 3, numbers())


OTHERS = {
  'shape': {'params': params(0) | {'vit': {'kernel': np.zeros(5, np.float32)}}},
  'parameter': {'params': params(0) | {'connector': np.zeros(1, np.float32)}},
  'optimiser': {'optimizer': {'opt_state': (np.float32([0]),)}},
}


@pytest.mark.parametrize('other', OTHERS)
def test_a_run_does_not_resume_from_that_of_another_config(written, other):
  with pytest.raises(CheckpointError) as error:
    restore(written, 3, numbers(), **OTHERS[other])
  assert '\n' not in str(error.value)
  assert 'resume with the config it was begun with' in str(error.value)
