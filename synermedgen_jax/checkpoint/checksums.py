"""Checksums of a state, to detect changed bits in a checkpoint.

A checksum adds integers modulo 2**32, so it does not depend on the order of the
additions or on the sharding of the arrays. One changed bit changes it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path

# 2**32 divided by the golden ratio. It is odd: multiplication loses no bits.
_STEP = 0x9E3779B1
_MASK = 0xFFFFFFFF
_FILE = 'metadata'


def checksums(items: Mapping[str, Any]) -> dict[str, int]:
  """A checksum of 32 bits for every item, a tree of arrays.

  JAX arrays are summed on their devices, over all processes; NumPy arrays are
  summed on the host.
  """
  return begin_checksums(items)()


def begin_checksums(items: Mapping[str, Any]) -> Callable[[], dict[str, int]]:
  """Starts the sums on the devices; the returned function waits for them.

  The caller may donate the arrays to the next step at once.
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
        if name in on_device
        else map(_host_sum, arrays)
      )
      for name, arrays in leaves.items()
    }

  return finish


class ChecksumsHandler(ocp.AsyncCheckpointHandler):
  """The checksums as an item of a checkpoint, written in the background."""

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
  """Combines the sums of the leaves, weighted by their position."""
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
