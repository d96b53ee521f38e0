"""The Hopper kernels of the backward pass: dq, and dk with dv."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from synermedgen_jax.models.kernels.hopper_tiles import (
  COMPUTE,
  LOG2E,
  OWNED,
  OWNED_ROWS,
  copy_ahead,
  i32,
  load_per_column,
  load_per_row,
  mask,
  over_columns,
  place,
)


def query_gradient_kernel(
  shape, tiles, counts, query, key, value, d_out, log_sum, mean, order,
  visible_from, visible_to, d_query, *, own, own_d_out, keys, values, bounds,
  own_ready, ready, free,
):  # fmt: skip
  """dq of one tile of queries."""
  row, tile, head, warpgroup = place()
  stages, width = keys.shape[:2]
  unmasked, steps = counts[row, tile, 0], counts[row, tile, 1]

  @pl.when(warpgroup < COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action='increase')
    rows = pl.ds(tile * OWNED + warpgroup * OWNED_ROWS, OWNED_ROWS)
    mine, upstream = own.at[warpgroup], own_d_out.at[warpgroup]
    plgpu.copy_gmem_to_smem(
      query.at[row, rows, head], mine, own_ready.at[warpgroup]
    )
    plgpu.copy_gmem_to_smem(
      d_out.at[row, rows, head], upstream, own_ready.at[warpgroup]
    )
    here = load_per_row(order.at[row, rows])
    log_sums = load_per_row(log_sum.at[row, head, rows])
    means = load_per_row(mean.at[row, head, rows])
    plgpu.barrier_wait(own_ready.at[warpgroup])
    tile_shape = (OWNED_ROWS, width)

    def step(gathered, i, *, masked):
      slot = lax.rem(i, i32(stages))
      plgpu.barrier_wait(ready.at[slot])

      def multiply(scores, d_weights):
        plgpu.wgmma(scores, mine, keys.at[slot].T)
        plgpu.wgmma(d_weights, upstream, values.at[slot].T)
        # The weights are computed while the second product runs.
        weights = jnp.exp2(
          plgpu.wgmma_accumulator_load(scores, wait_n=1) * (shape.scale * LOG2E)
          - over_columns(log_sums, tile_shape)
        )
        if masked:
          visible = mask(
            here, bounds.at[0, slot], bounds.at[1, slot], tile_shape
          )
          weights = jnp.where(visible, weights, 0.0)
        return weights * (d_weights[...] - over_columns(means, tile_shape))

      products = plgpu.ACC(tile_shape, jnp.float32)
      d_scores = pl.run_scoped(multiply, products, products)
      plgpu.wgmma(gathered, d_scores.astype(keys.dtype), keys.at[slot])
      plgpu.wgmma_wait(0)
      plgpu.barrier_arrive(free.at[slot])

    def walk(gathered):
      pl.loop(0, unmasked)(functools.partial(step, gathered, masked=False))
      pl.loop(unmasked, steps)(functools.partial(step, gathered, masked=True))
      return gathered[...]

    gathered = pl.run_scoped(walk, plgpu.ACC(own.shape[1:], jnp.float32))
    mine[...] = (gathered * shape.scale).astype(d_query.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(mine, d_query.at[row, rows, head])
    plgpu.wait_smem_to_gmem(0)

  @pl.when(warpgroup == COMPUTE)
  def _copy():
    kv_head = lax.div(head, i32(shape.group))

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

    copy_ahead(steps, stages, (free,), copy)


def key_gradient_kernel(
  shape, tiles, counts, query, key, value, d_out, log_sum, mean, order,
  visible_from, visible_to, d_key, d_value, *, own_keys, own_values, queries,
  d_outs, orders, statistics, own_ready, ready, free,
):  # fmt: skip
  """dk and dv of one tile of keys, over the queries of its group of heads.

  Scores are transposed, keys by queries, so that both sums take their left
  operand from registers.
  """
  row, tile, kv_head, warpgroup = place()
  stages, width = queries.shape[:2]
  unmasked = counts[row, tile, 0] * shape.group
  steps = counts[row, tile, 1] * shape.group

  @pl.when(warpgroup < COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action='increase')
    rows = pl.ds(tile * OWNED + warpgroup * OWNED_ROWS, OWNED_ROWS)
    my_keys, my_values = own_keys.at[warpgroup], own_values.at[warpgroup]
    plgpu.copy_gmem_to_smem(
      key.at[row, rows, kv_head], my_keys, own_ready.at[warpgroup]
    )
    plgpu.copy_gmem_to_smem(
      value.at[row, rows, kv_head], my_values, own_ready.at[warpgroup]
    )
    first = load_per_row(visible_from.at[row, rows])
    last = load_per_row(visible_to.at[row, rows])
    plgpu.barrier_wait(own_ready.at[warpgroup])
    tile_shape = (OWNED_ROWS, width)

    per_column = functools.partial(load_per_column, shape=tile_shape)

    def step(gathered_key, gathered_value, i, *, masked):
      slot = lax.rem(i, i32(stages))
      plgpu.barrier_wait(ready.at[slot])

      def multiply(scores):
        plgpu.wgmma(scores, my_keys, queries.at[slot].T)
        return scores[...]

      products = plgpu.ACC(tile_shape, jnp.float32)
      weights = jnp.exp2(
        pl.run_scoped(multiply, products) * (shape.scale * LOG2E)
        - per_column(statistics.at[0, slot])
      )
      if masked:
        here = per_column(orders.at[slot])
        visible = (over_columns(first, tile_shape) <= here) & (
          here < over_columns(last, tile_shape)
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
      pl.loop(0, unmasked)(functools.partial(step, *gathered, masked=False))
      pl.loop(unmasked, steps)(functools.partial(step, *gathered, masked=True))
      return tuple(x[...] for x in gathered)

    sums = plgpu.ACC(own_keys.shape[1:], jnp.float32)
    gathered_key, gathered_value = pl.run_scoped(walk, sums, sums)
    my_keys[...] = (gathered_key * shape.scale).astype(d_key.dtype)
    my_values[...] = gathered_value.astype(d_value.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(my_keys, d_key.at[row, rows, kv_head])
    plgpu.copy_smem_to_gmem(my_values, d_value.at[row, rows, kv_head])
    plgpu.wait_smem_to_gmem(0)

  @pl.when(warpgroup == COMPUTE)
  def _copy():
    def copy(i, slot, wait):
      theirs = pl.ds(
        tiles[row, tile, lax.div(i, i32(shape.group))] * width, width
      )
      head = kv_head * shape.group + lax.rem(i, i32(shape.group))
      wait(free)
      for source, target in (
        (query.at[row, theirs, head], queries.at[slot]),
        (d_out.at[row, theirs, head], d_outs.at[slot]),
        (order.at[row, theirs], orders.at[slot]),
        (log_sum.at[row, head, theirs], statistics.at[0, slot]),
        (mean.at[row, head, theirs], statistics.at[1, slot]),
      ):
        plgpu.copy_gmem_to_smem(source, target, ready.at[slot])

    copy_ahead(steps, stages, (free,), copy)
