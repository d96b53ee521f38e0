"""The U-Net generator of pix2pix, which halves the sides down to one pixel.

Source: junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py (Isola et al.,
CVPR 2017). Weights start as N(0, 0.02), norms' scales as N(1, 0.02).
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.models.convolutions import (
  ConvTranspose,
  batch_norm,
  conv,
  leaky_relu,
  require_sides,
)


@dataclasses.dataclass(frozen=True)
class Pix2PixUNetConfig:
  """The shape of the generator.

  Attributes:
    levels: halvings of the sides, 8 for 256 pixels, 6 for 64.
    channels: those of the first level; each level doubles them, up to 8 times.
    out_channels: those of the output.
  """

  levels: int = 8
  channels: int = 64
  out_channels: int = 1

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each level, from the finest."""
    return tuple(
      self.channels * min(2**level, 8) for level in range(self.levels)
    )

  @property
  def dropout_levels(self) -> range:
    """Levels with dropout on the way up.

    They have 8 times the channels on both sides and are not the innermost
    level; of these, the three innermost.
    """
    innermost = self.levels - 1
    return range(max(4, innermost - 3), innermost)


class Pix2PixUNet(nn.Module):
  """Images to images.

  Attributes:
    config: the shape of the network.
    dtype: of the computation; parameters, norms and output are float32.
  """

  config: Pix2PixUNetConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    train: bool,
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b h w o']:
    """Generates images.

    Args:
      x: any number of channels.
      train: dropout, which takes the random key 'dropout'.
      condition: values of further channels, which are constant.

    Returns:
      Images in [-1, 1].

    Raises:
      ValueError: if the strides do not divide the sides.
    """
    c = self.config
    require_sides(x, 2**c.levels)
    skips = self._encoded(x, condition)
    x = skips.pop()
    for level in reversed(range(1, c.levels)):
      x = ConvTranspose(
        c.widths[level - 1], 4, bias=False, dtype=self.dtype, name=f'up_{level}'
      )(jax.nn.relu(x))
      x = batch_norm(dtype=self.dtype, name=f'up_norm_{level}')(x)
      if level in c.dropout_levels:
        x = nn.Dropout(0.5, deterministic=not train)(x)
      x = jnp.concatenate([skips.pop(), x], axis=-1)
    x = ConvTranspose(c.out_channels, 4, dtype=self.dtype, name='up_0')(
      jax.nn.relu(x)
    )
    return jnp.tanh(x.astype(jnp.float32))

  def _encoded(self, x, condition):
    """Features of every level, from the finest, before their activation."""
    c = self.config
    features = []
    for level, width in enumerate(c.widths):
      x = x if level == 0 else leaky_relu(x)
      x = conv(
        width,
        4,
        stride=2,
        pad=1,
        bias=False,
        dtype=self.dtype,
        name=f'down_{level}',
      )(x, condition if level == 0 else None)
      if 0 < level < c.levels - 1:
        x = batch_norm(dtype=self.dtype, name=f'down_norm_{level}')(x)
      features.append(x)
    return features
