"""32-bit checksums of a state, to detect bits that change in storage.

Those of arrays are sums: integer addition that wraps is independent of order,
so a checksum does not depend on the sharding of the arrays. Every single
changed bit changes it.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path

from synermedgen_jax.core.lazy_array import LazyArray, block_shape

# Odd multiples of it are invertible modulo 2**32. From the golden ratio.
_STEP = 0x9E3779B1
_MASK = 0xFFFFFFFF
_FILE = 'metadata'


def checksums(items: Mapping[str, Any]) -> dict[str, int]:
  """The checksum of each item, a 32-bit number by item name.

  Args:
    items: trees of arrays by name. Items with arrays on devices are summed
      there, over all processes; items of NumPy arrays on the host.
  """
  return begin_checksums(items)()


def begin_checksums(items: Mapping[str, Any]) -> Callable[[], dict[str, int]]:
  """Starts computing checksums on the devices.

  The caller may donate the arrays to a next step immediately.

  Returns:
    A function that waits for the devices and returns what `checksums` returns.
  """
  leaves = {name: jax.tree.leaves(tree) for name, tree in items.items()}
  on_device = {
    name: arrays
    for name, arrays in leaves.items()
    if not all(isinstance(x, np.ndarray) for x in arrays)
  }
  device_sums = _device_sums(on_device) if on_device else {}

  def finish() -> dict[str, int]:
    return {
      name: _weighted(
        np.asarray(device_sums[name])
        if name in device_sums
        else map(_host_sum, arrays)
      )
      for name, arrays in leaves.items()
    }

  return finish


def lazy_checksum(
  arrays: Sequence[LazyArray], progress: Callable[[int], object]
) -> int:
  """The checksum of an item that is larger than memory.

  Args:
    arrays: its leaves, in the order of `jax.tree.leaves`.
    progress: called with the number of bytes just read.
  """

  def whole_sum(array: LazyArray) -> int:
    block = block_shape(array.block, array.dtype, range(len(array.shape)))
    total = 0
    for index in dataclasses.replace(array, block=block).blocks():
      part = array.read(index)
      total += _host_sum(part)
      progress(part.nbytes)
    return total & _MASK

  return _weighted(map(whole_sum, arrays))


def json_checksum(value: Any) -> int:
  """The checksum of a JSON value, independent of spaces and order of keys."""
  read_back = json.loads(json.dumps(value))  # tuples and keys as in a file
  return zlib.crc32(json.dumps(read_back, sort_keys=True).encode())


def compare_checksum(
  name: str, checksum: int, expected: Mapping[str, int]
) -> None:
  """Raises ValueError if an item has another checksum than the expected one.

  Items without an expected checksum pass: earlier versions wrote fewer.
  """
  if checksum != expected.get(name, checksum):
    raise ValueError(f'{name} is not what was saved: bits have changed')


class ChecksumsHandler(ocp.AsyncCheckpointHandler):
  """Checksums as an item of a checkpoint, written in the background."""

  async def async_save(self, directory: Path, args: ChecksumsSave):
    return [
      ocp.future.CommitFutureAwaitingContractedSignals(
        _write(directory, args.finish), name='checksums'
      )
    ]

  def save(self, directory: Path, args: ChecksumsSave) -> None:
    raise NotImplementedError('checkpoints are written in the background')

  def restore(self, directory: Path, args: ChecksumsRestore) -> dict[str, int]:
    return json.loads((directory / _FILE).read_text())


@ocp.args.register_with_handler(ChecksumsHandler, for_save=True)
@dataclasses.dataclass
class ChecksumsSave(ocp.args.CheckpointArgs):
  finish: Callable[[], dict[str, int]]


@ocp.args.register_with_handler(ChecksumsHandler, for_restore=True)
@dataclasses.dataclass
class ChecksumsRestore(ocp.args.CheckpointArgs):
  pass


async def _write(directory: Path, finish: Callable[[], dict[str, int]]) -> None:
  if jax.process_index() == 0:
    (directory / _FILE).write_text(json.dumps(finish()))


def _weighted(sums) -> int:
  """Combines the sums of leaves; leaves that swap places change the result."""
  total = 0
  for index, value in enumerate(sums):
    total = (total + (2 * index + 1) * _STEP * int(value)) & _MASK
  return total


def _host_sum(array: np.ndarray) -> int:
  array = np.ascontiguousarray(array)
  words = array.reshape(-1).view(f'u{min(array.dtype.itemsize, 4)}')
  return int(words.sum(dtype=np.uint64)) & _MASK


@jax.jit
def _device_sums(items: Mapping[str, list[jax.Array]]) -> dict[str, jax.Array]:
  return {
    name: jnp.stack([_sum_of_bits(x) for x in leaves])
    for name, leaves in items.items()
  }


def _sum_of_bits(array: jax.Array) -> jax.Array:
  array = jnp.asarray(array)
  size = min(array.dtype.itemsize, 4)
  words = jax.lax.bitcast_convert_type(array, jnp.dtype(f'u{size}'))
  return words.astype(jnp.uint32).sum(dtype=jnp.uint32)
