"""Checkpoints are restored exactly; incomplete or damaged ones are refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
import types

import grain.python as grain
import jax
import nano
import numpy as np
import orbax.checkpoint as ocp
import pytest

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.checkpoint import streaming
from synermedgen_jax.checkpoint.checksums import json_checksum
from synermedgen_jax.checkpoint.data_position import (
  DataHandler,
  DataRestore,
  DataSave,
)
from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.core.trees import unflatten
from synermedgen_jax.input.streams import BatchIterator
from synermedgen_jax.models import presets
from synermedgen_jax.models.shape_json import model_from_json, model_to_json

DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


class Numbers(BatchIterator):
  """One stream of 0, 1, 2, ... whose position can be saved."""

  def __next__(self):
    return next(self.streams[0])


def numbers():
  stream = iter(grain.MapDataset.range(100).to_iter_dataset())
  return Numbers({0: stream}, layout={'streams': 1})


def params(step):
  """A trained and a frozen parameter."""
  return {
    'vit': {'kernel': np.arange(4, dtype=np.float32) * step},
    'autoencoder': {'bias': np.full(2, 9.0, np.float32)},
  }


def average(step):
  return {'vit': {'kernel': np.full(4, 0.5 * step, np.float32)}}


def optimizer(step):
  return {'opt_state': (np.float32([step]), {'mu': np.float32([2.0 * step])})}


def save(checkpoints, step, data, *, ema=True, metrics=None):
  ckpt.save(
    checkpoints,
    step,
    params=params(step),
    ema=average(step) if ema else {},
    optimizer=optimizer(step),
    data=DataSave.of(data),
    model=nano.MODEL,
    metrics=metrics,
  )


def write(directory, *steps, ema=True):
  """Writes checkpoints after these steps, with the data at that position."""
  checkpoints, data = ckpt.manager(directory), numbers()
  for step in range(1, max(steps) + 1):
    next(data)
    if step in steps:
      save(checkpoints, step, data, ema=ema)
  checkpoints.wait_until_finished()
  checkpoints.close()
  return directory


def write_and_die(directory, step):
  """Ends like a killed process while a checkpoint is written."""
  save(ckpt.manager(directory), step, numbers())
  os._exit(9)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  return write(tmp_path_factory.mktemp('run') / 'checkpoints', 1, 3)


@pytest.fixture
def copy(written, tmp_path):
  """A copy of the checkpoints of `written` that a test may damage."""
  return shutil.copytree(written, tmp_path / 'checkpoints')


def assert_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
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
  restored = restore(written, step, data)
  assert_equal(restored['params'], params(step))
  assert_equal(restored['ema'], average(step))
  assert_equal(restored['optimizer'], optimizer(step))
  assert next(data) == step


def test_the_newest_checkpoint_is_the_latest(written):
  checkpoints, step = saved_model.latest(written)
  checkpoints.close()
  assert step == 3


def test_as_many_checkpoints_are_kept_as_asked(tmp_path):
  directory = write(tmp_path / 'checkpoints', 1, 2, 3)
  assert sorted(path.name for path in directory.iterdir()) == ['2', '3']


def test_checkpoints_of_every_nth_step_are_kept_too(tmp_path):
  checkpoints, data = ckpt.manager(tmp_path, keep=1, keep_every=4), numbers()
  for step in (2, 4, 6, 8, 10, 11):
    save(checkpoints, step, data)
  checkpoints.wait_until_finished()
  checkpoints.close()
  assert {path.name for path in tmp_path.iterdir()} == {'4', '8', '11'}


@pytest.mark.parametrize('name', presets.PRESETS)
def test_a_model_is_written_as_json_and_read_back(name):
  model = presets.preset(name)
  written = json.dumps(model_to_json(model))
  assert model_from_json(json.loads(written)) == model


def test_the_shape_of_an_earlier_file_is_read():
  model = presets.tiny()
  written = model_to_json(model) | {'dtype': 'float32', 'position_base': 2.0}
  written['llm'] |= {'remat': 'full', 'attention': None, 'unroll': 4}
  written['vit'] |= {'remat': 'full', 'attention': None, 'unroll': 2}
  assert model_from_json(written) == model


def test_an_unknown_part_of_a_shape_is_refused():
  written = model_to_json(presets.tiny()) | {'mixture': 3}
  with pytest.raises(TypeError, match='mixture'):
    model_from_json(written)


def test_a_model_has_averaged_trained_and_frozen_parameters(written):
  model, loaded = saved_model.load_model(written)
  assert model == nano.MODEL
  assert_equal(loaded, params(3) | average(3))
  assert np.asarray(loaded['vit']['kernel']).tolist() == [1.5] * 4


def test_a_model_is_loaded_without_its_average(written):
  assert_equal(saved_model.load_model(written, use_ema=False)[1], params(3))


def test_a_run_that_kept_no_average_has_its_parameters(tmp_path):
  directory = write(tmp_path / 'checkpoints', 2, ema=False)
  assert_equal(saved_model.load_model(directory)[1], params(2))


def refused(function, *arguments):
  with pytest.raises(CheckpointError) as error:
    function(*arguments)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_a_missing_directory_is_named(tmp_path):
  missing = tmp_path / 'nowhere'
  assert refused(saved_model.load_model, missing) == (
    f'{missing}: no such checkpoint directory.'
  )
  assert not missing.exists()


def test_a_directory_without_a_checkpoint_is_named(tmp_path, monkeypatch):
  closed, close = [], ocp.CheckpointManager.close
  monkeypatch.setattr(
    ocp.CheckpointManager, 'close', lambda self: closed.append(close(self))
  )
  assert refused(saved_model.load_model, tmp_path) == (
    f'{tmp_path}: has no complete checkpoint.'
  )
  assert len(closed) == 1


@pytest.fixture(scope='module')
def killed(written, tmp_path_factory):
  """Two complete checkpoints, and a third one whose writer was killed."""
  directory = tmp_path_factory.mktemp('killed') / 'checkpoints'
  shutil.copytree(written, directory)
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      'import pathlib, sys, test_orbax_items as test\n'
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
  assert_equal(saved_model.load_model(killed)[1], params(3) | average(3))


def test_a_first_save_that_was_killed_is_no_checkpoint(killed, tmp_path):
  directory = shutil.copytree(killed, tmp_path / 'checkpoints')
  shutil.rmtree(directory / '1')
  shutil.rmtree(directory / '3')
  assert list(directory.iterdir())
  assert refused(saved_model.load_model, directory) == (
    f'{directory}: has no complete checkpoint.'
  )


@pytest.mark.parametrize(
  'item', ['params', 'model', 'params/d', 'ema', 'ema/d']
)
def test_a_checkpoint_with_a_part_removed_is_not_read(copy, item):
  shutil.rmtree(copy / '3' / item)
  message = refused(saved_model.load_model, copy)
  assert message.startswith(f'{copy}/3: cannot be read (')
  assert message.endswith(
    'delete it and train on from the one before it, or from the start.'
  )


def test_parameters_are_read_where_their_average_is_lost(copy):
  shutil.rmtree(copy / '3' / 'ema')
  assert_equal(saved_model.load_model(copy, use_ema=False)[1], params(3))


def test_an_export_does_not_replace_a_lost_average(copy):
  shutil.rmtree(copy / '3' / 'ema')
  assert refused(streaming.open_model, copy) == (
    f'{copy}/3: cannot be read (ema, the averaged parameters, is missing).'
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
def test_a_run_does_not_resume_from_another_config(written, other):
  with pytest.raises(CheckpointError) as error:
    restore(written, 3, numbers(), **OTHERS[other])
  assert '\n' not in str(error.value)
  assert 'resume with the config it was begun with' in str(error.value)


def write_measured(directory, metric, values, *, keep=1):
  """Writes a checkpoint after each step, with its metric if it has one."""
  checkpoints, data = ckpt.manager(directory, keep=keep, best=metric), numbers()
  for step, value in values.items():
    measured = {} if value is None else {metric: value}
    save(checkpoints, step, data, metrics=measured)
  checkpoints.wait_until_finished()
  checkpoints.close()
  return directory


def kept(directory):
  return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
  ('metric', 'values', 'best'),
  [
    ('val/loss', {1: 0.5, 2: 0.2, 3: 0.3, 4: 0.4}, '2'),
    ('val/ntp/mi', {1: 0.1, 2: 0.2, 3: 0.3}, '1'),
    ('val/answer_accuracy/mi', {1: 0.5, 2: 0.2, 3: 0.9, 4: 0.4}, '3'),
    ('val/token_accuracy/mi', {1: 0.5, 2: 0.2, 3: 0.3}, '1'),
  ],
)
def test_the_best_checkpoint_is_kept_beside_the_newest(
  tmp_path, metric, values, best
):
  directory = write_measured(tmp_path / 'checkpoints', metric, values)
  assert kept(directory) == {best, str(max(values))}
  _, loaded = saved_model.load_model(directory, which='best', use_ema=False)
  assert_equal(loaded, params(int(best)))
  _, loaded = saved_model.load_model(directory, use_ema=False)
  assert_equal(loaded, params(max(values)))


def test_a_checkpoint_that_was_not_measured_is_never_the_best(tmp_path):
  values = {1: None, 2: 0.5, 3: 0.7, 4: None, 5: None}
  directory = write_measured(tmp_path / 'checkpoints', 'val/loss', values)
  assert kept(directory) == {'2', '5'}
  _, loaded = saved_model.load_model(directory, which='best')
  assert_equal(loaded, params(2) | average(2))


@pytest.mark.parametrize(
  ('values', 'best'),
  [
    ({1: np.nan, 2: 0.5, 3: 0.7}, 2),
    ({1: 0.5, 2: np.nan, 3: 0.7}, 1),
    ({1: 0.5, 2: 0.7, 3: -np.inf, 4: 0.8}, 1),
  ],
)
def test_a_measure_that_is_not_finite_is_never_the_best(tmp_path, values, best):
  directory = write_measured(tmp_path / 'checkpoints', 'val/loss', values)
  assert kept(directory) == {str(best), str(max(values))}
  checkpoints, _ = saved_model.latest(directory)
  assert saved_model.find_step(checkpoints, 'best') == best
  checkpoints.close()


def test_a_run_that_goes_on_may_have_another_best(tmp_path):
  directory = tmp_path / 'checkpoints'
  write_measured(directory, 'val/loss', {1: 0.1, 2: 0.3})
  values = {3: 0.7, 4: 0.9, 5: 0.8}
  write_measured(directory, 'val/answer_accuracy/mi', values)
  assert kept(directory) == {'4', '5'}
  checkpoints, _ = saved_model.latest(directory)
  assert saved_model.find_step(checkpoints, 'best') == 4
  checkpoints.close()


def test_the_best_is_still_kept_after_a_resume(tmp_path):
  directory = tmp_path / 'checkpoints'
  write_measured(directory, 'val/loss', {1: 0.1, 2: 0.3})
  write_measured(directory, 'val/loss', {3: 0.2, 4: 0.4})
  assert kept(directory) == {'1', '4'}


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """Steps 2, 4, 6 and 8, of which 4 and 6 are as good as each other."""
  values = {2: 0.5, 4: 0.25, 6: 0.25, 8: 0.75}
  directory = tmp_path_factory.mktemp('measured') / 'checkpoints'
  return write_measured(directory, 'val/loss', values, keep=4)


@pytest.mark.parametrize(
  ('which', 'step'), [('newest', 8), ('best', 6), ('2', 2), ('8', 8)]
)
def test_a_checkpoint_is_selected_by_name_or_number(measured, which, step):
  checkpoints, newest = saved_model.latest(measured)
  selected = saved_model.find_step(checkpoints, which)
  checkpoints.close()
  assert (selected, newest) == (step, 8)
  expected = params(step) | average(step)
  assert_equal(saved_model.load_model(measured, which=which)[1], expected)
  assert_equal(saved_model.load_params(measured, which=which), expected)


@pytest.mark.parametrize('which', ['3', 'oldest', '', '-2', '2.0'])
def test_a_missing_checkpoint_is_named(measured, which):
  with pytest.raises(CheckpointError) as error:
    saved_model.load_model(measured, which=which)
  assert str(error.value) == (
    f'{measured}: has no checkpoint {which!r}; there are newest, best and 2, '
    '4, 6, 8.'
  )


def test_there_is_no_best_where_nothing_was_measured(written):
  with pytest.raises(CheckpointError) as error:
    saved_model.load_model(written, which='best')
  assert str(error.value) == (
    f'{written}: no checkpoint was measured; train with config.best set to a '
    'metric.'
  )


def streams(*which, **layout):
  """Streams of different numbers, of four or those of `layout`, at 0."""
  return BatchIterator(
    {
      n: iter(
        grain.MapDataset.range(1000 * n, 1000 * n + 100).to_iter_dataset()
      )
      for n in which
    },
    layout={'streams': 4} | layout,
  )


def take(iterator, times):
  """The next N items of every stream."""
  return {
    n: [next(stream) for _ in range(times)]
    for n, stream in iterator.streams.items()
  }


def test_every_stream_has_a_file_of_its_own(tmp_path):
  iterator = streams(0, 3)
  take(iterator, 2)
  DataHandler().save(tmp_path, DataSave.of(iterator))
  assert kept(tmp_path) == {'layout.json', 'stream_0.json', 'stream_3.json'}
  state, checksum = json.loads((tmp_path / 'stream_3.json').read_text())
  assert state == iterator.streams[3].get_state()
  assert checksum == json_checksum(state)


def test_streams_of_two_processes_are_restored_by_one(tmp_path):
  handler = DataHandler()
  for iterator, done in ((streams(0, 2), 5), (streams(1, 3), 7)):
    take(iterator, done)
    handler.save(tmp_path, DataSave.of(iterator))
  one = streams(0, 1, 2, 3)
  handler.restore(tmp_path, DataRestore(one))
  assert take(one, 2) == {
    0: [5, 6],
    1: [1007, 1008],
    2: [2005, 2006],
    3: [3007, 3008],
  }


def test_streams_of_one_process_are_restored_by_several(tmp_path):
  handler, one = DataHandler(), streams(0, 1, 2, streams=3)
  take(one, 4)
  next(one.streams[2])
  handler.save(tmp_path, DataSave.of(one))
  following = {}
  for part in (streams(2, streams=3), streams(0, 1, streams=3)):
    handler.restore(tmp_path, DataRestore(part))
    following |= take(part, 1)
  assert following == {0: [4], 1: [1004], 2: [2005]}


def test_a_run_of_other_streams_does_not_resume(written):
  with pytest.raises(CheckpointError) as error:
    restore(written, 3, streams(0, 1, streams=1))
  assert '\n' not in str(error.value)
  assert str(error.value).startswith(f'{written}/3: cannot be read (')


def flip_a_bit(directory, item, *, bit):
  """Changes one bit of one number, and nothing else.

  The array is written again, since a compressed file could not be decoded.
  """
  checkpoints = ckpt.manager(directory)
  step = checkpoints.latest_step()
  read = checkpoints.restore(
    step,
    args=ocp.args.Composite(**{item: ocp.args.StandardRestore()}),
  )
  checkpoints.close()
  leaves, tree = jax.tree.flatten(jax.tree.map(np.array, read[item]))
  words = leaves[0].view(np.uint32)
  words.flat[1] ^= np.uint32(1 << bit)
  folder = directory / str(step) / item
  shutil.rmtree(folder)
  with ocp.StandardCheckpointer() as writer:
    writer.save(folder, jax.tree.unflatten(tree, leaves))


@pytest.mark.parametrize('bit', [0, 31])
@pytest.mark.parametrize('item', ['params', 'ema'])
def test_a_bit_that_changed_is_noticed(copy, item, bit):
  flip_a_bit(copy, item, bit=bit)
  expected = f'{item} is not what was saved: bits have changed'
  assert expected in refused(saved_model.load_model, copy)
  assert expected in refused(restore, copy, 3, numbers())
  assert expected in refused(streaming.open_model, copy)


def test_a_model_that_is_opened_is_the_one_that_was_saved(written):
  model, opened = streaming.open_model(written)
  assert model == nano.MODEL
  arrays = {name: array.whole() for name, array in opened.items()}
  assert_equal(unflatten(arrays), params(3) | average(3))


@pytest.mark.parametrize('read', ['load_shape', 'load_model', 'open_model'])
def test_a_shape_that_changed_is_noticed(copy, read):
  path = copy / '3' / 'model' / 'metadata'
  text = path.read_text()
  assert '"rope_theta": 10000.0' in text
  path.write_text(text.replace('theta": 10000', 'theta": 10016'))
  module = streaming if read == 'open_model' else saved_model
  expected = 'model is not what was saved: bits have changed'
  assert expected in refused(getattr(module, read), copy)


def test_a_checkpoint_of_before_shapes_had_checksums_is_read(copy):
  path = copy / '3' / 'checksums' / 'metadata'
  sums = json.loads(path.read_text())
  del sums['model']
  path.write_text(json.dumps(sums))
  assert saved_model.load_model(copy)[0] == nano.MODEL


def test_unavailable_storage_is_not_damage(copy, monkeypatch):
  def unavailable(*_, **__):
    raise ValueError('UNAVAILABLE: try again later')

  monkeypatch.setattr(ocp.CheckpointManager, 'restore', unavailable)
  with pytest.raises(ckpt.OutOfReach) as error:
    restore(copy, 3, numbers())
  assert str(error.value).endswith('run the same command again.')


def raise_in_restore(monkeypatch, error):
  def fail(*_, **__):
    raise error

  monkeypatch.setattr(ocp.CheckpointManager, 'restore', fail)


TRANSIENT = {
  'permission': PermissionError(errno.EACCES, 'Permission denied'),
  'device': OSError(errno.EIO, 'Input/output error'),
  'network folder': OSError(errno.ESTALE, 'Stale file handle'),
  'timeout': TimeoutError('timed out'),
  'connection': ConnectionResetError(errno.ECONNRESET, 'reset by peer'),
  'memory': MemoryError(),
  'tensorstore': ValueError("UNKNOWN: failed to open [os_error_code='5']"),
}


@pytest.mark.parametrize('cause', TRANSIENT)
@pytest.mark.parametrize('wrapped', [False, True])
def test_a_transient_error_is_not_damage(written, monkeypatch, cause, wrapped):
  error = TRANSIENT[cause]
  if wrapped:
    error = RuntimeError('in a thread of Orbax')
    error.__cause__ = TRANSIENT[cause]
  raise_in_restore(monkeypatch, error)
  with pytest.raises(ckpt.OutOfReach) as caught:
    restore(written, 3, numbers())
  line = str(caught.value)
  assert line.startswith(f'{written}/3: cannot be read (')
  assert line.endswith('run the same command again.')
  assert '()' not in line
  assert '\n' not in line


@pytest.mark.parametrize(
  'error',
  [
    FileNotFoundError(errno.ENOENT, 'No such file or directory'),
    NotADirectoryError(errno.ENOTDIR, 'Not a directory'),
    IsADirectoryError(errno.EISDIR, 'Is a directory'),
    ValueError("NOT_FOUND: failed to open [os_error_code='2']"),
    ValueError('FAILED_PRECONDITION: invalid blosc-compressed data'),
  ],
)
def test_a_missing_or_misformatted_file_is_damage(written, monkeypatch, error):
  raise_in_restore(monkeypatch, error)
  with pytest.raises(CheckpointError, match='resume with the config') as caught:
    restore(written, 3, numbers())
  assert not isinstance(caught.value, ckpt.OutOfReach)


@pytest.mark.parametrize('file', ['data/layout.json', 'params/d/*'])
def test_a_file_that_storage_cannot_open_is_not_damage(copy, file):
  """A link to itself fails with ELOOP, for Python and for TensorStore."""
  for path in list((copy / '3').glob(file)):
    path.unlink()
    path.symlink_to(path)
  with pytest.raises(ckpt.OutOfReach):
    restore(copy, 3, numbers())


def test_metrics_that_cannot_be_read_now_are_not_damage(copy):
  path = copy / '1' / 'metrics' / 'metrics'
  path.parent.mkdir()
  path.symlink_to('/proc/self/mem')  # reading address 0 fails with EIO
  with pytest.raises(ckpt.OutOfReach) as caught:
    saved_model.load_model(copy)
  assert str(caught.value) == (
    f'{path}: cannot be read (Input/output error); run the same command again.'
  )


def test_metrics_that_are_damaged_are_named(copy):
  (copy / '1' / 'metrics').mkdir()
  (copy / '1' / 'metrics' / 'metrics').write_text('{"val/lo')
  assert refused(saved_model.load_model, copy).startswith(
    f'{copy}/1/metrics/metrics: cannot be read ('
  )


def test_only_a_run_removes_what_another_left_half_written(killed, tmp_path):
  directory = shutil.copytree(killed, tmp_path / 'checkpoints')
  left = {p.name for p in directory.iterdir()} - {'1', '3'}
  assert left
  saved_model.load_model(directory)
  assert left <= {p.name for p in directory.iterdir()}
  ckpt.manager(directory, clean=True).close()
  assert {p.name for p in directory.iterdir()} == {'1', '3'}


def test_data_of_another_layout_are_refused_by_key(tmp_path):
  iterator = streams(0, 1, rows=8, seed=0)
  DataHandler().save(tmp_path, DataSave.of(iterator))
  other = streams(0, 1, rows=4, seed=0)
  with pytest.raises(ValueError, match=r'config\.rows 8, which is 4 now'):
    DataHandler().restore(tmp_path, DataRestore(other))


def test_data_of_before_routes_had_weights_have_none(tmp_path):
  old = streams(0, 1, streams=2, rows=8)
  DataHandler().save(tmp_path, DataSave.of(old))

  def restore(weights):
    now = streams(0, 1, streams=2, rows=8, route_weights=weights)
    DataHandler().restore(tmp_path, DataRestore(now))

  restore([])
  with pytest.raises(ValueError, match=r'config\.route_weights \[\], which is'):
    restore([['pelvis_.*', 2.0]])


@pytest.mark.parametrize('count', [1, 4])
def test_data_of_before_streams_were_shuffled_go_on_with_one_alone(
  tmp_path, count
):
  old = streams(*range(count), streams=count)
  DataHandler().save(tmp_path, DataSave.of(old))
  shuffled = {'streams': count, 'streams_shuffled': count > 1}
  now = DataRestore(streams(*range(count), **shuffled))
  if count == 1:
    DataHandler().restore(tmp_path, now)
    return
  with pytest.raises(ValueError, match=r'earlier version.*config\.streams=4'):
    DataHandler().restore(tmp_path, now)


def test_a_damaged_stream_of_another_process_is_an_error(tmp_path):
  DataHandler().save(tmp_path, DataSave.of(streams(0, 1, streams=2)))
  (tmp_path / 'stream_1.json').write_text('{"next')
  with pytest.raises(ValueError, match='Unterminated string'):
    DataHandler().restore(tmp_path, DataRestore(streams(0, streams=2)))


def test_a_missing_stream_of_another_process_is_an_error(tmp_path):
  DataHandler().save(tmp_path, DataSave.of(streams(0, 1, streams=2)))
  (tmp_path / 'stream_1.json').unlink()
  with pytest.raises(ValueError, match=r'/stream_1\.json is missing'):
    DataHandler().restore(tmp_path, DataRestore(streams(0, streams=2)))


@pytest.mark.parametrize(
  ('file', 'before', 'after'),
  [
    ('stream_0.json', '"next_index": 2', '"next_index": 3'),
    ('layout.json', '"streams": 1', '"streams": 0'),
  ],
)
def test_a_position_that_changed_is_noticed(tmp_path, file, before, after):
  iterator = streams(0, streams=1)
  take(iterator, 2)
  DataHandler().save(tmp_path, DataSave.of(iterator))
  text = (tmp_path / file).read_text()
  assert before in text
  (tmp_path / file).write_text(text.replace(before, after))
  with pytest.raises(ValueError, match=f'{file} is not what was saved'):
    DataHandler().restore(tmp_path, DataRestore(streams(0, streams=1)))


def test_a_position_of_an_earlier_version_has_no_checksum(tmp_path):
  iterator = streams(0, streams=1)
  take(iterator, 2)
  DataHandler().save(tmp_path, DataSave.of(iterator))
  for path in tmp_path.iterdir():
    path.write_text(json.dumps(json.loads(path.read_text())[0]))
  now = streams(0, streams=1)
  DataHandler().restore(tmp_path, DataRestore(now))
  assert next(now.streams[0]) == 2


@pytest.fixture
def of_two_processes(monkeypatch):
  """Reads as process 0 of two; `theirs` is the report of the other one."""
  reports = []

  def read(item, theirs):
    def gathered(mine):
      reports.append(mine.tolist())
      return np.stack([mine, np.int32(theirs)])

    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(ckpt.multihost_utils, 'process_allgather', gathered)
    stored = types.SimpleNamespace(restore=lambda step, args: {'params': item})
    return ckpt.read_items(stored, 3, {})

  return read, reports


# (process failed, checkpoint may be intact all the same)
FINE, DAMAGED, OUT_OF_REACH = [0, 0], [1, 0], [1, 1]


def test_an_item_that_both_processes_read_is_returned(of_two_processes):
  read, reports = of_two_processes
  assert read('arrays', FINE) == {'params': 'arrays'}
  assert reports == [FINE]


def test_an_item_that_another_process_cannot_read_raises(of_two_processes):
  read, _ = of_two_processes
  with pytest.raises(ValueError, match='process 1 cannot') as caught:
    read('arrays', DAMAGED)
  assert not isinstance(caught.value, CheckpointError)
  with pytest.raises(ckpt.OutOfReach, match='process 1 cannot'):
    read('arrays', OUT_OF_REACH)


@pytest.mark.parametrize(
  ('problem', 'kind'),
  [('torn', DAMAGED), ('UNAVAILABLE: no network', OUT_OF_REACH)],
)
def test_the_other_process_receives_the_kind_of_error(
  of_two_processes, problem, kind
):
  read, reports = of_two_processes
  with pytest.raises(ValueError, match=problem):
    read(ValueError(problem), FINE)
  assert reports == [kind]


def test_damage_in_one_process_yields_to_a_transient_error_in_another(
  of_two_processes,
):
  """No process moves a checkpoint that may be intact."""
  read, reports = of_two_processes
  with pytest.raises(ckpt.OutOfReach, match='process 1 cannot'):
    read(ValueError('torn'), OUT_OF_REACH)
  with pytest.raises(ValueError, match='UNAVAILABLE'):
    read(ValueError('UNAVAILABLE'), DAMAGED)
  assert reports == [DAMAGED, OUT_OF_REACH]
