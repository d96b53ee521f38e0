"""The detail path: what latents lack, from the pixels of an image's sources.

A U-Net around the transformer. Its encoder reads the sources. Between encoder
and decoder, at one place per latent token, it adds the transformer's hidden
states of the target, whose mean also scales and shifts all norms. Its decoder
predicts a factor and a shift for each pixel of the picture of the predicted
latents. BAGEL has no such path; JanusFlow (arXiv 2411.07975) and ResViT
(arXiv 2106.16031) have long skips around a transformer.

The last convolution starts at zero, so factors start at one and shifts at zero:
a model without the path and the same model with a new one give equal pictures.
"""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.core.size import Size
from synermedgen_jax.models.layers import linear, take_in_rows
from synermedgen_jax.models.unet import UNet, UNetConfig

_WIDEST = 512
_GROUP = 16


def detail_unet(width: int, latent_stride: int) -> UNetConfig:
  """The U-Net whose lowest stage has one place per latent token.

  Args:
    width: channels at full resolution, a multiple of 16.
    latent_stride: pixels per latent token along each axis, a power of two.
  """
  stages = latent_stride.bit_length()
  if 2 ** (stages - 1) != latent_stride:
    raise ValueError(
      f'detail {width}: needs latent tokens of 2, 4, 8, ... pixels, and those '
      f'of the model have {latent_stride}.'
    )
  if width < 1 or width % _GROUP:
    raise ValueError(f'detail {width}: is not a multiple of {_GROUP}.')
  return UNetConfig(
    stages=stages,
    width=width,
    widest=_WIDEST,
    group_size=_GROUP,
    residual_blocks=(1,) * stages,
    decoder='residual',
    bare_shortcuts=True,
  )


@flax.struct.dataclass
class Sources:
  """The images that the targets of each row are made from.

  Attributes:
    images: clean canvases.
    seen: whether source `s` precedes target `t` in its example.
  """

  images: Float[Array, 'b s h w c']
  seen: Bool[Array, 'b t s']


class Detail(nn.Module):
  """The detail path.

  Attributes:
    config: shape of the U-Net.
    channels: of an image.
    dtype: of the computation.
  """

  config: UNetConfig
  channels: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    pictures: Float[Array, 'b t h w c'],
    hidden: Float[Array, 'b t y x e'],
    sources: Sources,
  ) -> Float[Array, 'b t h w c']:
    """The pictures of the targets, with detail.

    Args:
      pictures: those of the predicted latents.
      hidden: hidden states of the latent tokens of the targets.
      sources: what they are made from. A target without any gets its hidden
        states alone.
    """
    unet = UNet(
      self.config,
      self.dtype,
      2 * self.channels,
      out_init=nn.initializers.zeros,
      name='unet',
    )
    b, t, s = sources.seen.shape
    weights = sources.seen.astype(self.dtype)
    told = hidden.mean((2, 3))
    # A source is encoded once for all of its targets.
    told_source = jnp.einsum('bts,bte->bse', _mean_of(weights, 1), told)
    features = unet.encode(
      sources.images.reshape(b * s, *sources.images.shape[2:]),
      told_source.reshape(b * s, -1),
    )
    share = _mean_of(weights, 2)
    *skips, lowest = (_mixed(share, x) for x in features)
    lowest += linear(
      lowest.shape[-1], ('embed', None), dtype=self.dtype, name='hidden'
    )(hidden).reshape(lowest.shape)
    change = unet.decode([*skips, lowest], told.reshape(b * t, -1))
    factor, shift = jnp.split(change.reshape(b, t, *change.shape[1:]), 2, -1)
    return (1 + factor) * pictures + shift


def _mean_of(weights, axis):
  """Weights that add up to 1 along an axis, or 0 where there are none."""
  return weights / jnp.maximum(weights.sum(axis, keepdims=True), 1)


def _mixed(share, features):
  """Features of sources (b * s, ...) to their means by target (b * t, ...)."""
  b, t, s = share.shape
  by_row = features.reshape(b, s, *features.shape[1:])
  mixed = jnp.einsum('bts,bsyxf->btyxf', share, by_row)
  return mixed.reshape(b * t, *features.shape[1:])


@flax.struct.dataclass
class Targets:
  """The noised images of a batch; at most one image less than a row has room.

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


def targets_of(batch: PackedBatch) -> Targets:
  """Finds the targets of a batch, and the clean images that they see.

  Raises:
    ValueError: images do not fill their canvas.
  """
  b, n = batch.vae_images.shape[:2]
  canvas = _canvas(batch)
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
  # A target has a source, and a source a target: one image at most is neither.
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


def _canvas(batch: PackedBatch) -> Int[Array, 'b g']:
  """The canvas of each token of the gen stream."""
  if not batch.image_latents:
    raise ValueError('The detail path needs images that fill their canvas.')
  return batch.latent_index // batch.image_latents


def all_sources(batch: PackedBatch) -> Sources:
  """The images of packed prompts, for the one target that follows each."""
  b, n = batch.vae_images.shape[:2]
  real = jnp.zeros((b, n), bool)
  if batch.latent_index.shape[1]:
    canvas = _canvas(batch)
    real = real.at[jnp.arange(b)[:, None], canvas].max(
      batch.gen.example_ids > 0
    )
  return Sources(batch.vae_images, real[:, None])
