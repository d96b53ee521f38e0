"""Attention under an interval mask: two integers per key say who sees it.

  key k is visible to query q iff visible_from[k] <= order[q] < visible_to[k]

This carries BAGEL's causal, full and noised spans of packed examples exactly
(see `core/batch.py`), in any order of tokens.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_MASKED = -1e30  # finite, so that a row that sees nothing gives no NaN


def interval_mask(
  order: Int[Array, 'b q'],
  visible_from: Int[Array, 'b k'],
  visible_to: Int[Array, 'b k'],
) -> Bool[Array, 'b q k']:
  """The dense mask that the intervals stand for."""
  order = order[:, :, None]
  return (visible_from[:, None] <= order) & (order < visible_to[:, None])


def _dense(query, key, value, order, visible_from, visible_to):
  b, q_len, heads, dim = query.shape
  kv_heads = key.shape[2]
  grouped = query.reshape(b, q_len, kv_heads, heads // kv_heads, dim)
  scores = jnp.einsum(
    'bqhgd,bkhd->bhgqk', grouped, key, preferred_element_type=jnp.float32
  )
  mask = interval_mask(order, visible_from, visible_to)[:, None, None]
  scores = jnp.where(mask, scores * dim**-0.5, _MASKED)
  weights = jax.nn.softmax(scores, axis=-1)
  # A query that sees nothing is padding: its output is zero, not a mean.
  weights = jnp.where(mask, weights, 0.0).astype(value.dtype)
  out = jnp.einsum('bhgqk,bkhd->bqhgd', weights, value)
  return out.reshape(b, q_len, heads, dim)


def _chunked(
  query, key, value, order, visible_from, visible_to, *, chunk: int = 512
):
  """Dense over one block of queries at a time: memory linear in length."""
  b, q_len, heads, dim = query.shape
  chunks = -(-q_len // chunk)
  pad = chunks * chunk - q_len
  query = jnp.pad(query, ((0, 0), (0, pad), (0, 0), (0, 0)))
  order = jnp.pad(order, ((0, 0), (0, pad)), constant_values=-1)
  query = query.reshape(b, chunks, chunk, heads, dim).swapaxes(0, 1)
  order = order.reshape(b, chunks, chunk).swapaxes(0, 1)

  @jax.checkpoint
  def block(block_query, block_order):
    return _dense(
      block_query, key, value, block_order, visible_from, visible_to
    )

  out = lax.map(lambda block_args: block(*block_args), (query, order))
  return out.swapaxes(0, 1).reshape(b, chunks * chunk, heads, dim)[:, :q_len]


IMPLEMENTATIONS = {'xla': _dense, 'xla_chunked': _chunked}


def interval_attention(
  query: Float[Array, 'b q h d'],
  key: Float[Array, 'b k n d'],
  value: Float[Array, 'b k n d'],
  order: Int[Array, 'b q'],
  visible_from: Int[Array, 'b k'],
  visible_to: Int[Array, 'b k'],
  *,
  implementation: str | None = None,
) -> Float[Array, 'b q h d']:
  """Softmax attention of grouped queries under an interval mask.

  Args:
    query: `h` heads, a multiple of the `n` key/value heads; scaled by d**-0.5
      here.
    key: keys. There may be more keys than queries (cached decoding).
    value: values.
    order: place of each query in packing order.
    visible_from: per key, the first order that sees it.
    visible_to: per key, one past the last order that sees it.
    implementation: a name in `IMPLEMENTATIONS`; None picks `xla` for short
      queries and `xla_chunked` beyond 2,048.

  Returns:
    The attended values in `value`'s dtype, softmax in float32. A query that
    sees no key gives zeros.
  """
  if query.shape[2] % key.shape[2]:
    raise ValueError(
      f'{query.shape[2]} query heads are not a multiple of '
      f'{key.shape[2]} key/value heads.'
    )
  if implementation is None:
    implementation = 'xla' if query.shape[1] <= 2048 else 'xla_chunked'
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f'Unknown attention implementation {implementation!r}: expected one of '
      f'{", ".join(IMPLEMENTATIONS)}.'
    )
  return IMPLEMENTATIONS[implementation](
    query, key, value, order, visible_from, visible_to
  )
