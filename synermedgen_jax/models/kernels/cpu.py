"""Interval attention in plain JAX over visible pairs of blocks, for CPUs.

FlashAttention-2 (Dao 2023, arXiv 2307.08691) as a loop over the pairs that
`block_pairs` lists, with heads as leading axes of every product. Time grows
with the number of visible pairs, memory with the length.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from synermedgen_jax.models.kernels.block_pairs import (
  NO_ORDER,
  BlockPairs,
  list_pairs,
  what_blocks_hold,
)
from synermedgen_jax.models.layers import take_in_rows

BLOCK = 128
_MASKED = -1e30
# Above the masked score, so that masked weights vanish before any key is seen.
_LOWEST = -1e20


class _Mask(NamedTuple):
  """The interval of each key, by block; `order` of each query, by block."""

  order: jax.Array  # (b * nq, block)
  visible_from: jax.Array  # (b * nk, block)
  visible_to: jax.Array


def attention(
  query, key, value, order, visible_from, visible_to, *, block: int = BLOCK
):
  """`interval_attention` on a CPU.

  Args:
    query, key, value, order, visible_from, visible_to: as in
      `interval_attention`.
    block: queries, and keys, of a product.
  """
  b, q_len, heads, dim = query.shape
  kv_heads = key.shape[2]
  group = heads // kv_heads
  # In packing order, visible pairs lie together and fill fewer blocks.
  queries = jnp.argsort(order, axis=1)
  keys = jnp.lexsort((visible_to, visible_from), axis=1)
  query, order = take_in_rows(query, queries), take_in_rows(order, queries)
  key, value, visible_from, visible_to = (
    take_in_rows(x, keys) for x in (key, value, visible_from, visible_to)
  )

  def filled(x, filling=0):
    widths = [(0, 0)] * x.ndim
    widths[1] = (0, -x.shape[1] % block)
    return jnp.pad(x, widths, constant_values=filling)

  order = filled(order, NO_ORDER)
  visible_from, visible_to = filled(visible_from), filled(visible_to)
  holds = what_blocks_hold(
    order, visible_from, visible_to, block_q=block, block_k=block
  )
  mask = _Mask(
    *(x.reshape(-1, block) for x in (order, visible_from, visible_to))
  )

  def in_blocks(x, per_key):
    """(b, length, n * per_key, d) to (blocks, n, per_key * block, d)."""
    x = filled(x).reshape(-1, block, kv_heads, per_key, dim)
    return x.transpose(0, 2, 3, 1, 4).reshape(
      -1, kv_heads, per_key * block, dim
    )

  out = _attend(
    in_blocks(query * dim**-0.5, group),
    in_blocks(key, 1),
    in_blocks(value, 1),
    mask,
    list_pairs(holds),
  )
  out = out.reshape(b, -1, kv_heads, group, block, dim)
  out = out.transpose(0, 1, 4, 2, 3, 5).reshape(b, -1, heads, dim)
  out = out[:, :q_len].astype(value.dtype)
  return take_in_rows(out, jnp.argsort(queries, axis=1))


@jax.custom_vjp
def _attend(query, key, value, mask, pairs):
  return _forward(query, key, value, mask, pairs)[0]


def _forward(query, key, value, mask: _Mask, pairs: BlockPairs):
  """Output and the logarithm of the sum of weights, in float32."""

  def visit(number, state):
    top, total, out = state
    q, k = pairs.outer[number], pairs.inner[number]
    scores = _scores(query[q], key[k], mask, q, k)
    new_top = jnp.maximum(top[q], scores.max(-1))
    weights = jnp.exp(scores - new_top[..., None])
    kept = jnp.exp(top[q] - new_top)
    added = _product('nqk,nkd->nqd', weights.astype(value.dtype), value[k])
    return (
      top.at[q].set(new_top),
      total.at[q].set(total[q] * kept + weights.sum(-1)),
      out.at[q].set(out[q] * kept[..., None] + added),
    )

  rows = query.shape[:-1]
  start = (
    jnp.full(rows, _LOWEST),
    jnp.zeros(rows),
    jnp.zeros(query.shape, jnp.float32),
  )
  top, total, out = lax.fori_loop(0, pairs.count, visit, start)
  seen = total > 0
  out = out / jnp.where(seen, total, 1)[..., None]
  log_sum = jnp.where(seen, top + jnp.log(jnp.where(seen, total, 1)), 0)
  return out, (query, key, value, mask, pairs, out, log_sum)


def _backward(saved, d_out):
  query, key, value, mask, pairs, out, log_sum = saved
  mean = (d_out * out).sum(-1)
  d_out = d_out.astype(value.dtype)

  def visit(number, state):
    d_query, d_key, d_value = state
    q, k = pairs.outer[number], pairs.inner[number]
    scores = _scores(query[q], key[k], mask, q, k)
    weights = jnp.exp(scores - log_sum[q][..., None])
    d_weights = _product('nqd,nkd->nqk', d_out[q], value[k])
    d_scores = (weights * (d_weights - mean[q][..., None])).astype(key.dtype)
    weights = weights.astype(value.dtype)
    return (
      d_query.at[q].add(_product('nqk,nkd->nqd', d_scores, key[k])),
      d_key.at[k].add(_product('nqk,nqd->nkd', d_scores, query[q])),
      d_value.at[k].add(_product('nqk,nqd->nkd', weights, d_out[q])),
    )

  zeros = [jnp.zeros(x.shape, jnp.float32) for x in (query, key, value)]
  gradients = lax.fori_loop(0, pairs.count, visit, tuple(zeros))
  return (
    *(g.astype(x.dtype) for g, x in zip(gradients, saved[:3], strict=True)),
    None,
    None,
  )


_attend.defvjp(_forward, _backward)


def _scores(query, key, mask: _Mask, q, k):
  """Scores of a pair of blocks, (n, group * block, block)."""
  order = mask.order[q][:, None]
  visible = (mask.visible_from[k] <= order) & (order < mask.visible_to[k])
  scores = _product('nqd,nkd->nqk', query, key)
  grouped = scores.reshape(scores.shape[0], -1, *visible.shape)
  return jnp.where(visible, grouped, _MASKED).reshape(scores.shape)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
