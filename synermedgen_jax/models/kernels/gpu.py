"""Interval attention for GPUs: forward, dq and dk/dv kernels in Pallas.

FlashAttention-2 (Dao 2023, arXiv 2307.08691), one program to a block of
queries (or of keys, for dk and dv) that walks down its list of partners
(`block_pairs.py`). Lowered through Triton, for Ampere and later. It agrees
with dense attention in interpret mode and lowers to Triton; no GPU has run it.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from synermedgen_jax.models.kernels.block_pairs import (
  NO_ORDER,
  NOTHING,
  what_blocks_hold,
)

_MASKED = -1e30
# Above the masked score, so that masked weights vanish before any key is seen.
_LOWEST = -1e20


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Queries and keys of one product; powers of two from 16 on, on a GPU."""

  q: int = 64
  k: int = 64


@dataclasses.dataclass(frozen=True)
class _Shape:
  """The sizes that the kernels share."""

  blocks: Blocks
  group: int  # query heads to a key/value head
  scale: float
  interpret: bool


def attention(
  query,
  key,
  value,
  order,
  visible_from,
  visible_to,
  *,
  blocks: Blocks = Blocks(),
  interpret: bool = False,
):
  """`interval_attention` on an NVIDIA GPU.

  Args:
    query, key, value, order, visible_from, visible_to: as in
      `interval_attention`.
    blocks: block sizes in queries and keys.
    interpret: run the kernels as plain JAX on any device.
  """
  q_len, heads, dim = query.shape[1:]
  width = max(pl.next_power_of_2(dim), 16)
  shape = _Shape(blocks, heads // key.shape[2], dim**-0.5, interpret)

  def padded_heads(x, block):
    """Heads first; lengths padded to blocks, widths to a power of two."""
    length = -x.shape[1] % block
    x = jnp.pad(x, ((0, 0), (0, length), (0, 0), (0, width - dim)))
    return x.swapaxes(1, 2)

  def filled(x, block, filling=0):
    return jnp.pad(
      x, ((0, 0), (0, -x.shape[1] % block)), constant_values=filling
    )

  out = _attend(
    shape,
    padded_heads(query, blocks.q),
    padded_heads(key, blocks.k),
    padded_heads(value, blocks.k),
    filled(order, blocks.q, NO_ORDER),
    filled(visible_from, blocks.k),
    filled(visible_to, blocks.k),
  )
  return out.swapaxes(1, 2)[:, :q_len, :, :dim]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(shape, query, key, value, order, visible_from, visible_to):
  return _attend_forward(
    shape, query, key, value, order, visible_from, visible_to
  )[0]


def _attend_forward(shape, query, key, value, order, visible_from, visible_to):
  holds = what_blocks_hold(
    order,
    visible_from,
    visible_to,
    block_q=shape.blocks.q,
    block_k=shape.blocks.k,
  )
  layout = (order, visible_from, visible_to)
  out, log_sum = _call(
    _forward_kernel,
    shape,
    holds,
    [
      _mine(query, shape.blocks.q),
      _heads_keys(key, shape),
      _heads_keys(value, shape),
      *_layout_specs(layout, shape, 'q'),
    ],
    [query, key, value, *layout],
    [
      jax.ShapeDtypeStruct(query.shape, value.dtype),
      jax.ShapeDtypeStruct(query.shape[:3], jnp.float32),
    ],
    [_mine(query, shape.blocks.q), _mine(query[..., 0], shape.blocks.q)],
    heads=query.shape[1],
  )
  return out, (query, key, value, *layout, holds, out, log_sum)


def _attend_backward(shape, kept, d_out):
  query, key, value, *layout, holds, out, log_sum = kept
  # d_out . out: each query's mean of its weights' gradients.
  mean = (d_out.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
  operands = [query, key, value, d_out, log_sum, mean, *layout]
  own = _mine(query, shape.blocks.q)
  own_statistic = _mine(log_sum, shape.blocks.q)
  (d_query,) = _call(
    _query_gradient_kernel,
    shape,
    holds,
    [
      own,
      _heads_keys(key, shape),
      _heads_keys(value, shape),
      own,
      own_statistic,
      own_statistic,
      *_layout_specs(layout, shape, 'q'),
    ],
    operands,
    [jax.ShapeDtypeStruct(query.shape, query.dtype)],
    [own],
    heads=query.shape[1],
  )
  own = _mine(key, shape.blocks.k)
  grouped, statistics = _group(query, shape), _group(log_sum, shape)
  d_key, d_value = _call(
    _key_gradient_kernel,
    shape,
    holds.swapaxes(1, 2),
    [
      grouped,
      own,
      own,
      grouped,
      statistics,
      statistics,
      *_layout_specs(layout, shape, 'k'),
    ],
    operands,
    [
      jax.ShapeDtypeStruct(key.shape, key.dtype),
      jax.ShapeDtypeStruct(value.shape, value.dtype),
    ],
    [own, own],
    heads=key.shape[1],
  )
  return d_query, d_key, d_value, None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _mine(x, block):
  """A program's own block of an array (row, head, length, ...)."""
  rest = x.shape[3:]
  return pl.BlockSpec(
    (None, None, block, *rest), lambda b, h, i: (b, h, i, *[0] * len(rest))
  )


def _heads_keys(x, shape):
  """All keys of a query head."""
  return pl.BlockSpec(
    (None, None, *x.shape[2:]), lambda b, h, i: (b, h // shape.group, 0, 0)
  )


def _group(x, shape):
  """All queries of a key/value head: its group of heads."""
  rest = x.shape[2:]
  return pl.BlockSpec(
    (None, shape.group, *rest), lambda b, h, i: (b, h, *[0] * len(rest))
  )


def _layout_specs(layout, shape, outer):
  """Order and bounds: a program's own block of the one, all of the other."""

  def spec(x, block, own):
    if own:
      return pl.BlockSpec((None, block), lambda b, h, i: (b, i))
    return pl.BlockSpec((None, x.shape[1]), lambda b, h, i: (b, 0))

  order, visible_from, visible_to = layout
  return [
    spec(order, shape.blocks.q, outer == 'q'),
    spec(visible_from, shape.blocks.k, outer == 'k'),
    spec(visible_to, shape.blocks.k, outer == 'k'),
  ]


def _call(
  kernel, shape, holds, in_specs, operands, out_shape, out_specs, *, heads
):
  """Runs a kernel for every row, head and outer block.

  Args:
    holds: (rows, outer, inner), what the pairs of blocks hold.
  """
  rows, outer, inner = holds.shape
  active = holds != NOTHING
  partners = jnp.argsort(~active, axis=-1, stable=True).astype(jnp.int32)
  counts = active.sum(-1, dtype=jnp.int32)
  list_specs = [
    pl.BlockSpec((None, None, inner), lambda b, h, i: (b, i, 0)),
    pl.BlockSpec((None, 1), lambda b, h, i: (b, i)),
  ]
  return pl.pallas_call(
    functools.partial(kernel, shape),
    grid=(rows, heads, outer),
    in_specs=[*list_specs, *in_specs],
    out_specs=out_specs,
    out_shape=out_shape,
    compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
    interpret=shape.interpret,
  )(partners, counts, *operands)


def _forward_kernel(
  shape, partners, count, query, key, value, order, visible_from, visible_to,
  out, log_sum,
):  # fmt: skip
  """One block of queries past the blocks of keys that it sees."""
  mine, here = query[...], order[...]
  blocks = shape.blocks

  def step(i, carry):
    top, total, weighted = carry
    keys = pl.ds(partners[i] * blocks.k, blocks.k)
    visible = _mask(here, visible_from[keys], visible_to[keys])
    scores = _scores(shape, mine, key[keys, :], visible)
    now = jnp.maximum(top, scores.max(1))
    weights, shrink = jnp.exp(scores - now[:, None]), jnp.exp(top - now)
    total = shrink * total + weights.sum(1)
    weighted = shrink[:, None] * weighted + _dot(
      weights.astype(value.dtype), value[keys, :]
    )
    return now, total, weighted

  start = (
    jnp.full((blocks.q,), _LOWEST, jnp.float32),
    jnp.zeros((blocks.q,), jnp.float32),
    jnp.zeros(mine.shape, jnp.float32),
  )
  top, total, weighted = lax.fori_loop(0, count[0], step, start)
  # A query that sees nothing is padding: zeros, and no gradient.
  sums = jnp.where(total > 0, total, 1.0)
  log_sum[...] = jnp.where(total > 0, top + jnp.log(sums), 0.0)
  out[...] = (weighted / sums[:, None]).astype(out.dtype)


def _query_gradient_kernel(
  shape, partners, count, query, key, value, d_out, log_sum, mean, order,
  visible_from, visible_to, d_query,
):  # fmt: skip
  """dq of one block of queries."""
  blocks = shape.blocks
  mine = query[...], d_out[...], log_sum[...], mean[...]
  here = order[...]

  def step(i, gathered):
    keys = pl.ds(partners[i] * blocks.k, blocks.k)
    visible = _mask(here, visible_from[keys], visible_to[keys])
    theirs = key[keys, :]
    _, d_scores = _recomputed(shape, *mine, theirs, value[keys, :], visible)
    return gathered + _dot(d_scores.astype(theirs.dtype), theirs)

  start = jnp.zeros(query.shape, jnp.float32)
  gathered = lax.fori_loop(0, count[0], step, start)
  d_query[...] = (gathered * shape.scale).astype(d_query.dtype)


def _key_gradient_kernel(
  shape, partners, count, query, key, value, d_out, log_sum, mean, order,
  visible_from, visible_to, d_key, d_value,
):  # fmt: skip
  """dk and dv of one block of keys, over the queries of its group of heads."""
  blocks = shape.blocks
  keys, values = key[...], value[...]
  bounds = visible_from[...], visible_to[...]

  def step(i, carry):
    gathered_key, gathered_value = carry
    queries = pl.ds(partners[i] * blocks.q, blocks.q)
    visible = _mask(order[queries], *bounds)
    for head in range(shape.group):
      theirs, upstream = query[head, queries, :], d_out[head, queries, :]
      weights, d_scores = _recomputed(
        shape,
        theirs,
        upstream,
        log_sum[head, queries],
        mean[head, queries],
        keys,
        values,
        visible,
      )
      gathered_value += _dot(weights.astype(upstream.dtype).T, upstream)
      gathered_key += _dot(d_scores.astype(theirs.dtype).T, theirs)
    return gathered_key, gathered_value

  start = jnp.zeros(key.shape, jnp.float32)
  gathered = lax.fori_loop(0, count[0], step, (start, start))
  d_key[...] = (gathered[0] * shape.scale).astype(d_key.dtype)
  d_value[...] = gathered[1].astype(d_value.dtype)


def _recomputed(shape, query, d_out, log_sum, mean, key, value, visible):
  """The weights again, and the gradient of the scores."""
  scores = _scores(shape, query, key, visible)
  weights = jnp.exp(scores - log_sum[:, None])
  d_weights = _dot(d_out, value.T)
  return weights, weights * (d_weights - mean[:, None])


def _mask(order, visible_from, visible_to):
  """Queries by keys."""
  order = order[:, None]
  return (visible_from[None] <= order) & (order < visible_to[None])


def _scores(shape, query, key, visible):
  scores = _dot(query, key.T) * shape.scale
  return jnp.where(visible, scores, _MASKED)


def _dot(a, b):
  """A matrix product summed in float32; float32 operands are not rounded."""
  exact = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return lax.dot_general(
    a,
    b,
    (((1,), (0,)), ((), ())),
    precision=exact,
    preferred_element_type=jnp.float32,
  )
