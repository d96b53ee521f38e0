"""The canvases of a packed batch: which hold images, targets and sources."""

from __future__ import annotations

import functools

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.core.size import Size
from synermedgen_jax.models.layers import take_in_rows


def canvas_of(batch: PackedBatch, stride: int) -> Int[Array, 'b g']:
  """The canvas of each token of the gen stream, `stride` pixels per token."""
  _, _, height, width, _ = batch.vae_images.shape
  return batch.latent_index // ((height // stride) * (width // stride))


def used_canvases(batch: PackedBatch, stride: int) -> Float[Array, 'b n']:
  """1 for canvases that hold an image, 0 for padding."""
  b, n = batch.vae_images.shape[:2]
  real = (batch.gen.example_ids > 0).astype(jnp.float32)
  rows = jnp.arange(b)[:, None]
  return jnp.zeros((b, n)).at[rows, canvas_of(batch, stride)].max(real)


def seen_latents(
  batch: PackedBatch, rows: int, columns: int
) -> Bool[Array, 'n y x']:
  """The latents of every canvas that have a token; all, if none has one."""
  b, n = batch.vae_images.shape[:2]
  real = batch.gen.example_ids > 0
  seen = jnp.zeros((b, n * rows * columns), bool)
  seen = seen.at[jnp.arange(b)[:, None], batch.latent_index].max(real)
  seen = seen.reshape(b * n, rows, columns)
  return seen | ~seen.any((1, 2), keepdims=True)


@flax.struct.dataclass
class Sources:
  """The images that the targets of each row are made from.

  Attributes:
    images: clean canvases.
    seen: whether source `s` precedes target `t` in its example and shows the
      same slice of its slab.
  """

  images: Float[Array, 'b s h w c']
  seen: Bool[Array, 'b t s']


@flax.struct.dataclass
class Targets:
  """The noised images of a batch, at most half as many as a row has canvases.

  Attributes:
    index: canvas of each target within its row.
    real: False for padding.
    images: their canvases.
    sources: what they are made from.
  """

  index: Int[Array, 'b t']
  real: Bool[Array, 'b t']
  images: Float[Array, 'b t h w c']
  sources: Sources


def targets_of(batch: PackedBatch, stride: int) -> Targets:
  """Finds the targets of a batch, and the clean images that they see.

  Args:
    batch: packed rows.
    stride: pixels per latent token.

  Raises:
    ValueError: images do not fill their canvas.
  """
  _require_full(batch)
  n = batch.vae_images.shape[1]
  per_canvas = functools.partial(_per_canvas, batch, stride)
  noised = per_canvas(batch.noise_ids) > 0
  clean = (per_canvas(batch.gen.example_ids) > 0) & ~noised
  order = per_canvas(batch.gen.order)
  first, last = map(per_canvas, (batch.gen.visible_from, batch.gen.visible_to))
  offset = per_canvas(batch.latent_offsets)
  # A target has a source of its own, unless the source was dropped: rows of
  # more targets than sources leave the last ones out.
  targets, sources = (
    jnp.argsort(~kind, axis=1, stable=True)[:, : max(room, 1)]
    for kind, room in ((noised, n // 2), (clean, n - 1))
  )

  def of_targets(values):
    return jnp.take_along_axis(values, targets, 1)[..., None]

  def of_sources(values):
    return jnp.take_along_axis(values, sources, 1)[:, None]

  seen = (
    (of_sources(first) <= of_targets(order))
    & (of_targets(order) < of_sources(last))
    & (of_sources(offset) == of_targets(offset))
    & of_sources(clean)
  )
  real = of_targets(noised)[..., 0]
  return Targets(
    index=targets,
    real=real,
    images=take_in_rows(batch.vae_images, targets),
    sources=Sources(
      take_in_rows(batch.vae_images, sources), seen & real[..., None]
    ),
  )


def grids_of(
  tokens: Float[Array, 'b g d'],
  batch: PackedBatch,
  targets: Targets,
  grid: Size,
) -> Float[Array, 'b t y x d']:
  """Values of the gen stream on the latent grids of the targets."""
  b, n = batch.vae_images.shape[:2]
  used = (batch.gen.example_ids > 0)[..., None]
  size = b, n * batch.image_latents, tokens.shape[-1]
  placed = (
    jnp.zeros(size, tokens.dtype)
    .at[jnp.arange(b)[:, None], batch.latent_index]
    .add(jnp.where(used, tokens, 0))
  )
  by_image = placed.reshape(b, n, *grid, -1)
  return take_in_rows(by_image, targets.index)


def sources_of_prompts(
  batch: PackedBatch, offsets: Int[Array, 'b t'], stride: int
) -> Sources:
  """The images of packed prompts, for the targets that follow each.

  Args:
    batch: one prompt per row.
    offsets: distance of the targets from the middle of their slab, in slices.
    stride: pixels per latent token.

  Raises:
    ValueError: images do not fill their canvas.
  """
  _require_full(batch)
  used = used_canvases(batch, stride)[:, None] > 0
  shown = _per_canvas(batch, stride, batch.latent_offsets)[:, None]
  return Sources(batch.vae_images, used & (shown == offsets[..., None]))


def _per_canvas(
  batch: PackedBatch, stride: int, values: Int[Array, 'b g']
) -> Int[Array, 'b n']:
  """The largest value of the tokens of each canvas; the least int if none."""
  empty = jnp.iinfo(values.dtype).min
  used = batch.gen.example_ids > 0
  rows = jnp.arange(len(values))[:, None]
  return (
    jnp.full(batch.vae_images.shape[:2], empty, values.dtype)
    .at[rows, canvas_of(batch, stride)]
    .max(jnp.where(used, values, empty))
  )


def _require_full(batch: PackedBatch) -> None:
  if batch.latent_index.shape[1] and not batch.image_latents:
    raise ValueError('The detail path needs images that fill their canvas.')
