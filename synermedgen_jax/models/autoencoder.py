"""FLUX's KL autoencoder: pictures to latents and back.

ResNet blocks with GroupNorm and SiLU, one attention block in the middle
(BAGEL, modeling/autoencoder.py). `space_to_depth` folds pixels into channels
before the first convolution, which makes small models cheap; FLUX has 1.

A canvas may be larger than its image. With `valid`, norms and attention leave
out the rest and convolutions see zeros there, as beyond the border of the image
alone: its latents do not depend on the canvas.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
  """The shape of the autoencoder (FLUX's terms)."""

  channels: int
  ch: int
  ch_mult: tuple[int, ...]
  num_res_blocks: int
  z_channels: int
  scale_factor: float = 0.3611
  shift_factor: float = 0.1159
  space_to_depth: int = 1
  norm_groups: int = 32

  @property
  def downsample(self) -> int:
    """Pixels per latent, along each axis."""
    return self.space_to_depth * 2 ** (len(self.ch_mult) - 1)


def _conv(features: int, dtype, name=None, *, kernel=3, stride=1):
  # FLUX pads below and to the right alone when it halves the size.
  padding = ((0, 1), (0, 1)) if stride == 2 else 'SAME'
  return nn.Conv(
    features,
    (kernel, kernel),
    (stride, stride),
    padding=padding,
    dtype=dtype,
    name=name,
  )


def _norm(config: AutoencoderConfig, dtype, name, x, valid=None):
  """GroupNorm over the valid places of each canvas."""
  norm = nn.GroupNorm(config.norm_groups, epsilon=1e-6, dtype=dtype, name=name)
  return norm(
    x, mask=None if valid is None else jnp.broadcast_to(valid, x.shape)
  )


def _zero_outside(x, valid):
  """Canvases with zeros outside their images, as a convolution pads."""
  return x if valid is None else jnp.where(valid, x, 0)


def _halved(valid):
  return None if valid is None else valid[:, ::2, ::2]


class ResnetBlock(nn.Module):
  """Two convolutions and a shortcut."""

  config: AutoencoderConfig
  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, valid=None):
    y = nn.silu(_norm(self.config, self.dtype, 'norm1', x, valid))
    y = _conv(self.features, self.dtype, 'conv1')(_zero_outside(y, valid))
    y = nn.silu(_norm(self.config, self.dtype, 'norm2', y, valid))
    y = _conv(self.features, self.dtype, 'conv2')(_zero_outside(y, valid))
    if x.shape[-1] != self.features:
      x = _conv(self.features, self.dtype, 'nin_shortcut', kernel=1)(x)
    return x + y


class AttentionBlock(nn.Module):
  """Single-head attention over all places of a picture."""

  config: AutoencoderConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, valid=None):
    b, h, w, c = x.shape
    y = _norm(self.config, self.dtype, 'norm', x, valid)
    query, key, value = (
      _conv(c, self.dtype, name, kernel=1)(y).reshape(b, h * w, 1, c)
      for name in ('q', 'k', 'v')
    )
    mask = None if valid is None else valid.reshape(b, 1, 1, h * w)
    y = jax.nn.dot_product_attention(query, key, value, mask=mask)
    y = y.reshape(b, h, w, c)
    return x + _conv(c, self.dtype, 'proj_out', kernel=1)(y)


class Middle(nn.Module):
  """The lowest resolution: block, attention, block."""

  config: AutoencoderConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, valid=None):
    features = x.shape[-1]
    x = ResnetBlock(self.config, features, self.dtype, name='block_1')(x, valid)
    x = AttentionBlock(self.config, self.dtype, name='attn_1')(x, valid)
    return ResnetBlock(self.config, features, self.dtype, name='block_2')(
      x, valid
    )


class Encoder(nn.Module):
  """Pictures to the mean and log-variance of their latents."""

  config: AutoencoderConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, valid=None):
    c = self.config
    x = space_to_depth(x, c.space_to_depth)
    if valid is not None:
      valid = valid[:, :: c.space_to_depth, :: c.space_to_depth, None]
    x = _conv(c.ch, self.dtype, 'conv_in')(_zero_outside(x, valid))
    for level, mult in enumerate(c.ch_mult):
      for block in range(c.num_res_blocks):
        x = ResnetBlock(
          c, c.ch * mult, self.dtype, name=f'down_{level}_block_{block}'
        )(x, valid)
      if level != len(c.ch_mult) - 1:
        x = _conv(
          x.shape[-1], self.dtype, f'down_{level}_downsample', stride=2
        )(_zero_outside(x, valid))
        valid = _halved(valid)
    x = Middle(c, self.dtype, name='mid')(x, valid)
    x = nn.silu(_norm(c, self.dtype, 'norm_out', x, valid))
    return _conv(2 * c.z_channels, self.dtype, 'conv_out')(
      _zero_outside(x, valid)
    )


class Decoder(nn.Module):
  """Latents to pictures."""

  config: AutoencoderConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, z):
    c = self.config
    x = _conv(c.ch * c.ch_mult[-1], self.dtype, 'conv_in')(z)
    x = Middle(c, self.dtype, name='mid')(x)
    for level, mult in reversed(list(enumerate(c.ch_mult))):
      for block in range(c.num_res_blocks + 1):
        x = ResnetBlock(
          c, c.ch * mult, self.dtype, name=f'up_{level}_block_{block}'
        )(x)
      if level:
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        x = _conv(x.shape[-1], self.dtype, f'up_{level}_upsample')(x)
    x = nn.silu(_norm(c, self.dtype, 'norm_out', x))
    x = _conv(c.channels * c.space_to_depth**2, self.dtype, 'conv_out')(x)
    return depth_to_space(x, c.space_to_depth)


class Autoencoder(nn.Module):
  """Encoder, decoder, and the affine map that gives latents unit scale.

  `latent_shift` and `latent_scale` are parameters that no optimiser touches:
  FLUX's constants, or what stage 0 measured on its own latents.
  """

  config: AutoencoderConfig
  dtype: jnp.dtype

  def setup(self):
    c = self.config
    self.encoder = Encoder(c, self.dtype)
    self.decoder = Decoder(c, self.dtype)

    def constant(name, value):
      return self.param(name, nn.initializers.constant(value), (c.z_channels,))

    self.latent_shift = constant('latent_shift', c.shift_factor)
    self.latent_scale = constant('latent_scale', c.scale_factor)

  def moments(
    self,
    images: Float[Array, 'b h w c'],
    valid: Bool[Array, 'b h w'] | None = None,
  ) -> tuple[Float[Array, 'b y x z'], Float[Array, 'b y x z']]:
    """Mean and log-variance of the posterior, before shift and scale.

    Args:
      images: canvases, with the image in the upper left corner.
      valid: pixels of the image, in whole latents; None = all.
    """
    mean, logvar = jnp.split(
      self.encoder(images, valid).astype(jnp.float32), 2, axis=-1
    )
    return mean, jnp.clip(logvar, -30.0, 20.0)

  def encode(
    self,
    images: Float[Array, 'b h w c'],
    valid: Bool[Array, 'b h w'] | None = None,
  ) -> Float[Array, 'b y x z']:
    """The posterior mean as the latent that the MoT reads and writes.

    Args:
      images, valid: as of `moments`.
    """
    mean, _ = self.moments(images, valid)
    return (mean - self.latent_shift) * self.latent_scale

  def decode(self, latents: Float[Array, 'b y x z']) -> Float[Array, 'b h w c']:
    """Pictures in [-1, 1], not clipped."""
    return self.decode_raw(latents / self.latent_scale + self.latent_shift)

  def decode_raw(self, z):
    """Pictures from latents before shift and scale."""
    return self.decoder(z.astype(self.dtype)).astype(jnp.float32)

  def __call__(self, images):
    return self.decode(self.encode(images))


def space_to_depth(
  x: Float[Array, 'b h w c'], factor: int
) -> Float[Array, 'b y x d']:
  """Folds factor x factor places into channels, (row, column, channel)."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // factor, factor, w // factor, factor, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(
    b, h // factor, w // factor, factor * factor * c
  )


def depth_to_space(
  x: Float[Array, 'b y x d'], factor: int
) -> Float[Array, 'b h w c']:
  """The inverse of `space_to_depth`."""
  b, h, w, d = x.shape
  x = x.reshape(b, h, w, factor, factor, d // factor**2)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(
    b, h * factor, w * factor, d // factor**2
  )
