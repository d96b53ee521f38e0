"""The U-Net of ADM, which predicts the steps of BBDM.

Source: Dhariwal and Nichol, 2021 (arXiv 2105.05233), as in xuekt98/BBDM,
model/BrownianBridge/base/modules/diffusionmodules/openaimodel.py. BBDM's
template asks for attention at places of 8, 16 and 32 pixels. The lowest level
has places of 4 pixels, so attention is in the middle alone.

Weights start as N(0, 0.02) (BBDM, runners/utils.py), but for the last layer of
the attention, which starts at zero: it is a Conv1d there, which BBDM's
initialisation does not reach.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from synermedgen_jax.models.convolutions import (
  NORMAL,
  conv,
  require_sides,
)
from synermedgen_jax.models.layers import timestep_features


@dataclasses.dataclass(frozen=True)
class ADMUNetConfig:
  """The shape of the network; by default BBDM's, 237.09 M parameters.

  Attributes:
    channels: of the first level; the time embedding has 4 times as many.
    multipliers: channels of each level, in units of `channels`; a level has
      half the height and width of the one before.
    blocks: residual blocks of a level on the way down; there is one more on the
      way up.
    head: widest attention head; a head's width divides the channels of the
      lowest level.
    out_channels: those of the output.
  """

  channels: int = 128
  multipliers: tuple[int, ...] = (1, 4, 8)
  blocks: int = 2
  head: int = 64
  out_channels: int = 3

  @property
  def stride(self) -> int:
    """Pixels per place of the lowest level, along each axis."""
    return 2 ** (len(self.multipliers) - 1)

  @property
  def heads(self) -> int:
    """Heads of the attention of the lowest level."""
    channels = self.channels * self.multipliers[-1]
    return channels // math.gcd(channels, self.head)


class ResBlock(nn.Module):
  """Two convolutions, whose second norm is modulated by time, and a shortcut.

  Attributes:
    features: channels of the result.
    dtype: of the result.
    resample: `halved` or `doubled`, applied to the branch and to the shortcut;
      None: the block keeps height and width.
  """

  features: int
  dtype: jnp.dtype
  resample: Callable | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], time: Float[Array, 'b f']
  ) -> Float[Array, 'b y x d']:
    y = nn.silu(_group_norm(x.shape[-1], self.dtype, 'norm1')(x))
    if self.resample:
      x, y = self.resample(x), self.resample(y)
    y = conv(self.features, 3, dtype=self.dtype, name='conv1')(y)
    modulation = _dense(2 * self.features, self.dtype, 'time')(time)
    scale, shift = jnp.split(modulation[:, None, None], 2, axis=-1)
    y = _group_norm(self.features, self.dtype, 'norm2')(y) * (1 + scale) + shift
    y = conv(self.features, 3, dtype=self.dtype, name='conv2')(nn.silu(y))
    if x.shape[-1] != self.features:
      x = conv(self.features, 1, dtype=self.dtype, name='shortcut')(x)
    return x + y


class AttentionBlock(nn.Module):
  """Self-attention over all places of an image; starts as the identity."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    b, h, w, c = x.shape
    y = _group_norm(c, self.dtype, 'norm')(x)
    query, key, value = (
      conv(c, 1, dtype=self.dtype, name=name)(y).reshape(
        b, h * w, self.heads, -1
      )
      for name in ('query', 'key', 'value')
    )
    y = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
    zeros = nn.initializers.zeros
    return x + conv(c, 1, init=zeros, dtype=self.dtype, name='out')(y)


class ADMUNet(nn.Module):
  """Images of a diffusion process and their steps to images.

  Attributes:
    config: the shape of the network.
    dtype: of the computation; parameters and output are float32.
  """

  config: ADMUNetConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], t: Real[Array, ' b']
  ) -> Float[Array, 'b h w o']:
    """Predicts images.

    Args:
      x: images, with their conditions as further channels.
      t: the step of each image.

    Returns:
      Images, not bounded.

    Raises:
      ValueError: height or width is not a multiple of `config.stride`.
    """
    c, dtype = self.config, self.dtype
    require_sides(x, c.stride)
    time = self._time_embedding(t)
    skips = self._encoded(x.astype(dtype), time)
    x = skips[-1]
    x = ResBlock(x.shape[-1], dtype, name='middle_block1')(x, time)
    x = AttentionBlock(c.heads, dtype, name='middle_attention')(x)
    x = ResBlock(x.shape[-1], dtype, name='middle_block2')(x, time)
    x = self._decoded(x, skips, time)
    x = nn.silu(_group_norm(x.shape[-1], dtype, 'norm_out')(x))
    x = conv(c.out_channels, 3, dtype=dtype, name='conv_out')(x)
    return x.astype(jnp.float32)

  def _time_embedding(self, t):
    """Features of the steps, activated for the dense layers of the blocks."""
    c = self.config
    x = timestep_features(t.astype(jnp.float32), c.channels)
    for name in ('time1', 'time2'):
      x = nn.silu(_dense(4 * c.channels, self.dtype, name)(x))
    return x

  def _encoded(self, x, time):
    """Results of all layers on the way down; the last is the lowest level."""
    c = self.config
    skips = [conv(c.channels, 3, dtype=self.dtype, name='conv_in')(x)]
    for level, multiplier in enumerate(c.multipliers):
      features = c.channels * multiplier
      for block in range(c.blocks):
        name = f'down{level}_block{block}'
        skips.append(ResBlock(features, self.dtype, name=name)(skips[-1], time))
      if level < len(c.multipliers) - 1:
        down = ResBlock(features, self.dtype, halved, name=f'down{level}_half')
        skips.append(down(skips[-1], time))
    return skips

  def _decoded(self, x, skips, time):
    """Features at full resolution; a skip joins each block."""
    c, skips = self.config, list(skips)
    for level, multiplier in reversed(list(enumerate(c.multipliers))):
      features = c.channels * multiplier
      for block in range(c.blocks + 1):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        name = f'up{level}_block{block}'
        x = ResBlock(features, self.dtype, name=name)(x, time)
      if level:
        up = ResBlock(features, self.dtype, doubled, name=f'up{level}_double')
        x = up(x, time)
    return x


def halved(x: Float[Array, 'b h w c']) -> Float[Array, 'b y x c']:
  """Means of 2 x 2 pixels."""
  return nn.avg_pool(x, (2, 2), strides=(2, 2))


def doubled(x: Float[Array, 'b h w c']) -> Float[Array, 'b y x c']:
  """Each pixel becomes 2 x 2 equal ones."""
  return x.repeat(2, axis=1).repeat(2, axis=2)


def groups(channels: int) -> int:
  """Groups of a GroupNorm: 32 of 128 channels or more.

  Narrow layers have fewer, with at least 4 channels each: a norm of single
  channels would remove the mean of each channel.
  """
  most = min(32, max(1, channels // 4))
  return max(n for n in range(1, most + 1) if channels % n == 0)


def _group_norm(channels, dtype, name):
  return nn.GroupNorm(groups(channels), epsilon=1e-5, dtype=dtype, name=name)


def _dense(features, dtype, name):
  return nn.Dense(features, kernel_init=NORMAL, dtype=dtype, name=name)
