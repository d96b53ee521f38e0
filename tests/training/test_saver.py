"""The loop continues while a checkpoint is written, which is complete."""

import contextlib
import dataclasses
import threading
import types

import grain
import jax
import jax.numpy as jnp
import nano
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.input.streams import BatchIterator
from synermedgen_jax.training import loop, resuming
from synermedgen_jax.training.saver import Saver
from synermedgen_jax.training.train_state import TrainState

NEVER, ALWAYS = 0, 2**62  # bytes under which a thread of its own saves


@pytest.fixture
def parts():
  """A state of a few arrays, and its shapes."""
  state = TrainState(
    step=jnp.int32(0),
    trainable={'vit/kernel': jnp.arange(6.0).reshape(2, 3)},
    frozen={'autoencoder/bias': jnp.ones(2, jnp.bfloat16)},
    opt_state=(jnp.int32(7), {'vit/kernel': jnp.full((2, 3), 0.5)}),
    ema={'vit/kernel': jnp.full((2, 3), 2.0)},
  )
  mesh = make_mesh((1, 1, 1))
  everywhere = NamedSharding(mesh, PartitionSpec())
  state = jax.device_put(state, everywhere)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state
  )
  return state, abstract


def numbers(place):
  stream = iter(grain.MapDataset.range(9).to_iter_dataset())
  for _ in range(place):
    next(stream)
  return BatchIterator({0: stream}, layout={'rows': 1, 'streams': 1})


def opened(folder, small):
  return contextlib.closing(Saver(ckpt.manager(folder), small=small))


def read(folder, abstract, iterator):
  checkpoints, step, state = resuming.resume(
    lambda: ckpt.manager(folder), abstract, iterator
  )
  checkpoints.close()
  return step, state


def assert_same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('small', [NEVER, ALWAYS])
def test_a_save_has_the_state_at_its_call(tmp_path, parts, small):
  """The next step takes the state's memory, and the data go on."""
  state, abstract = parts
  held = jax.tree.map(np.array, state)
  spent = jax.tree.map(lambda x: x.copy(), state)
  iterator = numbers(4)
  with opened(tmp_path, small) as saver:
    saver.save(3, spent, iterator, nano.MODEL, {})
    jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(spent)
    next(iterator.streams[0])
  resumed = numbers(0)
  step, restored = read(tmp_path, abstract, resumed)
  assert step == 3
  assert_same(dataclasses.replace(held, step=np.int32(3)), restored)
  assert next(resumed.streams[0]) == 4


@pytest.mark.parametrize('small', [NEVER, ALWAYS])
def test_each_save_is_complete_before_the_next_and_at_the_end(
  tmp_path, parts, small
):
  state, abstract = parts
  with opened(tmp_path, small) as saver:
    for step in (1, 2):
      saver.save(step, state, numbers(step), nano.MODEL, {})
    saver.wait()
    assert (tmp_path / '1' / 'checksums').exists()
    step, _ = read(tmp_path, abstract, numbers(0))
    assert step == 2
    saver.save(5, state, numbers(0), nano.MODEL, {})
  assert read(tmp_path, abstract, numbers(0))[0] == 5


def test_the_loop_does_not_wait_for_a_small_state(tmp_path, parts, monkeypatch):
  go_on, real = threading.Event(), ckpt.save
  monkeypatch.setattr(
    ckpt, 'save', lambda *a, **k: go_on.wait(60) and real(*a, **k)
  )
  state, abstract = parts
  with opened(tmp_path, ALWAYS) as saver:
    saver.save(1, state, numbers(0), nano.MODEL, {})  # returns
    assert not any(tmp_path.iterdir())
    go_on.set()
  assert read(tmp_path, abstract, numbers(0))[0] == 1


@pytest.mark.parametrize('later', ['save', 'wait', 'close'])
def test_an_error_in_the_thread_is_raised_by_the_next_call(
  tmp_path, parts, monkeypatch, later
):
  def full(*args, **kwargs):
    raise ckpt.CheckpointError('the disk is full')

  state, _ = parts
  saver = Saver(ckpt.manager(tmp_path), small=ALWAYS)
  with monkeypatch.context() as patch:
    patch.setattr(ckpt, 'save', full)
    saver.save(1, state, numbers(0), nano.MODEL, {})
    args = (2, state, numbers(0), nano.MODEL, {}) if later == 'save' else ()
    with pytest.raises(ckpt.CheckpointError, match='the disk is full'):
      getattr(saver, later)(*args)
  saver.close()  # told once


@pytest.fixture
def closed(monkeypatch):
  """The managers that were closed, in order."""
  managers, close = [], ocp.CheckpointManager.close

  def closing(self):
    managers.append(self)
    close(self)

  monkeypatch.setattr(ocp.CheckpointManager, 'close', closing)
  return managers


class Data:
  describe = None

  def __iter__(self):
    return numbers(0)


def raising(*args, **kwargs):
  raise RuntimeError('raised')


def test_resuming_closes_the_manager_if_it_fails(
  tmp_path, parts, closed, monkeypatch
):
  state, abstract = parts
  with opened(tmp_path, NEVER) as saver:
    saver.save(3, state, numbers(0), nano.MODEL, {})
  closed.clear()
  checkpoints = ckpt.manager(tmp_path)
  monkeypatch.setattr(ckpt, 'restore', raising)
  with pytest.raises(RuntimeError, match='raised'):
    resuming.resume(lambda: checkpoints, abstract, numbers(0))
  assert closed == [checkpoints]


@pytest.mark.parametrize('failing', ['create', 'provenance', 'record', None])
def test_training_closes_the_manager_however_it_ends(
  tmp_path, parts, closed, monkeypatch, failing
):
  state, abstract = parts
  steps = 1 if failing else 0
  run = types.SimpleNamespace(
    config={},
    data=Data(),
    mesh=make_mesh((1, 1, 1)),
    state=abstract,
    store=None,
    create=raising if failing == 'create' else lambda: state,
    loop=loop.LoopConfig(steps=steps, rate=float),
  )
  monkeypatch.setattr(loop, 'jit_steps', lambda run: (None, None))
  keep = raising if failing == 'provenance' else lambda *_: None
  monkeypatch.setattr(loop.provenance, 'keep', keep)
  if failing == 'record':
    monkeypatch.setattr(loop, 'Record', raising)
  if failing:
    with pytest.raises(RuntimeError, match='raised'):
      loop.train(run, tmp_path)
  else:
    assert loop.train(run, tmp_path) is state
  assert len(closed) == 1


def test_several_processes_save_in_step(tmp_path, parts, monkeypatch):
  """They meet at barriers, in the same order everywhere: no other thread."""
  threads, real = [], ckpt.save

  def noting(*args, **kwargs):
    threads.append(threading.current_thread())
    return real(*args, **kwargs)

  checkpoints = ckpt.manager(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(jax, 'process_count', lambda: 2)
    saver = Saver(checkpoints)
  monkeypatch.setattr(ckpt, 'save', noting)
  saver.save(1, parts[0], numbers(0), nano.MODEL, {})
  saver.close()
  assert threads == [threading.main_thread()]
