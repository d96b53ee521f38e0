"""Sums over all bits of a state: what is read back is what was saved.

Additions of whole numbers, which wrap, come to the same in any order: the sum
does not depend on how arrays lie on devices, and one changed bit changes it.
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

# Odd, so that nothing is lost by multiplying with them: the golden ratio's.
_STEP = 0x9E3779B1
_MASK = 0xFFFFFFFF
_FILE = 'metadata'


def checksums(items: Mapping[str, Any]) -> dict[str, int]:
  """A number of 32 bits for every item, a tree of arrays.

  Arrays of the devices are summed there, of all processes; NumPy's here.
  """
  return begin_checksums(items)()


def begin_checksums(items: Mapping[str, Any]) -> Callable[[], dict[str, int]]:
  """Sets the devices to work; what it returns waits for them.

  What then becomes of the arrays, given away to a next step even, is of no
  account.
  """
  leaves = {name: jax.tree.leaves(tree) for name, tree in items.items()}
  there = {
    name: found
    for name, found in leaves.items()
    if not all(isinstance(x, np.ndarray) for x in found)
  }
  sums_there = _sums_there(there) if there else {}

  def finish() -> dict[str, int]:
    return {
      name: _weighted(
        np.asarray(sums_there[name]) if name in there else map(_sum_here, found)
      )
      for name, found in leaves.items()
    }

  return finish


class ChecksumsHandler(ocp.AsyncCheckpointHandler):
  """The sums as an item of a checkpoint, waited for while the run goes on."""

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
  """One number of many, by their place."""
  total = 0
  for index, value in enumerate(sums):
    total = (total + (2 * index + 1) * _STEP * int(value)) & _MASK
  return total


def _sum_here(array: np.ndarray) -> int:
  array = np.ascontiguousarray(array)
  words = array.reshape(-1).view(f'u{min(array.dtype.itemsize, 4)}')
  return int(words.sum(dtype=np.uint64)) & _MASK


@jax.jit
def _sums_there(items: Mapping[str, list[jax.Array]]) -> dict[str, jax.Array]:
  return {
    name: jnp.stack([_sum_of_bits(x) for x in leaves])
    for name, leaves in items.items()
  }


def _sum_of_bits(array: jax.Array) -> jax.Array:
  array = jnp.asarray(array)
  size = min(array.dtype.itemsize, 4)
  words = jax.lax.bitcast_convert_type(array, jnp.dtype(f'u{size}'))
  return words.astype(jnp.uint32).sum(dtype=jnp.uint32)
