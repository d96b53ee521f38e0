"""The detail path: what latents lack, from the pixels of an image's sources.

A U-Net around the transformer. Its encoder reads the sources. Between encoder
and decoder, at one place per latent token, it adds the transformer's hidden
states of the target, whose mean also scales and shifts all norms. Its decoder
predicts a factor and a shift for each pixel of the picture of the predicted
latents. BAGEL has no such path; JanusFlow (arXiv 2411.07975) and ResViT
(arXiv 2106.16031) have long skips around a transformer.

Sources and hidden states leave texture and uncertain edges open. White noise on
the features lets the decoder draw them, and its loss, a proper score of two
draws, makes draws vary as the truth does given the sources.

The last convolution starts at zero, so factors start at one and shifts at zero:
a model without the path and the same model with a new one give equal pictures.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.models.canvases import Sources
from synermedgen_jax.models.layers import linear
from synermedgen_jax.models.unet import UNet, UNetConfig

_WIDEST = 512
_GROUP = 16
_TEXTURE = 0.3  # spread of the initial scales of the noise


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
    decoder=1,
    bare_shortcuts=True,
  )


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
    noise: Float[Array, 'k b t h w'],
  ) -> Float[Array, 'k b t h w c']:
    """Draws of the pictures of the targets, with detail.

    Args:
      pictures: those of the predicted latents.
      hidden: hidden states of the latent tokens of the targets.
      sources: what they are made from. A target without any gets its hidden
        states alone.
      noise: standard normal, one image for each draw and target.
    """
    unet = UNet(
      self.config,
      self.dtype,
      2 * self.channels,
      out_init=nn.initializers.zeros,
      name='unet',
    )
    if not sources.seen.shape[2]:  # nothing to encode
      sources = _one_unseen(pictures)
    b, t, s = sources.seen.shape
    weights = sources.seen.astype(self.dtype)
    condition = hidden.mean((2, 3))
    # A source is encoded once for all of its targets.
    of_source = jnp.einsum('bts,bte->bse', _mean_of(weights, 1), condition)
    features = unet.encode(
      sources.images.reshape(b * s, *sources.images.shape[2:]),
      of_source.reshape(b * s, -1),
    )
    share = _mean_of(weights, 2)
    *skips, lowest = (_mixed(share, x) for x in features)
    lowest += linear(
      lowest.shape[-1], ('embed', None), dtype=self.dtype, name='hidden'
    )(hidden).reshape(lowest.shape)
    draws = len(noise)
    drawn = functools.partial(_repeated, draws)
    places = noise.reshape(draws * b * t, *noise.shape[3:], 1)
    change = unet.decode(
      [
        *(
          drawn(x)
          + self._scale(stage, x) * pooled(places, 2**stage).astype(self.dtype)
          for stage, x in enumerate(skips)
        ),
        drawn(lowest),
      ],
      drawn(condition.reshape(b * t, -1)),
    )
    change = change.reshape(draws, b, t, *change.shape[1:])
    factor, shift = jnp.split(change, 2, -1)
    return (1 + factor) * pictures + shift

  def _scale(self, stage, features):
    """The deviation of the noise in each channel of a stage."""
    return self.param(
      f'texture_{stage}',
      nn.initializers.normal(_TEXTURE),
      features.shape[-1:],
    ).astype(self.dtype)


def _repeated(times, x):
  """The batch, several times in a row."""
  return jnp.tile(x, (times, *[1] * (x.ndim - 1)))


def pooled(
  noise: Float[Array, 'n h w 1'], factor: int
) -> Float[Array, 'n _y _x 1']:
  """White noise on a coarser grid: sums over squares, of deviation 1."""
  b, h, w, c = noise.shape
  squares = noise.reshape(b, h // factor, factor, w // factor, factor, c)
  return squares.sum((2, 4)) / factor


def _one_unseen(pictures: Float[Array, 'b t h w c']) -> Sources:
  """A black image per row that no target is made from."""
  b, t, *image = pictures.shape
  return Sources(
    jnp.full((b, 1, *image), -1.0, pictures.dtype), jnp.zeros((b, t, 1), bool)
  )


def _mean_of(weights, axis):
  """Weights that add up to 1 along an axis, or 0 where there are none."""
  return weights / jnp.maximum(weights.sum(axis, keepdims=True), 1)


def _mixed(share, features):
  """Features of sources (b * s, ...) to their means by target (b * t, ...)."""
  b, t, s = share.shape
  by_row = features.reshape(b, s, *features.shape[1:])
  mixed = jnp.einsum('bts,bsyxf->btyxf', share, by_row)
  return mixed.reshape(b * t, *features.shape[1:])
