"""Interval attention for Hopper GPUs: forward, dq and dk/dv in Pallas Mosaic.

FlashAttention-3's schedule (Shah et al. 2024, arXiv 2407.08608): one
warpgroup copies tiles to shared memory, two compute on tensor cores. A program
owns one tile of queries (of keys, for dk and dv) and visits the tiles that it
shares a visible pair with (`block_pairs.py`): first those that are visible
throughout, without a mask, then those in which intervals begin or end.

Arrays keep the layout of `interval_attention`, (b, t, h, d): the copy engine
reads one head's tile of any stride. Operands are bfloat16 or float16, sums,
softmax and statistics float32.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from synermedgen_jax.models.kernels.block_pairs import (
  NO_ORDER,
  NOTHING,
  WHOLLY,
  what_blocks_hold,
)

# Finite, so that a row that sees nothing gives no NaN; a masked score is far
# below the first maximum, so its weight is zero before any key was seen.
_MASKED = -1e30
_LOWEST = -1e20
_LOG2E = math.log2(math.e)

_TILE = plgpu.Layout.WGMMA
_PER_ROW = plgpu.Layout.WGMMA.reduce(1)
_PER_COLUMN = plgpu.Layout.WGMMA.reduce(0)

_COMPUTE = 2  # warpgroups that compute; one more copies
_SWIZZLE = 64  # numbers of 16 bits in a swizzled line of 128 bytes
_ROWS_OF_A_PRODUCT = 64  # of one warpgroup's matrix product


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Sizes of one step's tiles, and how many steps are copied ahead.

  Each of the two computing warpgroups owns 64 rows: a program owns 128.

  Attributes:
    forward, d_query: keys of one step.
    d_key: queries of one step.
    stages, d_stages: copies in flight, forward and backward.
  """

  forward: int = 128
  d_query: int = 128
  d_key: int = 64
  stages: int = 2
  d_stages: int = 2


_OWNED = _COMPUTE * _ROWS_OF_A_PRODUCT


@dataclasses.dataclass(frozen=True)
class _Shape:
  """What the kernels share."""

  tiles: Tiles
  group: int  # query heads to a key/value head
  scale: float
  interpret: object


def attention(
  query,
  key,
  value,
  order,
  visible_from,
  visible_to,
  *,
  tiles: Tiles = Tiles(),
  interpret: object = None,
):
  """`interval_attention` on a Hopper GPU; see there for the arguments.

  Args:
    query, key, value: as there, bfloat16 or float16.
    order, visible_from, visible_to: as there.
    tiles: sizes of the tiles.
    interpret: parameters of Mosaic's interpreter, to run without a GPU.

  Raises:
    ValueError: the operands have another dtype.
  """
  if query.dtype not in (jnp.bfloat16, jnp.float16):
    raise ValueError(
      f'Hopper attention takes bfloat16 or float16, not {query.dtype}.'
    )
  q_len, heads, dim = query.shape[1:]
  shape = _Shape(tiles, heads // key.shape[2], dim**-0.5, interpret)

  def padded(x, filling=0):
    widths = [(0, 0), (0, -x.shape[1] % _OWNED)]
    if x.ndim == 4:
      widths += [(0, 0), (0, -dim % _SWIZZLE)]
    return jnp.pad(x, widths, constant_values=filling)

  out = _attend(
    shape,
    padded(query),
    padded(key),
    padded(value),
    padded(order, NO_ORDER),
    padded(visible_from),
    padded(visible_to),
  )
  return out[:, :q_len, :, :dim]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(shape, query, key, value, order, visible_from, visible_to):
  return _attend_forward(
    shape, query, key, value, order, visible_from, visible_to
  )[0]


def _attend_forward(shape, query, key, value, order, visible_from, visible_to):
  layout = (order, visible_from, visible_to)
  visits = _visits(
    what_blocks_hold(*layout, block_q=_OWNED, block_k=shape.tiles.forward)
  )
  b, q_len, heads, dim = query.shape
  keys, stages = shape.tiles.forward, shape.tiles.stages
  out, log_sum = _call(
    _forward_kernel,
    shape,
    grid=(heads, q_len // _OWNED, b),
    out_type=[
      query,
      jax.ShapeDtypeStruct((b, heads, q_len), jnp.float32),
    ],
    scratch=dict(
      own=_matrices(_COMPUTE, _ROWS_OF_A_PRODUCT, dim, query.dtype),
      keys=_matrices(stages, keys, dim, key.dtype),
      values=_matrices(stages, keys, dim, value.dtype),
      bounds=plgpu.SMEM((2, stages, keys), jnp.int32),
      log_sums=plgpu.SMEM((_COMPUTE, _ROWS_OF_A_PRODUCT), jnp.float32),
      own_ready=plgpu.Barrier(num_barriers=_COMPUTE),
      # Keys with the two bounds of their visibility.
      keys_ready=plgpu.Barrier(num_barriers=stages, num_arrivals=3),
      values_ready=plgpu.Barrier(num_barriers=stages),
      keys_free=plgpu.Barrier(num_barriers=stages, num_arrivals=_COMPUTE),
      values_free=plgpu.Barrier(num_barriers=stages, num_arrivals=_COMPUTE),
      turn=plgpu.Barrier(num_arrivals=_COMPUTE),
    ),
  )(*visits, query, key, value, *layout)
  return out, (query, key, value, *layout, out, log_sum)


def _attend_backward(shape, kept, d_out):
  query, key, value, *layout, out, log_sum = kept
  b, q_len, heads, dim = query.shape
  k_len, kv_heads = key.shape[1:3]
  # d_out . out: each query's mean of its weights' gradients.
  mean = jnp.einsum(
    'bqhd,bqhd->bhq', out, d_out, preferred_element_type=jnp.float32
  )
  operands = (query, key, value, d_out, log_sum, mean, *layout)
  keys, stages = shape.tiles.d_query, shape.tiles.d_stages
  holds = what_blocks_hold(*layout, block_q=_OWNED, block_k=keys)
  d_query = _call(
    _query_gradient_kernel,
    shape,
    grid=(heads, q_len // _OWNED, b),
    out_type=query,
    scratch=dict(
      own=_matrices(_COMPUTE, _ROWS_OF_A_PRODUCT, dim, query.dtype),
      own_d_out=_matrices(_COMPUTE, _ROWS_OF_A_PRODUCT, dim, query.dtype),
      keys=_matrices(stages, keys, dim, key.dtype),
      values=_matrices(stages, keys, dim, value.dtype),
      bounds=plgpu.SMEM((2, stages, keys), jnp.int32),
      own_ready=plgpu.Barrier(num_barriers=_COMPUTE, num_arrivals=2),
      ready=plgpu.Barrier(num_barriers=stages, num_arrivals=4),
      free=plgpu.Barrier(num_barriers=stages, num_arrivals=_COMPUTE),
    ),
  )(*_visits(holds), *operands)

  queries = shape.tiles.d_key
  holds = what_blocks_hold(*layout, block_q=queries, block_k=_OWNED)
  d_key, d_value = _call(
    _key_gradient_kernel,
    shape,
    grid=(kv_heads, k_len // _OWNED, b),
    out_type=[key, value],
    scratch=dict(
      own_keys=_matrices(_COMPUTE, _ROWS_OF_A_PRODUCT, dim, key.dtype),
      own_values=_matrices(_COMPUTE, _ROWS_OF_A_PRODUCT, dim, key.dtype),
      queries=_matrices(stages, queries, dim, query.dtype),
      d_outs=_matrices(stages, queries, dim, query.dtype),
      orders=plgpu.SMEM((stages, queries), jnp.int32),
      statistics=plgpu.SMEM((2, stages, queries), jnp.float32),
      own_ready=plgpu.Barrier(num_barriers=_COMPUTE, num_arrivals=2),
      ready=plgpu.Barrier(num_barriers=stages, num_arrivals=5),
      free=plgpu.Barrier(num_barriers=stages, num_arrivals=_COMPUTE),
    ),
  )(*_visits(holds.swapaxes(1, 2)), *operands)
  return d_query, d_key, d_value, None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _visits(holds):
  """The tiles to visit, those visible throughout first, and two counts.

  Args:
    holds: (b, outer, inner), what the pairs of tiles hold.

  Returns:
    tiles: (b, outer, inner) int32, indices of inner tiles.
    counts: (b, outer, 2) int32, how many are visible throughout, and at all.
  """
  rank = jnp.where(holds == WHOLLY, 0, jnp.where(holds == NOTHING, 2, 1))
  counts = jnp.stack([(rank == 0).sum(-1), (rank < 2).sum(-1)], -1)
  tiles = jnp.argsort(rank, axis=-1, stable=True)
  return tiles.astype(jnp.int32), counts.astype(jnp.int32)


def _matrices(count, rows, columns, dtype):
  """Shared memory for matrices that the tensor cores read."""
  return plgpu.SMEM(
    (count, rows, columns),
    dtype,
    transforms=(
      plgpu.TilingTransform((8, _SWIZZLE)),
      plgpu.SwizzleTransform(128),
    ),
  )


def _call(kernel, shape, *, grid, out_type, scratch):
  return plgpu.kernel(
    functools.partial(kernel, shape),
    out_type=out_type,
    scratch_types=scratch,
    grid=grid,
    grid_names=('head', 'tile', 'row'),
    num_threads=_COMPUTE + 1,
    thread_name='warpgroup',
    compiler_params=plgpu.CompilerParams(approx_math=True),
    interpret=shape.interpret,
  )


def _place():
  """(row, tile, head, warpgroup) of the code that runs."""
  return tuple(lax.axis_index(n) for n in ('row', 'tile', 'head', 'warpgroup'))


def _i32(x):
  return jnp.asarray(x, jnp.int32)


def _copier(steps, stages, free, copy):
  """The copying warpgroup: one step's tiles at a time, as slots get free.

  Args:
    steps: how many, known on the device.
    stages: slots.
    free: the barriers of the slots.
    copy: (step, slot, wait) starts the copies; it calls `wait(barrier)` for
      each of `free`, before it overwrites what that one guards.
  """
  plgpu.set_max_registers(40, action='decrease')

  @pl.loop(0, steps)
  def _(step):
    slot = lax.rem(step, _i32(stages))

    def wait(barrier):
      @pl.when(step >= stages)
      def _():
        plgpu.barrier_wait(barrier.at[slot])

    copy(step, slot, wait)

  # The last tiles of all slots: no barrier ends in a phase nobody saw.
  for slot in range(stages):

    @pl.when(slot < steps)
    def _(slot=slot):
      for barrier in free:
        plgpu.barrier_wait(barrier.at[slot])


def _forward_kernel(
  shape, tiles, counts, query, key, value, order, visible_from, visible_to,
  out, log_sum, *, own, keys, values, bounds, log_sums, own_ready, keys_ready,
  values_ready, keys_free, values_free, turn,
):  # fmt: skip
  """One tile of queries past the tiles of keys that it sees."""
  row, tile, head, warpgroup = _place()
  stages, width = keys.shape[:2]
  whole, steps = counts[row, tile, 0], counts[row, tile, 1]

  def take_turn():
    plgpu.barrier_arrive(turn)
    plgpu.barrier_wait(turn)

  @pl.when(warpgroup < _COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action='increase')
    rows = pl.ds(
      tile * _OWNED + warpgroup * _ROWS_OF_A_PRODUCT, _ROWS_OF_A_PRODUCT
    )
    mine = own.at[warpgroup]
    plgpu.copy_gmem_to_smem(
      query.at[row, rows, head], mine, own_ready.at[warpgroup]
    )
    here = _per_row(order.at[row, rows])
    plgpu.barrier_wait(own_ready.at[warpgroup])

    @pl.when(steps > 0)
    def _():
      plgpu.barrier_wait(keys_ready.at[0])

    # The one warpgroup multiplies while the other exponentiates.
    pl.when(warpgroup == 1)(take_turn)

    def step(i, carry, *, masked):
      weighted, top, total = carry
      slot = lax.rem(i, _i32(stages))

      def multiply(scores):
        plgpu.wgmma(scores, mine, keys.at[slot].T)
        take_turn()
        return scores[...]

      scores = pl.run_scoped(
        multiply, plgpu.ACC((_ROWS_OF_A_PRODUCT, width), jnp.float32)
      )
      if masked:
        visible = _mask(
          here, bounds.at[0, slot], bounds.at[1, slot], scores.shape
        )
        scores = jnp.where(visible, scores, _MASKED)
      plgpu.barrier_arrive(keys_free.at[slot])

      factor = shape.scale * _LOG2E
      now = jnp.maximum(top, scores.max(axis=1) * factor)
      shrink = jnp.exp2(top - now)
      weights = jnp.exp2(scores * factor - _over_columns(now, scores.shape))
      weighted *= _over_columns(shrink, weighted.shape)
      total *= shrink
      rounded = weights.astype(values.dtype)
      total += weights.sum(axis=1)
      weighted, total, now, rounded = lax.optimization_barrier(
        (weighted, total, now, rounded)
      )
      plgpu.barrier_arrive(turn)
      plgpu.barrier_wait(values_ready.at[slot])
      plgpu.barrier_wait(turn)

      def accumulate(weighted):
        plgpu.wgmma(weighted, rounded, values.at[slot])

        @pl.when(i + 1 < steps)
        def _():
          plgpu.barrier_wait(keys_ready.at[lax.rem(i + 1, _i32(stages))])

      weighted = pl.run_state(accumulate)(plgpu.ACC.init(weighted))
      plgpu.barrier_arrive(values_free.at[slot])
      return weighted, now, total

    zeros = jnp.zeros((_ROWS_OF_A_PRODUCT,), jnp.float32)
    carry = (
      _zeros(own.shape[1:]),
      plgpu.layout_cast(zeros + _LOWEST, _PER_ROW),
      plgpu.layout_cast(zeros, _PER_ROW),
    )
    carry = lax.fori_loop(
      0, whole, functools.partial(step, masked=False), carry
    )
    weighted, top, total = lax.fori_loop(
      whole, steps, functools.partial(step, masked=True), carry
    )
    pl.when(warpgroup == 0)(take_turn)

    # A query that sees nothing is padding: zeros, and no gradient.
    sums = jnp.where(total > 0, total, 1.0)
    log_sums[warpgroup] = jnp.where(
      total > 0, top + jnp.log(sums) * _LOG2E, 0.0
    )
    weighted *= _over_columns(1 / sums, weighted.shape)
    mine[...] = weighted.astype(out.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(mine, out.at[row, rows, head])
    plgpu.copy_smem_to_gmem(log_sums.at[warpgroup], log_sum.at[row, head, rows])
    plgpu.wait_smem_to_gmem(0)

  @pl.when(warpgroup == _COMPUTE)
  def _copy():
    kv_head = lax.div(head, _i32(shape.group))

    def copy(i, slot, wait):
      theirs = pl.ds(tiles[row, tile, i] * width, width)
      ready = keys_ready.at[slot]
      wait(keys_free)
      plgpu.copy_gmem_to_smem(
        key.at[row, theirs, kv_head], keys.at[slot], ready
      )
      plgpu.copy_gmem_to_smem(
        visible_from.at[row, theirs], bounds.at[0, slot], ready
      )
      plgpu.copy_gmem_to_smem(
        visible_to.at[row, theirs], bounds.at[1, slot], ready
      )
      wait(values_free)
      plgpu.copy_gmem_to_smem(
        value.at[row, theirs, kv_head], values.at[slot], values_ready.at[slot]
      )

    _copier(steps, stages, (keys_free, values_free), copy)


def _query_gradient_kernel(
  shape, tiles, counts, query, key, value, d_out, log_sum, mean, order,
  visible_from, visible_to, d_query, *, own, own_d_out, keys, values, bounds,
  own_ready, ready, free,
):  # fmt: skip
  """dq of one tile of queries."""
  row, tile, head, warpgroup = _place()
  stages, width = keys.shape[:2]
  whole, steps = counts[row, tile, 0], counts[row, tile, 1]

  @pl.when(warpgroup < _COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action='increase')
    rows = pl.ds(
      tile * _OWNED + warpgroup * _ROWS_OF_A_PRODUCT, _ROWS_OF_A_PRODUCT
    )
    mine, upstream = own.at[warpgroup], own_d_out.at[warpgroup]
    plgpu.copy_gmem_to_smem(
      query.at[row, rows, head], mine, own_ready.at[warpgroup]
    )
    plgpu.copy_gmem_to_smem(
      d_out.at[row, rows, head], upstream, own_ready.at[warpgroup]
    )
    here = _per_row(order.at[row, rows])
    log_sums = _per_row(log_sum.at[row, head, rows])
    means = _per_row(mean.at[row, head, rows])
    plgpu.barrier_wait(own_ready.at[warpgroup])
    tile_shape = (_ROWS_OF_A_PRODUCT, width)

    def step(gathered, i, *, masked):
      slot = lax.rem(i, _i32(stages))
      plgpu.barrier_wait(ready.at[slot])

      def multiply(scores, d_weights):
        plgpu.wgmma(scores, mine, keys.at[slot].T)
        plgpu.wgmma(d_weights, upstream, values.at[slot].T)
        # The weights are computed while the second product runs.
        weights = jnp.exp2(
          plgpu.wgmma_accumulator_load(scores, wait_n=1)
          * (shape.scale * _LOG2E)
          - _over_columns(log_sums, tile_shape)
        )
        if masked:
          visible = _mask(
            here, bounds.at[0, slot], bounds.at[1, slot], tile_shape
          )
          weights = jnp.where(visible, weights, 0.0)
        return weights * (d_weights[...] - _over_columns(means, tile_shape))

      products = plgpu.ACC(tile_shape, jnp.float32)
      d_scores = pl.run_scoped(multiply, products, products)
      plgpu.wgmma(gathered, d_scores.astype(keys.dtype), keys.at[slot])
      plgpu.wgmma_wait(0)
      plgpu.barrier_arrive(free.at[slot])

    def walk(gathered):
      pl.loop(0, whole)(functools.partial(step, gathered, masked=False))
      pl.loop(whole, steps)(functools.partial(step, gathered, masked=True))
      return gathered[...]

    gathered = pl.run_scoped(walk, plgpu.ACC(own.shape[1:], jnp.float32))
    mine[...] = (gathered * shape.scale).astype(d_query.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(mine, d_query.at[row, rows, head])
    plgpu.wait_smem_to_gmem(0)

  @pl.when(warpgroup == _COMPUTE)
  def _copy():
    kv_head = lax.div(head, _i32(shape.group))

    def copy(i, slot, wait):
      theirs = pl.ds(tiles[row, tile, i] * width, width)
      wait(free)
      for source, target in (
        (key.at[row, theirs, kv_head], keys.at[slot]),
        (value.at[row, theirs, kv_head], values.at[slot]),
        (visible_from.at[row, theirs], bounds.at[0, slot]),
        (visible_to.at[row, theirs], bounds.at[1, slot]),
      ):
        plgpu.copy_gmem_to_smem(source, target, ready.at[slot])

    _copier(steps, stages, (free,), copy)


def _key_gradient_kernel(
  shape, tiles, counts, query, key, value, d_out, log_sum, mean, order,
  visible_from, visible_to, d_key, d_value, *, own_keys, own_values, queries,
  d_outs, orders, statistics, own_ready, ready, free,
):  # fmt: skip
  """dk and dv of one tile of keys, over the queries of its group of heads.

  Scores are transposed, keys by queries, so that both sums take their left
  operand from registers.
  """
  row, tile, kv_head, warpgroup = _place()
  stages, width = queries.shape[:2]
  whole = counts[row, tile, 0] * shape.group
  steps = counts[row, tile, 1] * shape.group

  @pl.when(warpgroup < _COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action='increase')
    rows = pl.ds(
      tile * _OWNED + warpgroup * _ROWS_OF_A_PRODUCT, _ROWS_OF_A_PRODUCT
    )
    my_keys, my_values = own_keys.at[warpgroup], own_values.at[warpgroup]
    plgpu.copy_gmem_to_smem(
      key.at[row, rows, kv_head], my_keys, own_ready.at[warpgroup]
    )
    plgpu.copy_gmem_to_smem(
      value.at[row, rows, kv_head], my_values, own_ready.at[warpgroup]
    )
    first = _per_row(visible_from.at[row, rows])
    last = _per_row(visible_to.at[row, rows])
    plgpu.barrier_wait(own_ready.at[warpgroup])
    tile_shape = (_ROWS_OF_A_PRODUCT, width)

    def per_column(x):
      return lax.broadcast_in_dim(
        plgpu.load(x, layout=_PER_COLUMN), tile_shape, [1]
      )

    def step(gathered_key, gathered_value, i, *, masked):
      slot = lax.rem(i, _i32(stages))
      plgpu.barrier_wait(ready.at[slot])

      def multiply(scores):
        plgpu.wgmma(scores, my_keys, queries.at[slot].T)
        return scores[...]

      products = plgpu.ACC(tile_shape, jnp.float32)
      weights = jnp.exp2(
        pl.run_scoped(multiply, products) * (shape.scale * _LOG2E)
        - per_column(statistics.at[0, slot])
      )
      if masked:
        here = per_column(orders.at[slot])
        visible = (_over_columns(first, tile_shape) <= here) & (
          here < _over_columns(last, tile_shape)
        )
        weights = jnp.where(visible, weights, 0.0)

      def multiply_values(d_weights):
        plgpu.wgmma(d_weights, my_values, d_outs.at[slot].T)
        plgpu.wgmma(
          gathered_value, weights.astype(queries.dtype), d_outs.at[slot]
        )
        # Read while the second product runs.
        return plgpu.wgmma_accumulator_load(d_weights, wait_n=1)

      d_scores = weights * (
        pl.run_scoped(multiply_values, products)
        - per_column(statistics.at[1, slot])
      )
      plgpu.wgmma(
        gathered_key, d_scores.astype(queries.dtype), queries.at[slot]
      )
      plgpu.wgmma_wait(0)
      plgpu.barrier_arrive(free.at[slot])

    def walk(*gathered):
      pl.loop(0, whole)(functools.partial(step, *gathered, masked=False))
      pl.loop(whole, steps)(functools.partial(step, *gathered, masked=True))
      return tuple(x[...] for x in gathered)

    sums = plgpu.ACC(own_keys.shape[1:], jnp.float32)
    gathered_key, gathered_value = pl.run_scoped(walk, sums, sums)
    my_keys[...] = (gathered_key * shape.scale).astype(d_key.dtype)
    my_values[...] = gathered_value.astype(d_value.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(my_keys, d_key.at[row, rows, kv_head])
    plgpu.copy_smem_to_gmem(my_values, d_value.at[row, rows, kv_head])
    plgpu.wait_smem_to_gmem(0)

  @pl.when(warpgroup == _COMPUTE)
  def _copy():
    def copy(i, slot, wait):
      theirs = pl.ds(
        tiles[row, tile, lax.div(i, _i32(shape.group))] * width, width
      )
      head = kv_head * shape.group + lax.rem(i, _i32(shape.group))
      wait(free)
      for source, target in (
        (query.at[row, theirs, head], queries.at[slot]),
        (d_out.at[row, theirs, head], d_outs.at[slot]),
        (order.at[row, theirs], orders.at[slot]),
        (log_sum.at[row, head, theirs], statistics.at[0, slot]),
        (mean.at[row, head, theirs], statistics.at[1, slot]),
      ):
        plgpu.copy_gmem_to_smem(source, target, ready.at[slot])

    _copier(steps, stages, (free,), copy)


def _zeros(shape):
  return plgpu.layout_cast(jnp.zeros(shape, jnp.float32), _TILE)


def _per_row(x):
  """A vector from device memory, one number a row of a tile."""
  return plgpu.load(x, layout=_PER_ROW, optimized=False)


def _over_columns(x, shape):
  return lax.broadcast_in_dim(x, shape, [0])


def _mask(order, visible_from, visible_to, shape):
  """Queries by keys; the bounds lie in shared memory."""
  order = _over_columns(order, shape)
  first, last = (
    lax.broadcast_in_dim(plgpu.load(x, layout=_PER_COLUMN), shape, [1])
    for x in (visible_from, visible_to)
  )
  return (first <= order) & (order < last)
