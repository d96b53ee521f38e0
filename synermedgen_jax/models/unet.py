"""The regression U-Net, in nnU-Net's style.

The 2-D networks of nnU-Net (MIC-DKFZ/dynamic-network-architectures,
architectures/unet.py, PlainConvUNet, ResidualEncoderUNet and ResidualUNet) with
one linear output channel, without deep supervision, as aehrc/nnsyn regresses
images.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.models.convolutions import (
  ConvTranspose,
  GroupNorm,
  conv,
  require_sides,
)

_SLOPE = 0.01

_leaky_relu = functools.partial(jax.nn.leaky_relu, negative_slope=_SLOPE)
_GAIN = 2 / (1 + _SLOPE**2)
_HE = nn.initializers.variance_scaling(_GAIN, 'fan_in', 'normal')
# A shortcut alone keeps the variance of its input.
_LECUN = nn.initializers.lecun_normal()
# PyTorch takes the output channels of a transposed convolution for its fan-in.
_HE_TRANSPOSED = nn.initializers.variance_scaling(_GAIN, 'fan_out', 'normal')


@dataclasses.dataclass(frozen=True)
class UNetConfig:
  """The shape of the U-Net.

  Attributes:
    stages: resolutions; nnU-Net halves the sides until 4 pixels are left, in 7
      stages from 256 pixels, in 5 from 64.
    width: channels of the first stage; each stage doubles them.
    widest: channels never exceed this number.
    group_size: channels that a norm takes together; nnU-Net's is an
      InstanceNorm, 1.
    residual_blocks: residual blocks in each stage of the encoder, behind a stem
      of one convolution; empty = two convolutions a stage, and no stem.
    decoder: convolutions in each stage of the decoder, or 'residual' for one
      residual block.
    bare_shortcuts: shortcuts have no norm, and no stem precedes them, so that
      the intensity levels of the image reach the output. nnU-Net has a stem and
      norms its shortcuts.

  Raises:
    ValueError: residual blocks that do not fit the stages.
  """

  stages: int = 7
  width: int = 32
  widest: int = 512
  group_size: int = 1
  residual_blocks: tuple[int, ...] = ()
  decoder: int | Literal['residual'] = 2
  bare_shortcuts: bool = False

  def __post_init__(self):
    if self.residual_blocks and len(self.residual_blocks) != self.stages:
      raise ValueError(
        f'residual_blocks {self.residual_blocks}: not one number for each of '
        f'{self.stages} stages'
      )
    if self.bare_shortcuts and not self.residual_blocks:
      raise ValueError('bare_shortcuts: there are no residual_blocks')

  @property
  def has_stem(self) -> bool:
    """Whether a convolution precedes the first stage."""
    return bool(self.residual_blocks) and not self.bare_shortcuts

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each stage, from the finest."""
    return tuple(
      min(self.width * 2**stage, self.widest) for stage in range(self.stages)
    )


class ConvNorm(nn.Module):
  """A convolution and a norm with scale and shift."""

  features: int
  dtype: jnp.dtype
  kernel: int = 3
  stride: int = 1
  bias: bool = True
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  group_size: int = 1

  @nn.compact
  def __call__(self, x, condition=None):
    x = conv(
      self.features,
      self.kernel,
      stride=self.stride,
      bias=self.bias,
      init=_HE,
      dtype=self.dtype,
      name='conv',
    )(x)
    return GroupNorm(
      self.group_size,
      affine=True,
      scale_init=self.scale_init,
      dtype=self.dtype,
      name='norm',
    )(x, condition)


class Stage(nn.Module):
  """Convolutions at one resolution, the first of them strided."""

  features: int
  convs: int
  dtype: jnp.dtype
  stride: int = 1
  group_size: int = 1

  @nn.compact
  def __call__(self, x, condition=None):
    for number in range(self.convs):
      stride = self.stride if number == 0 else 1
      x = ConvNorm(
        self.features,
        self.dtype,
        stride=stride,
        group_size=self.group_size,
        name=f'conv_{number}',
      )(x, condition)
      x = _leaky_relu(x)
    return x


class ResidualBlock(nn.Module):
  """Two convolutions and a shortcut, as in ResNet-D (arXiv 1812.01187).

  The shortcut is pooled where the block is strided, and projected where the
  number of channels changes, without a norm if it is bare. The block starts as
  its shortcut: the last norm's scale is 0.
  """

  features: int
  dtype: jnp.dtype
  stride: int = 1
  group_size: int = 1
  bare: bool = False

  @nn.compact
  def __call__(self, x, condition=None):
    norm = functools.partial(
      ConvNorm, self.features, self.dtype, group_size=self.group_size
    )
    y = norm(stride=self.stride, name='conv_0')(x, condition)
    y = norm(
      scale_init=nn.initializers.zeros,
      name='conv_1',
    )(_leaky_relu(y), condition)
    if self.stride > 1:
      window = (self.stride, self.stride)
      x = nn.avg_pool(x, window, strides=window)
    if x.shape[-1] != self.features and self.bare:
      x = conv(
        self.features, 1, init=_LECUN, dtype=self.dtype, name='shortcut'
      )(x)
    elif x.shape[-1] != self.features:
      x = norm(kernel=1, bias=False, name='shortcut')(x, condition)
    return _leaky_relu(x + y)


class ResidualStage(nn.Module):
  """Residual blocks at one resolution, the first of them strided."""

  features: int
  depth: int
  dtype: jnp.dtype
  stride: int = 1
  group_size: int = 1
  bare: bool = False

  @nn.compact
  def __call__(self, x, condition=None):
    for number in range(self.depth):
      stride = self.stride if number == 0 else 1
      x = ResidualBlock(
        self.features,
        self.dtype,
        stride,
        self.group_size,
        self.bare,
        name=f'block_{number}',
      )(x, condition)
    return x


class UNet(nn.Module):
  """Images to images.

  Attributes:
    config: the shape of the network.
    channels: of the output.
    out_init: initialiser of the last convolution.
    dtype: of the computation; parameters, norms and output are float32.
  """

  config: UNetConfig
  dtype: jnp.dtype = jnp.float32
  channels: int = 1
  out_init: nn.initializers.Initializer = _HE

  def setup(self):
    c = self.config
    shape = {'dtype': self.dtype, 'group_size': c.group_size}
    if c.has_stem:
      self.stem = Stage(c.width, 1, **shape)
    self.down = [self._down(stage, shape) for stage in range(c.stages)]
    finer = range(c.stages - 1)
    self.up = [self._up(stage, shape) for stage in finer]
    self.upsample = [
      ConvTranspose(
        c.widths[stage], 2, kernel_init=_HE_TRANSPOSED, dtype=self.dtype
      )
      for stage in finer
    ]
    self.out = conv(self.channels, 1, init=self.out_init, dtype=self.dtype)

  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b h w d']:
    """Predicts images.

    Args:
      x: any number of channels.
      condition: scales and shifts all norms.

    Returns:
      Images, not bounded.

    Raises:
      ValueError: if the strides do not divide the sides, or if the lowest
        stage were one pixel, which InstanceNorm makes constant.
    """
    return self.decode(self.encode(x, condition), condition)

  def encode(
    self,
    x: Float[Array, 'b h w c'],
    condition: Float[Array, 'b k'] | None = None,
  ) -> list[Float[Array, 'b _y _x _f']]:
    """Features of every stage, from the finest; arguments as of a call."""
    downsample = 2 ** (self.config.stages - 1)
    smallest = 2 * downsample if self.config.group_size == 1 else downsample
    require_sides(x, downsample, smallest)
    if self.config.has_stem:
      x = self.stem(x, condition)
    features = []
    for stage in self.down:
      x = stage(x, condition)
      features.append(x)
    return features

  def decode(
    self,
    features: Sequence[Float[Array, 'b _y _x _f']],
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b h w d']:
    """Images from the features of every stage; see `encode`."""
    *skips, x = features
    for upsample, up, skip in reversed(
      list(zip(self.upsample, self.up, skips, strict=True))
    ):
      x = up(jnp.concatenate([upsample(x), skip], axis=-1), condition)
    return self.out(x).astype(jnp.float32)

  def _up(self, stage, shape):
    c = self.config
    if c.decoder == 'residual':
      return ResidualStage(c.widths[stage], 1, bare=c.bare_shortcuts, **shape)
    return Stage(c.widths[stage], c.decoder, **shape)

  def _down(self, stage, shape):
    c, stride = self.config, 1 if stage == 0 else 2
    if c.residual_blocks:
      return ResidualStage(
        c.widths[stage],
        c.residual_blocks[stage],
        stride=stride,
        bare=c.bare_shortcuts,
        **shape,
      )
    return Stage(c.widths[stage], 2, stride=stride, **shape)
