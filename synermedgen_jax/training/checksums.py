"""Sums over all bits of a state: what is read back is what was saved.

Additions of whole numbers, which wrap, come to the same in any order: the sum
does not depend on how arrays lie on devices, and one changed bit changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Odd, so that nothing is lost by multiplying with them: the golden ratio's.
_STEP = 0x9E3779B1
_MASK = 0xFFFFFFFF


def checksums(items: Mapping[str, Any]) -> dict[str, int]:
  """A number of 32 bits for every item, a tree of arrays.

  Arrays of the devices are summed there, of all processes; NumPy's here.
  """
  found = {}
  for name, tree in items.items():
    leaves = jax.tree.leaves(tree)
    on_host = all(isinstance(x, np.ndarray) for x in leaves)
    sums = [_sum_here(x) for x in leaves] if on_host else _sums_there(leaves)
    found[name] = 0
    for index, value in enumerate(sums):
      weight = (2 * index + 1) * _STEP
      found[name] = (found[name] + weight * int(value)) & _MASK
  return found


def _sum_here(array: np.ndarray) -> int:
  array = np.ascontiguousarray(array)
  words = array.reshape(-1).view(f'u{min(array.dtype.itemsize, 4)}')
  return int(words.sum(dtype=np.uint64)) & _MASK


@jax.jit
def _sums_there(leaves: list[jax.Array]) -> jax.Array:
  return jnp.stack([_sum_of_bits(x) for x in leaves])


def _sum_of_bits(array: jax.Array) -> jax.Array:
  array = jnp.asarray(array)
  size = min(array.dtype.itemsize, 4)
  words = jax.lax.bitcast_convert_type(array, jnp.dtype(f'u{size}'))
  return words.astype(jnp.uint32).sum(dtype=jnp.uint32)
