"""Which blocks of queries and keys a kernel has to visit.

A mask of packed examples is mostly empty: a query sees its own example alone.
A kernel walks over a list of the pairs of blocks that hold something, so what
it costs grows with what is visible and not with the square of the length.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

# What a pair of blocks holds.
NOTHING, PARTLY, WHOLLY = 0, 1, 2

# The order of queries that only fill a block: before any token's.
NO_ORDER = -1

# Queries taken together when it is asked whether a block sees a key. Their
# orders follow one another but where the other stream's tokens lie between.
_RUN = 8


class BlockPairs(NamedTuple):
  """The pairs to visit, those of one outer block in a row.

  Attributes:
    outer: row * blocks + block of what is accumulated.
    inner: row * blocks + block of what is read for it.
    holds: NOTHING, PARTLY or WHOLLY. NOTHING only where an outer block has no
      partner: it is visited once, for its zeros.
    count: how many pairs there are; what follows is filling.
  """

  outer: Int[Array, ' pairs']
  inner: Int[Array, ' pairs']
  holds: Int[Array, ' pairs']
  count: Int[Array, '']


def what_blocks_hold(
  order: Int[Array, 'b q'],
  visible_from: Int[Array, 'b k'],
  visible_to: Int[Array, 'b k'],
  *,
  block_q: int,
  block_k: int,
) -> Int[Array, 'b nq nk']:
  """NOTHING, PARTLY or WHOLLY visible, for every pair of blocks.

  The lengths are multiples of the blocks. NOTHING and WHOLLY are always right;
  PARTLY may stand for a pair without a visible key, where the orders of `_RUN`
  neighbouring queries jump over a key's interval, and jump twice.
  """
  b, q_len = order.shape
  nq, nk = q_len // block_q, visible_from.shape[1] // block_k
  low, high = _intervals(order.reshape(b, nq, block_q))
  seen = (visible_from[:, None, None] <= high[..., None]) & (
    low[..., None] < visible_to[:, None, None]
  )
  some = seen.reshape(b, nq, -1, nk, block_k).any((2, 4))
  latest_from = visible_from.reshape(b, 1, nk, block_k).max(-1)
  earliest_to = visible_to.reshape(b, 1, nk, block_k).min(-1)
  whole = (latest_from <= low.min(-1)[..., None]) & (
    high.max(-1)[..., None] < earliest_to
  )
  return jnp.where(whole, WHOLLY, jnp.where(some, PARTLY, NOTHING))


def _intervals(
  order: Int[Array, 'b nq block'],
) -> tuple[Int[Array, 'b nq i'], Int[Array, 'b nq i']]:
  """(first, last) of intervals that hold all orders of a block."""
  if order.shape[-1] % _RUN:
    return order, order
  runs = jnp.sort(order.reshape(*order.shape[:2], -1, _RUN), axis=-1)
  jump = jnp.argmax(jnp.diff(runs, axis=-1), axis=-1, keepdims=True)
  before = jnp.take_along_axis(runs, jump, axis=-1)
  after = jnp.take_along_axis(runs, jump + 1, axis=-1)
  first = jnp.concatenate([runs[..., :1], after], axis=-1)
  last = jnp.concatenate([before, runs[..., -1:]], axis=-1)
  return first.reshape(*order.shape[:2], -1), last.reshape(*order.shape[:2], -1)


def list_pairs(holds: Int[Array, 'b outer inner']) -> BlockPairs:
  """The pairs that hold something, outer block by outer block.

  The list has room for all pairs; its length is known on the device alone.
  """
  _, outer, inner = holds.shape
  active = holds != NOTHING
  lonely = ~active.any(-1, keepdims=True)
  listed = active | (lonely & (jnp.arange(inner) == 0))
  (index,) = jnp.nonzero(listed.reshape(-1), size=holds.size, fill_value=0)
  row = index // (outer * inner)
  return BlockPairs(
    outer=(index // inner).astype(jnp.int32),
    inner=(row * inner + index % inner).astype(jnp.int32),
    holds=holds.reshape(-1)[index].astype(jnp.int32),
    count=listed.sum(dtype=jnp.int32),
  )
