"""The ResNet generator of CycleGAN.

Source: junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py (Zhu et al.,
ICCV 2017; Johnson et al., ECCV 2016). Norms have no scale and no shift. SynDiff
uses it with 6 blocks.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.models.convolutions import (
  ConvTranspose,
  InstanceNorm,
  conv,
  reflect_pad,
  require_sides,
)


class ResnetBlock(nn.Module):
  """Two convolutions of mirrored images and a shortcut."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    y = x
    for number in range(2):
      y = conv(x.shape[-1], 3, pad=0, dtype=self.dtype, name=f'conv_{number}')(
        reflect_pad(y, 1)
      )
      y = InstanceNorm(dtype=self.dtype)(y)
      if number == 0:
        y = jax.nn.relu(y)
    return x + y


class ResnetGenerator(nn.Module):
  """Images and condition planes to images.

  Attributes:
    blocks: residual blocks at a quarter of the resolution, 9 or 6.
    width: channels at full resolution.
    out_channels: those of the output.
    dtype: of the computation; parameters, norms and output are float32.
  """

  blocks: int = 9
  width: int = 64
  out_channels: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w o']:
    """Generates images.

    Args:
      x: any number of channels.

    Returns:
      Images in [-1, 1].

    Raises:
      ValueError: if the strides do not divide the sides, or if the blocks have
        fewer than the two pixels that a mirror needs.
    """
    require_sides(x, 4, 8)
    dtype = self.dtype

    def norm_relu(x):
      return jax.nn.relu(InstanceNorm(dtype=dtype)(x))

    x = conv(self.width, 7, pad=0, dtype=dtype, name='stem')(reflect_pad(x, 3))
    x = norm_relu(x)
    for level in (1, 2):
      features, name = self.width * 2**level, f'down_{level}'
      x = conv(features, 3, stride=2, dtype=dtype, name=name)(x)
      x = norm_relu(x)
    for number in range(self.blocks):
      x = ResnetBlock(dtype, name=f'block_{number}')(x)
    for level in (1, 0):
      features, name = self.width * 2**level, f'up_{level}'
      x = norm_relu(ConvTranspose(features, 3, dtype=dtype, name=name)(x))
    x = conv(self.out_channels, 7, pad=0, dtype=dtype, name='out')(
      reflect_pad(x, 3)
    )
    return jnp.tanh(x.astype(jnp.float32))
