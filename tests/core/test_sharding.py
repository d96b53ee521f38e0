import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from synermedgen_jax.core import sharding

DEVICE = jax.devices()[:1]


@pytest.mark.parametrize('shape', [(-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_minus_one_takes_the_devices_that_are_left(shape):
  mesh = sharding.make_mesh(shape, DEVICE)
  assert dict(mesh.shape) == {'data': 1, 'fsdp': 1, 'tensor': 1}


@pytest.mark.parametrize(
  'shape', [(2, 1, 1), (1, 2, -1), (-1, -1, 1), (1, 1), (0, -1, 1), (-2, 1, 1)]
)
def test_a_shape_that_the_devices_do_not_fill_is_refused(shape):
  with pytest.raises(ValueError, match=r'does not fit 1 devices.*config\.mesh'):
    sharding.make_mesh(shape, DEVICE)


def test_rows_are_split_over_data_and_fsdp():
  mesh = sharding.make_mesh((1, 1, 1), DEVICE)
  assert sharding.batch_sharding(mesh).spec == PartitionSpec(('data', 'fsdp'))


def test_parameters_follow_the_names_of_their_axes():
  params = {
    'up': nn.LogicallyPartitioned(
      jnp.zeros((2, 4, 6)), ('layers', 'embed', 'mlp')
    ),
    'embedding': nn.LogicallyPartitioned(jnp.zeros((8, 4)), ('vocab', 'embed')),
    'bare': jnp.zeros(3),
  }
  mesh = sharding.make_mesh((1, 1, 1), DEVICE)
  specs = jax.tree.map(lambda s: s.spec, sharding.param_shardings(params, mesh))
  assert specs['up'] == PartitionSpec(None, 'fsdp', 'tensor')
  assert specs['embedding'] == PartitionSpec('tensor', 'fsdp')
  assert specs['bare'] == PartitionSpec()


def test_one_device_holds_all_rows():
  rows = sharding.batch_sharding(sharding.make_mesh((1, 1, 1), DEVICE))
  assert sharding.rows_here(rows, 4).tolist() == [0, 1, 2, 3]


def test_rows_are_placed_in_their_order_on_one_device():
  rows = sharding.batch_sharding(sharding.make_mesh((1, 1, 1), DEVICE))
  local = np.arange(12, dtype=np.int32).reshape(4, 3)
  placed = sharding.place_rows(local, rows)
  assert placed.sharding == rows
  assert placed.dtype == np.int32
  np.testing.assert_array_equal(placed, local)


class TwoProcesses:
  """Sharding of batches over four devices, two per process.

  Halves of the rows are split over `data` and quarters over `fsdp`; the devices
  of this process have two of these, in any order.
  """

  mesh = types.SimpleNamespace(shape={'data': 2, 'fsdp': 2, 'tensor': 1})

  def __init__(self, *quarters):
    self.quarters = quarters

  def addressable_devices_indices_map(self, shape):
    each = shape[0] // 4
    return {
      f'device {q}': (
        slice(q * each, (q + 1) * each),
        *[slice(None)] * (len(shape) - 1),
      )
      for q in self.quarters
    }


class HeadsApart:
  """Four devices of which two, of this process, hold the same rows."""

  mesh = types.SimpleNamespace(shape={'data': 2, 'fsdp': 1, 'tensor': 2})

  def addressable_devices_indices_map(self, shape):
    second = slice(shape[0] // 2, shape[0])
    return {'device 2': (second,), 'device 3': (second,)}


def test_rows_of_several_devices_come_once_and_ascending():
  assert sharding.rows_here(TwoProcesses(3, 0), 8).tolist() == [0, 1, 6, 7]
  assert sharding.rows_here(TwoProcesses(3, 0), 4).tolist() == [0, 3]
  assert sharding.rows_here(TwoProcesses(1, 2), 8).tolist() == [2, 3, 4, 5]
  assert sharding.rows_here(HeadsApart(), 4).tolist() == [2, 3]


@pytest.fixture
def placed_rows(monkeypatch):
  """Shape of the global array, and the rows of each device."""
  placed = {}

  def make(shape, where, rows_at):
    placed['shape'] = shape
    indices = where.addressable_devices_indices_map(shape)
    placed['rows'] = {
      d: rows_at(index).tolist() for d, index in indices.items()
    }

  monkeypatch.setattr(sharding.jax, 'make_array_from_callback', make)
  return placed


def test_a_processes_rows_go_to_the_devices_they_belong_to(placed_rows):
  # Rows 0, 1, 6 and 7 of eight, each with its number in it twice.
  local = np.array([[0, 0], [1, 1], [6, 6], [7, 7]])
  sharding.place_rows(local, TwoProcesses(3, 0))
  assert placed_rows['shape'] == (8, 2)
  assert placed_rows['rows'] == {
    'device 3': [[6, 6], [7, 7]],
    'device 0': [[0, 0], [1, 1]],
  }
  sharding.place_rows(np.array([2, 3, 4, 5]), TwoProcesses(2, 1))
  assert placed_rows['shape'] == (8,)
  assert placed_rows['rows'] == {'device 2': [4, 5], 'device 1': [2, 3]}


def test_rows_that_several_devices_hold_are_given_to_each(placed_rows):
  sharding.place_rows(np.array([2, 3]), HeadsApart())
  assert placed_rows['shape'] == (4,)
  assert placed_rows['rows'] == {'device 2': [2, 3], 'device 3': [2, 3]}
