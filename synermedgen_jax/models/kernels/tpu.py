"""Interval attention for TPUs: forward, dq and dk/dv kernels in Pallas.

The scheme is FlashAttention-2's (Dao 2023, arXiv 2307.08691): blocks of keys
stream past a block of queries under an online softmax, and the backward pass
recomputes the weights from the log-sum-exp. What is particular here:

* The grid's second axis is the list of pairs of blocks that hold a visible key
  (`block_pairs.py`), and as long as that list is.
* Scores are kept transposed, keys by queries, so a query's statistics are rows:
  eight bytes a query and head in memory, and no transposition in the loop.
* Query heads that share a key/value head are adjacent in one block and share
  its mask. Pairs of blocks that are wholly visible need no mask.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from synermedgen_jax.models.kernels.block_pairs import (
  NO_ORDER,
  PARTLY,
  WHOLLY,
  list_pairs,
  what_blocks_hold,
)

_LANES = 128
_MASKED = -1e30
# Above the masked score, so that masked weights vanish before any key is seen.
_LOWEST = -1e20
_VMEM_BYTES = 64 * 2**20

_NN = (((1,), (0,)), ((), ()))  # a @ b
_NT = (((1,), (1,)), ((), ()))  # a @ b.T
_TN = (((0,), (0,)), ((), ()))  # a.T @ b


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Queries and keys of one step of the grid; multiples of 128 on a chip."""

  q: int = 512
  k: int = 512

  def within(self, q_len: int, k_len: int) -> Blocks:
    """Limits the blocks to the arrays, rounded up to multiples of a lane."""
    return Blocks(
      min(self.q, _round_up(q_len, _LANES)),
      min(self.k, _round_up(k_len, _LANES)),
    )


@dataclasses.dataclass(frozen=True)
class _Shape:
  """The sizes that the kernels share."""

  blocks: Blocks
  kv_heads: int
  group: int  # query heads to a key/value head
  dim: int  # of a head, in whole lanes
  scale: float
  interpret: bool

  def head(self, i: int) -> slice:
    """Columns of the i-th head of the group in a block of queries."""
    return slice(i * self.dim, (i + 1) * self.dim)

  def tiles(self, *, queries: str):
    """Specs of a step's tiles: queries are the list's outer or inner blocks."""
    q, k = (0, 1) if queries == 'outer' else (1, 0)
    bq, bk = self.blocks.q, self.blocks.k

    def at(which):
      return lambda h, p, *lists: (lists[which][p], h)

    return {
      'query': pl.BlockSpec((bq, self.group * self.dim), at(q)),
      'key': pl.BlockSpec((bk, self.dim), at(k)),
      'order': pl.BlockSpec(
        (None, 1, bq), lambda h, p, *lists: (lists[q][p], 0, 0)
      ),
      'bounds': pl.BlockSpec((bk, 2), lambda h, p, *lists: (lists[k][p], 0)),
      'statistic': pl.BlockSpec(
        (None, None, self.group, bq),
        lambda h, p, *lists: (h, lists[q][p], 0, 0),
      ),
    }


def attention(
  query,
  key,
  value,
  order,
  visible_from,
  visible_to,
  *,
  blocks: Blocks | None = None,
  interpret: bool = False,
):
  """`interval_attention` on a TPU; see there for the arguments.

  Args:
    query, key, value, order, visible_from, visible_to: as in
      `interval_attention`.
    blocks: sizes of the blocks; by default 512, or what the lengths need.
    interpret: run the kernels as plain JAX, on any device.
  """
  b, q_len, heads, dim = query.shape
  k_len, kv_heads = key.shape[1:3]
  blocks = blocks or Blocks().within(q_len, k_len)
  shape = _Shape(
    blocks=blocks,
    kv_heads=kv_heads,
    group=heads // kv_heads,
    dim=_round_up(dim, _LANES),
    scale=dim**-0.5,
    interpret=interpret,
  )

  def flat(x, block):
    """Rows and padded lengths in one axis, padded heads in the other."""
    length = _round_up(x.shape[1], block) - x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, length), (0, 0), (0, shape.dim - dim)))
    return x.reshape(x.shape[0] * x.shape[1], -1)

  def padded(x, block, filling=0):
    length = _round_up(x.shape[1], block) - x.shape[1]
    return jnp.pad(x, ((0, 0), (0, length)), constant_values=filling)

  out = _attend(
    shape,
    flat(query, blocks.q),
    flat(key, blocks.k),
    flat(value, blocks.k),
    padded(order, blocks.q, NO_ORDER),
    padded(visible_from, blocks.k),
    padded(visible_to, blocks.k),
  )
  return out.reshape(b, -1, heads, shape.dim)[:, :q_len, :, :dim]


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
  tile = shape.tiles(queries='outer')
  order = order.reshape(-1, 1, shape.blocks.q)
  bounds = jnp.stack([visible_from, visible_to], -1).reshape(-1, 2)
  statistics = (shape.kv_heads, order.shape[0], shape.group, shape.blocks.q)
  row = (shape.group, shape.blocks.q)
  out, log_sum = _call(
    _forward_kernel,
    shape,
    list_pairs(holds),
    [query, key, value, order, bounds],
    [tile[n] for n in ('query', 'key', 'key', 'order', 'bounds')],
    [
      jax.ShapeDtypeStruct(query.shape, value.dtype),
      jax.ShapeDtypeStruct(statistics, jnp.float32),
    ],
    [tile['query'], tile['statistic']],
    [row, row, (shape.group, shape.dim, shape.blocks.q)],
  )
  return out, (query, key, value, order, bounds, holds, out, log_sum)


def _attend_backward(shape, kept, d_out):
  query, key, value, order, bounds, holds, out, log_sum = kept
  names = ('query', 'key', 'key', 'query', 'order', 'bounds', 'statistic')
  operands = [query, key, value, d_out, order, bounds, log_sum]
  tile = shape.tiles(queries='outer')
  d_query, mean = _call(
    _query_gradient_kernel,
    shape,
    list_pairs(holds),
    [*operands, out],
    [tile[n] for n in (*names, 'query')],
    [
      jax.ShapeDtypeStruct(query.shape, query.dtype),
      jax.ShapeDtypeStruct(log_sum.shape, jnp.float32),
    ],
    [tile['query'], tile['statistic']],
    [(shape.blocks.q, shape.group * shape.dim)],
  )
  tile = shape.tiles(queries='inner')
  d_key, d_value = _call(
    _key_gradient_kernel,
    shape,
    list_pairs(holds.swapaxes(1, 2)),
    [*operands, mean],
    [tile[n] for n in (*names, 'statistic')],
    [
      jax.ShapeDtypeStruct(key.shape, key.dtype),
      jax.ShapeDtypeStruct(value.shape, value.dtype),
    ],
    [tile['key']] * 2,
    [(shape.blocks.k, shape.dim)] * 2,
  )
  return d_query, d_key, d_value, None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _call(
  kernel, shape, pairs, operands, in_specs, out_shape, out_specs, scratch
):
  """Runs a kernel for every key/value head over the listed pairs of blocks."""
  return pl.pallas_call(
    functools.partial(kernel, shape),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(shape.kv_heads, pairs.count),
      in_specs=in_specs,
      out_specs=out_specs,
      scratch_shapes=[pltpu.VMEM(s, jnp.float32) for s in scratch],
    ),
    out_shape=out_shape,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary'),
      vmem_limit_bytes=_VMEM_BYTES,
    ),
    interpret=shape.interpret,
  )(pairs.outer, pairs.inner, pairs.holds, *operands)


def _forward_kernel(
  shape, outer, inner, holds, query, key, value, order, bounds,
  out, log_sum, top, total, weighted,
):  # fmt: skip
  """One pair of blocks of the forward pass.

  Scratch: `top` and `total`, (group, queries), the largest score so far and
  the sum of the weights beside it; `weighted`, (group, dim, queries), the sum
  of the weighted values.
  """
  del inner
  first, last = _ends(outer)

  @pl.when(first)
  def _():
    top[...] = jnp.full_like(top, _LOWEST)
    total[...] = jnp.zeros_like(total)
    weighted[...] = jnp.zeros_like(weighted)

  @_under_mask(holds, order, bounds)
  def _(visible):
    for i in range(shape.group):
      scores = _scores(shape, query[:, shape.head(i)], key[...], visible)
      before = top[i : i + 1]
      now = jnp.maximum(before, scores.max(0, keepdims=True))
      weights, shrink = jnp.exp(scores - now), jnp.exp(before - now)
      total[i : i + 1] = shrink * total[i : i + 1] + weights.sum(
        0, keepdims=True
      )
      weighted[i] = shrink * weighted[i] + _dot(
        value[...], weights.astype(value.dtype), _TN
      )
      top[i : i + 1] = now

  @pl.when(last)
  def _():
    # A query that sees nothing is padding: zeros, and no gradient.
    sums = jnp.where(total[...] > 0, total[...], 1.0)
    log_sum[...] = jnp.where(total[...] > 0, top[...] + jnp.log(sums), 0.0)
    for i in range(shape.group):
      mean = weighted[i] / sums[i : i + 1]
      out[:, shape.head(i)] = mean.T.astype(out.dtype)


def _query_gradient_kernel(
  shape, outer, inner, holds, query, key, value, d_out, order, bounds,
  log_sum, out, d_query, mean, gathered,
):  # fmt: skip
  """One pair of blocks of dq, gathered in float32 over the keys.

  Also gives `mean`, (group, queries): each query's mean of its weights'
  gradients, which is d_out . out.
  """
  del inner
  first, last = _ends(outer)

  @pl.when(first)
  def _():
    gathered[...] = jnp.zeros_like(gathered)
    # A product with ones sums over a head and turns the sums into a row.
    ones = jnp.ones((8, shape.dim), jnp.float32)
    for i in range(shape.group):
      head = shape.head(i)
      product = d_out[:, head].astype(jnp.float32) * out[:, head]
      mean[i : i + 1] = _dot(ones, product, _NT)[:1]

  @_under_mask(holds, order, bounds)
  def _(visible):
    for i in range(shape.group):
      _, d_scores = _recomputed(
        shape, i, query, key, value, d_out, log_sum, mean, visible
      )
      gathered[:, shape.head(i)] += _dot(
        d_scores.astype(key.dtype), key[...], _TN
      )

  @pl.when(last)
  def _():
    d_query[...] = (gathered[...] * shape.scale).astype(d_query.dtype)


def _key_gradient_kernel(
  shape, outer, inner, holds, query, key, value, d_out, order, bounds,
  log_sum, mean, d_key, d_value, gathered_key, gathered_value,
):  # fmt: skip
  """One pair of blocks of dk and dv, gathered over queries and their heads."""
  del inner
  first, last = _ends(outer)

  @pl.when(first)
  def _():
    gathered_key[...] = jnp.zeros_like(gathered_key)
    gathered_value[...] = jnp.zeros_like(gathered_value)

  @_under_mask(holds, order, bounds)
  def _(visible):
    for i in range(shape.group):
      weights, d_scores = _recomputed(
        shape, i, query, key, value, d_out, log_sum, mean, visible
      )
      head = shape.head(i)
      gathered_value[...] += _dot(
        weights.astype(d_out.dtype), d_out[:, head], _NN
      )
      gathered_key[...] += _dot(
        d_scores.astype(query.dtype), query[:, head], _NN
      )

  @pl.when(last)
  def _():
    d_key[...] = (gathered_key[...] * shape.scale).astype(d_key.dtype)
    d_value[...] = gathered_value[...].astype(d_value.dtype)


def _recomputed(shape, i, query, key, value, d_out, log_sum, mean, visible):
  """The weights of the i-th head, and the gradient of its scores."""
  head = shape.head(i)
  scores = _scores(shape, query[:, head], key[...], visible)
  weights = jnp.exp(scores - log_sum[i : i + 1])
  d_weights = _dot(value[...], d_out[:, head], _NT)
  return weights, weights * (d_weights - mean[i : i + 1])


def _scores(shape, query, key, visible):
  """Keys by queries, scaled, masked unless `visible` is None."""
  scores = _dot(key, query, _NT) * shape.scale
  return scores if visible is None else jnp.where(visible, scores, _MASKED)


def _ends(outer):
  """Whether this pair is the first, and the last, of its outer block."""
  pair, end = pl.program_id(1), pl.num_programs(1) - 1
  here = outer[pair]
  first = (pair == 0) | (outer[jnp.maximum(pair - 1, 0)] != here)
  last = (pair == end) | (outer[jnp.minimum(pair + 1, end)] != here)
  return first, last


def _under_mask(holds, order, bounds):
  """Runs a step with its mask, (keys, queries), or None where all is seen."""
  held = holds[pl.program_id(1)]

  def decorator(step):
    @pl.when(held == PARTLY)
    def _():
      here = order[...]
      step((bounds[:, 0:1] <= here) & (here < bounds[:, 1:2]))

    @pl.when(held == WHOLLY)
    def _():
      step(None)

  return decorator


def _dot(a, b, dimensions):
  """A matrix product summed in float32; float32 operands are not rounded."""
  exact = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return lax.dot_general(
    a, b, dimensions, precision=exact, preferred_element_type=jnp.float32
  )


def _round_up(length: int, multiple: int) -> int:
  return -(-length // multiple) * multiple
