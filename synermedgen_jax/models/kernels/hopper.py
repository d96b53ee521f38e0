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

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from synermedgen_jax.models.kernels.block_pairs import (
  NO_ORDER,
  what_blocks_hold,
)
from synermedgen_jax.models.kernels.hopper_gradients import (
  key_gradient_kernel,
  query_gradient_kernel,
)
from synermedgen_jax.models.kernels.hopper_tiles import (
  COMPUTE,
  LOG2E,
  OWNED,
  OWNED_ROWS,
  PER_ROW,
  SWIZZLE,
  Shape,
  Tiles,
  call,
  copy_ahead,
  i32,
  list_visits,
  load_per_row,
  mask,
  matrices,
  over_columns,
  place,
  zero_tile,
)

# Finite, so that a query without visible keys gives no NaN. A masked score is
# far below the first maximum, so its weight is always zero.
_MASKED = -1e30
_LOWEST = -1e20
_TILES = Tiles()


def attention(
  query,
  key,
  value,
  order,
  visible_from,
  visible_to,
  *,
  tiles: Tiles = _TILES,
  interpret: object = None,
):
  """`interval_attention` on a Hopper GPU (compute capability 9.0).

  Args:
    query, key, value: as in `interval_attention`; bfloat16 or float16.
    order, visible_from, visible_to: as in `interval_attention`.
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
  shape = Shape(tiles, heads // key.shape[2], dim**-0.5, interpret)

  def padded(x, filling=0):
    widths = [(0, 0), (0, -x.shape[1] % OWNED)]
    if x.ndim == 4:
      widths += [(0, 0), (0, -dim % SWIZZLE)]
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
  visits = list_visits(
    what_blocks_hold(*layout, block_q=OWNED, block_k=shape.tiles.forward)
  )
  b, q_len, heads, dim = query.shape
  keys, stages = shape.tiles.forward, shape.tiles.stages
  out, log_sum = call(
    _forward_kernel,
    shape,
    grid=(heads, q_len // OWNED, b),
    out_type=[
      query,
      jax.ShapeDtypeStruct((b, heads, q_len), jnp.float32),
    ],
    scratch={
      'own': matrices(COMPUTE, OWNED_ROWS, dim, query.dtype),
      'keys': matrices(stages, keys, dim, key.dtype),
      'values': matrices(stages, keys, dim, value.dtype),
      'bounds': plgpu.SMEM((2, stages, keys), jnp.int32),
      'log_sums': plgpu.SMEM((COMPUTE, OWNED_ROWS), jnp.float32),
      'own_ready': plgpu.Barrier(num_barriers=COMPUTE),
      # Keys with the two bounds of their visibility.
      'keys_ready': plgpu.Barrier(num_barriers=stages, num_arrivals=3),
      'values_ready': plgpu.Barrier(num_barriers=stages),
      'keys_free': plgpu.Barrier(num_barriers=stages, num_arrivals=COMPUTE),
      'values_free': plgpu.Barrier(num_barriers=stages, num_arrivals=COMPUTE),
      'turn': plgpu.Barrier(num_arrivals=COMPUTE),
    },
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
  holds = what_blocks_hold(*layout, block_q=OWNED, block_k=keys)
  d_query = call(
    query_gradient_kernel,
    shape,
    grid=(heads, q_len // OWNED, b),
    out_type=query,
    scratch={
      'own': matrices(COMPUTE, OWNED_ROWS, dim, query.dtype),
      'own_d_out': matrices(COMPUTE, OWNED_ROWS, dim, query.dtype),
      'keys': matrices(stages, keys, dim, key.dtype),
      'values': matrices(stages, keys, dim, value.dtype),
      'bounds': plgpu.SMEM((2, stages, keys), jnp.int32),
      'own_ready': plgpu.Barrier(num_barriers=COMPUTE, num_arrivals=2),
      'ready': plgpu.Barrier(num_barriers=stages, num_arrivals=4),
      'free': plgpu.Barrier(num_barriers=stages, num_arrivals=COMPUTE),
    },
  )(*list_visits(holds), *operands)

  queries = shape.tiles.d_key
  holds = what_blocks_hold(*layout, block_q=queries, block_k=OWNED)
  d_key, d_value = call(
    key_gradient_kernel,
    shape,
    grid=(kv_heads, k_len // OWNED, b),
    out_type=[key, value],
    scratch={
      'own_keys': matrices(COMPUTE, OWNED_ROWS, dim, key.dtype),
      'own_values': matrices(COMPUTE, OWNED_ROWS, dim, key.dtype),
      'queries': matrices(stages, queries, dim, query.dtype),
      'd_outs': matrices(stages, queries, dim, query.dtype),
      'orders': plgpu.SMEM((stages, queries), jnp.int32),
      'statistics': plgpu.SMEM((2, stages, queries), jnp.float32),
      'own_ready': plgpu.Barrier(num_barriers=COMPUTE, num_arrivals=2),
      'ready': plgpu.Barrier(num_barriers=stages, num_arrivals=5),
      'free': plgpu.Barrier(num_barriers=stages, num_arrivals=COMPUTE),
    },
  )(*list_visits(holds.swapaxes(1, 2)), *operands)
  return d_query, d_key, d_value, None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _forward_kernel(
  shape, tiles, counts, query, key, value, order, visible_from, visible_to,
  out, log_sum, *, own, keys, values, bounds, log_sums, own_ready, keys_ready,
  values_ready, keys_free, values_free, turn,
):  # fmt: skip
  """One tile of queries past the tiles of keys that it sees."""
  row, tile, head, warpgroup = place()
  stages, width = keys.shape[:2]
  unmasked, steps = counts[row, tile, 0], counts[row, tile, 1]

  def take_turn():
    plgpu.barrier_arrive(turn)
    plgpu.barrier_wait(turn)

  @pl.when(warpgroup < COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action='increase')
    rows = pl.ds(tile * OWNED + warpgroup * OWNED_ROWS, OWNED_ROWS)
    mine = own.at[warpgroup]
    plgpu.copy_gmem_to_smem(
      query.at[row, rows, head], mine, own_ready.at[warpgroup]
    )
    here = load_per_row(order.at[row, rows])
    plgpu.barrier_wait(own_ready.at[warpgroup])

    @pl.when(steps > 0)
    def _():
      plgpu.barrier_wait(keys_ready.at[0])

    # One warpgroup multiplies while the other exponentiates.
    pl.when(warpgroup == 1)(take_turn)

    def step(i, carry, *, masked):
      weighted, top, total = carry
      slot = lax.rem(i, i32(stages))

      def multiply(scores):
        plgpu.wgmma(scores, mine, keys.at[slot].T)
        take_turn()
        return scores[...]

      scores = pl.run_scoped(
        multiply, plgpu.ACC((OWNED_ROWS, width), jnp.float32)
      )
      if masked:
        visible = mask(
          here, bounds.at[0, slot], bounds.at[1, slot], scores.shape
        )
        scores = jnp.where(visible, scores, _MASKED)
      plgpu.barrier_arrive(keys_free.at[slot])

      factor = shape.scale * LOG2E
      now = jnp.maximum(top, scores.max(axis=1) * factor)
      shrink = jnp.exp2(top - now)
      weights = jnp.exp2(scores * factor - over_columns(now, scores.shape))
      weighted *= over_columns(shrink, weighted.shape)
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
          plgpu.barrier_wait(keys_ready.at[lax.rem(i + 1, i32(stages))])

      weighted = pl.run_state(accumulate)(plgpu.ACC.init(weighted))
      plgpu.barrier_arrive(values_free.at[slot])
      return weighted, now, total

    zeros = jnp.zeros((OWNED_ROWS,), jnp.float32)
    carry = (
      zero_tile(own.shape[1:]),
      plgpu.layout_cast(zeros + _LOWEST, PER_ROW),
      plgpu.layout_cast(zeros, PER_ROW),
    )
    carry = lax.fori_loop(
      0, unmasked, functools.partial(step, masked=False), carry
    )
    weighted, top, total = lax.fori_loop(
      unmasked, steps, functools.partial(step, masked=True), carry
    )
    pl.when(warpgroup == 0)(take_turn)

    # A query without visible keys is padding: zeros and no gradient.
    sums = jnp.where(total > 0, total, 1.0)
    log_sums[warpgroup] = jnp.where(total > 0, top + jnp.log(sums) * LOG2E, 0.0)
    weighted *= over_columns(1 / sums, weighted.shape)
    mine[...] = weighted.astype(out.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(mine, out.at[row, rows, head])
    plgpu.copy_smem_to_gmem(log_sums.at[warpgroup], log_sum.at[row, head, rows])
    plgpu.wait_smem_to_gmem(0)

  @pl.when(warpgroup == COMPUTE)
  def _copy():
    kv_head = lax.div(head, i32(shape.group))

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

    copy_ahead(steps, stages, (keys_free, values_free), copy)
