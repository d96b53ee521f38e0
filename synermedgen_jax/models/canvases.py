"""The canvases of a packed batch: which hold images, targets and sources."""

from __future__ import annotations

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
    seen: whether source `s` precedes target `t` in its example.
  """

  images: Float[Array, 'b s h w c']
  seen: Bool[Array, 'b t s']


@flax.struct.dataclass
class Targets:
  """The noised images of a batch, at most one less than a row has canvases.

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
  b, n = batch.vae_images.shape[:2]
  canvas = canvas_of(batch, stride)
  rows = jnp.arange(b)[:, None]
  used = batch.gen.example_ids > 0

  def per_canvas(values, empty):
    """The largest value of the tokens of each canvas."""
    start = jnp.full((b, n), empty, values.dtype)
    return start.at[rows, canvas].max(jnp.where(used, values, empty))

  noised = per_canvas(batch.noise_ids, 0) > 0
  clean = (per_canvas(batch.gen.example_ids, 0) > 0) & ~noised
  order = per_canvas(batch.gen.order, -1)
  first, last = (
    per_canvas(x, -1) for x in (batch.gen.visible_from, batch.gen.visible_to)
  )
  # Nearly every target has a source in its row. A row of targets alone, whose
  # sources were all dropped, leaves its last one out.
  room = max(n - 1, 1)
  targets, sources = (
    jnp.argsort(~kind, axis=1, stable=True)[:, :room]
    for kind in (noised, clean)
  )
  real = jnp.take_along_axis(noised, targets, 1)
  at_target = jnp.take_along_axis(order, targets, 1)[..., None]
  after, before, is_clean = (
    jnp.take_along_axis(x, sources, 1)[:, None] for x in (first, last, clean)
  )
  seen = (after <= at_target) & (at_target < before) & is_clean
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


def all_sources(batch: PackedBatch, stride: int) -> Sources:
  """The images of packed prompts, for the one target that follows each.

  Args:
    batch: one prompt per row.
    stride: pixels per latent token.

  Raises:
    ValueError: images do not fill their canvas.
  """
  _require_full(batch)
  used = used_canvases(batch, stride)
  return Sources(batch.vae_images, used[:, None] > 0)


def _require_full(batch: PackedBatch) -> None:
  if batch.latent_index.shape[1] and not batch.image_latents:
    raise ValueError('The detail path needs images that fill their canvas.')
