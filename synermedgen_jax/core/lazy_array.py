"""Arrays that are read block by block, for models larger than memory."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Index = tuple[slice, ...]  # one slice per axis, with start and stop

BLOCK_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class LazyArray:
  """An array whose blocks are read on demand.

  Attributes:
    shape, dtype: shape and dtype of the full array.
    block: shape of the blocks in which to read and store the array; the last
      block along an axis may be smaller.
    read: returns the part of the array at an index.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  block: tuple[int, ...]
  read: Callable[[Index], np.ndarray]

  @classmethod
  def of(cls, array: np.ndarray) -> LazyArray:
    """Wraps an array that is already in memory."""
    return cls(array.shape, array.dtype, array.shape, array.__getitem__)

  @property
  def size(self) -> int:
    """Number of elements."""
    return math.prod(self.shape)

  @property
  def nbytes(self) -> int:
    """Size of the full array in bytes."""
    return self.size * self.dtype.itemsize

  def blocks(self) -> Iterator[Index]:
    """Indices of all blocks; the last axis varies fastest."""
    return itertools.product(
      *(
        [slice(i, min(i + step, n)) for i in range(0, n, step)]
        for n, step in zip(self.shape, self.block, strict=True)
      )
    )

  def whole(self) -> np.ndarray:
    """Reads the full array into memory."""
    return self.read(tuple(slice(0, n) for n in self.shape))


def block_shape(
  shape: Sequence[int], dtype: np.dtype, axes: Sequence[int]
) -> tuple[int, ...]:
  """Halves `shape` along `axes`, in order, down to at most BLOCK_BYTES.

  Halving aligns blocks with the shards of a mesh.
  """
  block = list(shape)
  for axis in axes:
    while math.prod(block) * dtype.itemsize > BLOCK_BYTES and block[axis] > 1:
      block[axis] = -(-block[axis] // 2)
  return tuple(block)
