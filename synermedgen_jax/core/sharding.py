"""The device mesh and the rules that lay logical axes on it.

Mesh axes: `data` (pure data parallelism, across slices), `fsdp` (parameters
and batch split together), `tensor` (heads, MLP and vocabulary split).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, Shaped

MESH_AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')
HEAD_AXIS = 'tensor'

LOGICAL_RULES = (
  ('batch', BATCH_AXES),
  ('lookup', 'data'),  # rows whose features are split over fsdp for a moment
  ('length', None),
  ('embed', 'fsdp'),
  ('mlp', 'tensor'),
  ('heads', HEAD_AXIS),
  ('kv_heads', HEAD_AXIS),
  ('head_dim', None),
  ('vocab', 'tensor'),
  ('layers', None),
)


def make_mesh(
  shape: Sequence[int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Returns a mesh of `shape` (data, fsdp, tensor); one -1 takes what is left.

  Raises ValueError when the devices do not fill the shape.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = list(shape)
  if sizes.count(-1) == 1:
    rest = -int(np.prod(sizes))
    sizes[sizes.index(-1)] = len(devices) // max(rest, 1)
  positive = len(sizes) == len(MESH_AXES) and min(sizes) > 0
  if not positive or int(np.prod(sizes)) != len(devices):
    raise ValueError(
      f'mesh {tuple(shape)} over axes {MESH_AXES} does not fit '
      f'{len(devices)} devices: set config.mesh so that its product does.'
    )
  return Mesh(np.asarray(devices).reshape(sizes), MESH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows are split over data and fsdp; everything else is whole."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


@functools.lru_cache  # asked for every array of every batch
def rows_here(sharding: NamedSharding, rows: int) -> Int[np.ndarray, ' n']:
  """The rows of a batch, of `rows` in all, that lie on this process's devices.

  Ascending. With heads split over processes, several hold the same rows.
  """
  indices = sharding.addressable_devices_indices_map((rows,)).values()
  found = np.unique(np.concatenate([np.arange(rows)[i] for i in indices]))
  found.flags.writeable = False  # all who ask are given the same
  return found


def place_rows(
  local: Shaped[np.ndarray, 'n ...'], sharding: NamedSharding
) -> jax.Array:
  """The global array of which this process holds the rows `local`."""
  parts = int(np.prod([sharding.mesh.shape[axis] for axis in BATCH_AXES]))
  rows = len(local) * parts // len(rows_here(sharding, parts))
  here = rows_here(sharding, rows)

  def rows_at(index):
    return local[np.searchsorted(here, np.arange(rows)[index[0]])]

  return jax.make_array_from_callback(
    (rows, *local.shape[1:]), sharding, rows_at
  )


def param_shardings(abstract_variables, mesh: Mesh):
  """Shardings for a tree whose leaves carry logical axis names."""
  specs = nn.get_partition_spec(abstract_variables)
  return nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_RULES)
