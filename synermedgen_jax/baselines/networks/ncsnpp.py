"""NCSN++ as the generator of an adversarial diffusion model.

A U-Net of BigGAN residual blocks that resample with an FIR filter, with a
residual pyramid of the input (Song et al., 2021, Score-SDE: NCSN++). A latent z
modulates the GroupNorms of its blocks, so that one noised image has many
denoised ones (Xiao et al., 2022, DDGAN). SynDiff and SelfRDB use it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from synermedgen_jax.baselines.networks import fir
from synermedgen_jax.models.convolutions import conv
from synermedgen_jax.models.layers import timestep_features

# Score-SDE's initialisation; the last layer of a residual branch starts near
# zero, and so does the network's.
FAN_AVERAGE = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
NEAR_ZERO = nn.initializers.variance_scaling(1e-10, 'fan_avg', 'uniform')
_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class NCSNppConfig:
  """The shape of the network; by default SynDiff's, 39.73 M parameters.

  Attributes:
    channels: of the first level.
    multipliers: channels of each level, in units of `channels`; a level has
      half the height and width of the one before.
    blocks: residual blocks of a level, on the way down.
    attention_levels: levels with self-attention, besides the lowest one's.
      Level n attends over places of 2^n pixels. Level 4 is the published
      choice, 16 x 16 places of an image of 256 x 256. It is a level and not a
      number of places: so the parameters fit images of any size, and those
      that are not square. For 16 x 16 places of 64 x 64 pixels, take level 2.
    noise: features of the latent z.
    style: features of the mapped latent, which modulates the norms.
    mapping_layers: of the mapped latent, besides the layer from z.
    time: features of the time embedding.
  """

  channels: int = 64
  multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
  blocks: int = 2
  attention_levels: tuple[int, ...] = (4,)
  noise: int = 100
  style: int = 256
  mapping_layers: int = 3
  time: int = 256

  def __post_init__(self):
    absent = set(self.attention_levels) - set(range(len(self.multipliers)))
    if absent:
      raise ValueError(
        f'Attention is asked for at levels {sorted(absent)}, but the levels '
        f'are 0 to {len(self.multipliers) - 1}.'
      )

  @property
  def stride(self) -> int:
    """Pixels per place of the lowest level, along each axis."""
    return 2 ** (len(self.multipliers) - 1)


class TimeEmbedding(nn.Module):
  """A time to a vector: sinusoids and two activated dense layers.

  Attributes:
    sinusoids: features of the time before the dense layers.
    features: of the result.
    activation: after each layer.
    dtype: of the result.
  """

  sinusoids: int
  features: int
  activation: Callable
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, t: Real[Array, ' b']) -> Float[Array, 'b f']:
    x = timestep_features(t.astype(jnp.float32), self.sinusoids)
    for name in ('dense1', 'dense2'):
      x = self.activation(_dense(self.features, self.dtype, name)(x))
    return x


class Mapping(nn.Module):
  """The latent z to the style that modulates the norms."""

  config: NCSNppConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, z: Float[Array, 'b n']) -> Float[Array, 'b s']:
    z = z.astype(jnp.float32)
    power = jnp.square(z).mean(-1, keepdims=True)
    x = z * jax.lax.rsqrt(power + 1e-8)
    for layer in range(1 + self.config.mapping_layers):
      x = nn.silu(_dense(self.config.style, self.dtype, f'dense{layer}')(x))
    return x


class AdaptiveGroupNorm(nn.Module):
  """GroupNorm whose scale and shift are affine functions of the style."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], style: Float[Array, 'b s']
  ) -> Float[Array, 'b h w c']:
    channels = x.shape[-1]
    scale, shift = (
      _dense(channels, self.dtype, name, bias=bias)(style)[:, None, None]
      for name, bias in (('scale', 1.0), ('shift', 0.0))
    )
    return scale * _group_norm(channels, self.dtype, affine=False)(x) + shift


class ResBlock(nn.Module):
  """BigGAN's residual block: two convolutions and a shortcut.

  Attributes:
    features: channels of the result.
    dtype: of the result.
    resample: of `fir`, applied to the branch and to the shortcut; None: the
      block keeps height and width.
  """

  features: int
  dtype: jnp.dtype
  resample: Callable | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    time: Float[Array, 'b f'],
    style: Float[Array, 'b s'],
  ) -> Float[Array, 'b y x d']:
    y = nn.silu(AdaptiveGroupNorm(self.dtype, name='norm1')(x, style))
    if self.resample:
      x, y = self.resample(x), self.resample(y)
    y = _conv(self.features, 3, self.dtype, 'conv1')(y)
    y += _dense(self.features, self.dtype, 'time')(time)[:, None, None]
    y = nn.silu(AdaptiveGroupNorm(self.dtype, name='norm2')(y, style))
    y = _conv(self.features, 3, self.dtype, 'conv2', init=NEAR_ZERO)(y)
    if self.resample or x.shape[-1] != self.features:
      x = _conv(self.features, 1, self.dtype, 'shortcut')(x)
    return _skip_sum(x, y)


class AttentionBlock(nn.Module):
  """Single-head self-attention over all places of an image."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    b, h, w, c = x.shape
    y = _group_norm(c, self.dtype, name='norm')(x)
    query, key, value = (
      _conv(c, 1, self.dtype, name)(y).reshape(b, h * w, 1, c)
      for name in ('query', 'key', 'value')
    )
    y = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
    return _skip_sum(x, _conv(c, 1, self.dtype, 'out', init=NEAR_ZERO)(y))


class Encoder(nn.Module):
  """The way down: the lowest level, and the skips of all levels."""

  config: NCSNppConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    time: Float[Array, 'b f'],
    style: Float[Array, 'b s'],
  ) -> list[Float[Array, 'b _ _ _']]:
    """The results of all layers, each a skip; the last is the lowest level."""
    c, dtype = self.config, self.dtype
    pyramid = x
    skips = [_conv(c.channels, 3, dtype, 'conv_in')(x)]
    for level, multiplier in enumerate(c.multipliers):
      features = c.channels * multiplier
      for block in range(c.blocks):
        name = f'level{level}_block{block}'
        y = ResBlock(features, dtype, name=name)(skips[-1], time, style)
        if level in c.attention_levels:
          y = AttentionBlock(dtype, name=f'level{level}_attention{block}')(y)
        skips.append(y)
      if level < len(c.multipliers) - 1:
        down = ResBlock(
          features, dtype, fir.downsample, name=f'level{level}_down'
        )
        y = down(skips[-1], time, style)
        pyramid = _halving_conv(features, dtype, f'level{level}_pyramid')(
          fir.blur(pyramid)
        )
        pyramid = _skip_sum(pyramid, y)
        skips.append(pyramid)
    return skips


class Middle(nn.Module):
  """The lowest level: block, attention, block."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, time, style):
    features = x.shape[-1]
    x = ResBlock(features, self.dtype, name='block1')(x, time, style)
    x = AttentionBlock(self.dtype, name='attention')(x)
    return ResBlock(features, self.dtype, name='block2')(x, time, style)


class Decoder(nn.Module):
  """The way up: a skip joins each block."""

  config: NCSNppConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b y x d'],
    skips: list[Float[Array, 'b _ _ _']],
    time: Float[Array, 'b f'],
    style: Float[Array, 'b s'],
  ) -> Float[Array, 'b h w c']:
    c, dtype = self.config, self.dtype
    skips = list(skips)
    for level, multiplier in reversed(list(enumerate(c.multipliers))):
      features = c.channels * multiplier
      for block in range(c.blocks + 1):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        name = f'level{level}_block{block}'
        x = ResBlock(features, dtype, name=name)(x, time, style)
      if level in c.attention_levels:
        x = AttentionBlock(dtype, name=f'level{level}_attention')(x)
      if level:
        up = ResBlock(features, dtype, fir.upsample, name=f'level{level}_up')
        x = up(x, time, style)
    return x


class NCSNpp(nn.Module):
  """A noised image, its condition and a latent to the denoised image.

  Attributes:
    config: the shape.
    dtype: of the computation; parameters are float32.
  """

  config: NCSNppConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    t: Real[Array, ' b'],
    z: Float[Array, 'b n'],
  ) -> Float[Array, 'b h w 1']:
    """Predicts the clean image.

    Args:
      x: the noised image in [-1, 1] and noise, with its condition as further
        channels; height and width are multiples of `config.stride`.
      t: the number of each image's step.
      z: `config.noise` standard normal features per image.

    Returns:
      Float32 images in [-1, 1].

    Raises:
      ValueError: height or width is not a multiple of `config.stride`.
    """
    c, dtype = self.config, self.dtype
    fir.require_sides(x, c.stride)
    time = TimeEmbedding(c.channels, c.time, nn.silu, dtype, name='time')(t)
    style = Mapping(c, dtype, name='mapping')(z)
    skips = Encoder(c, dtype, name='down')(x.astype(dtype), time, style)
    y = Middle(dtype, name='middle')(skips[-1], time, style)
    y = Decoder(c, dtype, name='up')(y, skips, time, style)
    y = nn.silu(_group_norm(y.shape[-1], dtype, name='norm_out')(y))
    # SynDiff's network has two output channels and uses the first.
    y = _conv(2, 3, dtype, 'conv_out', init=NEAR_ZERO)(y)[..., :1]
    return jnp.tanh(y.astype(jnp.float32))


def _conv(features, kernel, dtype, name, *, init=FAN_AVERAGE):
  return conv(features, kernel, init=init, dtype=dtype, name=name)


def _halving_conv(features, dtype, name):
  """A convolution of stride 2 of what `fir.blur` returns."""
  return conv(
    features, 3, stride=2, pad=0, init=FAN_AVERAGE, dtype=dtype, name=name
  )


def _dense(features, dtype, name, *, bias=0.0):
  return nn.Dense(
    features,
    kernel_init=FAN_AVERAGE,
    bias_init=nn.initializers.constant(bias),
    dtype=dtype,
    name=name,
  )


def _group_norm(channels, dtype, *, affine=True, name=None):
  return nn.GroupNorm(
    min(channels // 4, 32),
    epsilon=_EPSILON,
    use_scale=affine,
    use_bias=affine,
    dtype=dtype,
    name=name,
  )


def _skip_sum(x, y):
  """The sum of two terms, with the variance of one."""
  return (x + y) / math.sqrt(2)
