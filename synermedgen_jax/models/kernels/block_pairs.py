"""Lists the pairs of query and key blocks that hold a visible pair.

The mask of packed examples is mostly empty, because a query sees only its own
example. A kernel visits the listed pairs, so its cost grows with the number of
visible pairs instead of the square of the length.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

# Visibility within a pair of blocks.
NOTHING, PARTLY, WHOLLY = 0, 1, 2

# The order of padding queries, smaller than any token's.
NO_ORDER = -1

# Queries tested together for visibility of a key. Their orders are consecutive
# except where tokens of the other stream come between.
_RUN = 8


class BlockPairs(NamedTuple):
  """The pairs to visit, sorted by outer block.

  Attributes:
    outer: row * blocks + index of the accumulated block.
    inner: row * blocks + index of the block that is read.
    holds: NOTHING, PARTLY or WHOLLY. NOTHING only for an outer block without
      partners, which is visited once to write zeros.
    count: number of pairs; later entries are padding.
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

  Lengths are multiples of the blocks. NOTHING and WHOLLY are exact. PARTLY may
  be reported for a pair without a visible key if the orders of `_RUN`
  neighbouring queries jump over a key's interval twice.
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
  wholly = (latest_from <= low.min(-1)[..., None]) & (
    high.max(-1)[..., None] < earliest_to
  )
  return jnp.where(wholly, WHOLLY, jnp.where(some, PARTLY, NOTHING))


def _intervals(
  order: Int[Array, 'b nq block'],
) -> tuple[Int[Array, 'b nq i'], Int[Array, 'b nq i']]:
  """First and last order of intervals that cover all orders of a block."""
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
  """Lists the pairs with a visible pair, sorted by outer block.

  The list has room for all pairs; only the device knows its length.
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
