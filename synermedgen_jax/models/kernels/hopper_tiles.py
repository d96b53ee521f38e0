"""Parts shared by the Hopper kernels: tiles, visits, copies ahead, masks."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from synermedgen_jax.models.kernels.block_pairs import NOTHING, WHOLLY

LOG2E = math.log2(math.e)

COMPUTE = 2  # warpgroups that compute; one more copies
OWNED_ROWS = 64  # of one warpgroup: the rows of its matrix products
OWNED = COMPUTE * OWNED_ROWS  # of a program
SWIZZLE = 64  # numbers of 16 bits in a swizzled line of 128 bytes

_TILE = plgpu.Layout.WGMMA
PER_ROW = plgpu.Layout.WGMMA.reduce(1)
_PER_COLUMN = plgpu.Layout.WGMMA.reduce(0)


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Sizes of one step's tiles, and the number of steps that are copied ahead.

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


@dataclasses.dataclass(frozen=True)
class Shape:
  """Constants of a call that all kernels use."""

  tiles: Tiles
  group: int  # query heads to a key/value head
  scale: float
  interpret: object


def list_visits(holds):
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


def matrices(count, rows, columns, dtype):
  """Shared memory for matrices that the tensor cores read."""
  return plgpu.SMEM(
    (count, rows, columns),
    dtype,
    transforms=(
      plgpu.TilingTransform((8, SWIZZLE)),
      plgpu.SwizzleTransform(128),
    ),
  )


def call(kernel, shape, *, grid, out_type, scratch):
  return plgpu.kernel(
    functools.partial(kernel, shape),
    out_type=out_type,
    scratch_types=scratch,
    grid=grid,
    grid_names=('head', 'tile', 'row'),
    num_threads=COMPUTE + 1,
    thread_name='warpgroup',
    compiler_params=plgpu.CompilerParams(approx_math=True),
    interpret=shape.interpret,
  )


def place():
  """(row, tile, head, warpgroup) of the code that runs."""
  return tuple(lax.axis_index(n) for n in ('row', 'tile', 'head', 'warpgroup'))


def i32(x):
  return jnp.asarray(x, jnp.int32)


def copy_ahead(steps, stages, free, copy):
  """The copying warpgroup: one step's tiles at a time, as slots get free.

  Args:
    steps: number of steps, a value on the device.
    stages: slots.
    free: the barriers of the slots.
    copy: (step, slot, wait) starts the copies; it calls `wait(barrier)` for
      each of `free`, before it overwrites what that one guards.
  """
  plgpu.set_max_registers(40, action='decrease')

  @pl.loop(0, steps)
  def _(step):
    slot = lax.rem(step, i32(stages))

    def wait(barrier):
      @pl.when(step >= stages)
      def _():
        plgpu.barrier_wait(barrier.at[slot])

    copy(step, slot, wait)

  # Waits for the last tile of every slot, so that every phase is observed.
  for slot in range(stages):

    @pl.when(slot < steps)
    def _(slot=slot):
      for barrier in free:
        plgpu.barrier_wait(barrier.at[slot])


def zero_tile(shape):
  return plgpu.layout_cast(jnp.zeros(shape, jnp.float32), _TILE)


def load_per_row(x):
  """A vector from device memory, one number a row of a tile."""
  return plgpu.load(x, (), layout=PER_ROW, optimized=False)


def over_columns(x, shape):
  return lax.broadcast_in_dim(x, shape, [0])


def load_per_column(x, shape):
  """A vector from shared memory, one number a column, over a tile's rows."""
  return lax.broadcast_in_dim(plgpu.load(x, (), layout=_PER_COLUMN), shape, [1])


def mask(order, visible_from, visible_to, shape):
  """Queries by keys; the bounds are in shared memory."""
  order = over_columns(order, shape)
  first = load_per_column(visible_from, shape)
  return (first <= order) & (order < load_per_column(visible_to, shape))
