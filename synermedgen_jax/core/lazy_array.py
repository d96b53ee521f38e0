"""Arrays that are read piece by piece, for models larger than memory."""

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
  """An array whose pieces are read on demand.

  Attributes:
    shape, dtype: of the whole.
    block: shape of the pieces in which it is best read and stored; the last
      ones along an axis may be smaller.
    read: the piece within an index.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  block: tuple[int, ...]
  read: Callable[[Index], np.ndarray]

  @classmethod
  def of(cls, array: np.ndarray) -> LazyArray:
    """An array that is in memory already."""
    return cls(array.shape, array.dtype, array.shape, array.__getitem__)

  @property
  def size(self) -> int:
    """How many numbers."""
    return math.prod(self.shape)

  @property
  def nbytes(self) -> int:
    """Bytes of the whole."""
    return self.size * self.dtype.itemsize

  def blocks(self) -> Iterator[Index]:
    """The index of every piece, the last axis fastest."""
    return itertools.product(
      *(
        [slice(i, min(i + step, n)) for i in range(0, n, step)]
        for n, step in zip(self.shape, self.block, strict=True)
      )
    )

  def whole(self) -> np.ndarray:
    """All of it, in memory."""
    return self.read(tuple(slice(0, n) for n in self.shape))


def block_shape(
  shape: Sequence[int], dtype: np.dtype, axes: Sequence[int]
) -> tuple[int, ...]:
  """`shape` halved along `axes`, the first one first, to BLOCK_BYTES or less.

  Halves, so that the shards of a mesh begin where blocks begin.
  """
  block = list(shape)
  for axis in axes:
    while math.prod(block) * dtype.itemsize > BLOCK_BYTES and block[axis] > 1:
      block[axis] = -(-block[axis] // 2)
  return tuple(block)
