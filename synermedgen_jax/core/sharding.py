"""The device mesh and the rules that map logical axes to it.

Mesh axes: `data` (pure data parallelism, across TPU slices), `fsdp` (shards
parameters and rows), `tensor` (shards heads, MLP and vocabulary).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, Shaped

MESH_AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')
HEAD_AXIS = 'tensor'

LOGICAL_RULES = (
  ('batch', BATCH_AXES),
  ('lookup', 'data'),  # rows in the embedding lookup: fsdp shards the table
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
  """Returns a mesh of `shape` (data, fsdp, tensor), laid out along the torus.

  Args:
    shape: devices along each axis; one -1 takes all remaining devices.
    devices: devices of the mesh; None = all devices of the run.

  Raises:
    ValueError: the product of `shape` is not the number of devices, or the data
      axis does not divide over several TPU slices.
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
      f'{len(devices)} devices: set config.mesh so that its product is the '
      'number of devices.'
    )
  return Mesh(_arranged(sizes, devices), MESH_AXES)


def _arranged(
  sizes: Sequence[int], devices: Sequence[jax.Device]
) -> np.ndarray:
  """Devices along the axes, so that neighbours on an axis are connected.

  `data` takes the TPU slices first, which only a slower network connects.
  """
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    return mesh_utils.create_device_mesh(
      sizes, devices, allow_split_physical_axes=True
    )
  data, *others = sizes
  if data % slices:
    raise ValueError(
      f'the data axis of mesh {tuple(sizes)} is not a multiple of the {slices} '
      'slices: set config.mesh so that each slice has whole rows of it.'
    )
  return mesh_utils.create_hybrid_device_mesh(
    (data // slices, *others),
    (slices, 1, 1),
    devices,
    allow_split_physical_axes=True,
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Shards the leading (rows) axis over data and fsdp, no other axis."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


@functools.lru_cache  # called for every array of every batch
def rows_here(sharding: NamedSharding, rows: int) -> Int[np.ndarray, ' n']:
  """Indices of the batch rows on this process's devices, ascending.

  If heads are sharded across processes, several processes have the same rows.

  Args:
    sharding: as `batch_sharding` returns it.
    rows: rows of the global batch.
  """
  indices = sharding.addressable_devices_indices_map((rows,)).values()
  local = np.unique(np.concatenate([np.arange(rows)[i] for i in indices]))
  local.flags.writeable = False  # the cache returns one array to all callers
  return local


def place_rows(
  local: Shaped[np.ndarray, 'n ...'], sharding: NamedSharding
) -> jax.Array:
  """Builds a global array from the rows of each process.

  Args:
    local: the rows of this process, in the order of `rows_here`.
    sharding: as `batch_sharding` returns it.
  """
  parts = int(np.prod([sharding.mesh.shape[axis] for axis in BATCH_AXES]))
  rows = len(local) * parts // len(rows_here(sharding, parts))
  local_rows = rows_here(sharding, rows)

  def rows_at(index):
    return local[np.searchsorted(local_rows, np.arange(rows)[index[0]])]

  return jax.make_array_from_callback(
    (rows, *local.shape[1:]), sharding, rows_at
  )


def param_shardings(abstract_variables, mesh: Mesh):
  """NamedShardings of a tree whose leaves carry logical axis names."""
  specs = nn.get_partition_spec(abstract_variables)
  return nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_RULES)
