"""The PatchGAN discriminator, which judges overlapping patches of 70 pixels.

Source: junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py (Isola et al.,
CVPR 2017). pix2pix and ResViT use it with BatchNorm, CycleGAN and SynDiff with
InstanceNorm.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.models.convolutions import (
  InstanceNorm,
  batch_norm,
  conv,
  leaky_relu,
  require_sides,
)


class PatchGAN(nn.Module):
  """Images to one logit per patch.

  Attributes:
    norm: 'batch' (with scale and shift) or 'instance' (without); both take the
      statistics of each image.
    channels: those of the first convolution.
    dtype: of the computation; parameters, norms and output are float32.
  """

  norm: Literal['batch', 'instance']
  channels: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b y x 1']:
    """Judges patches.

    Args:
      x: images.
      condition: values of further channels, which are constant.

    Returns:
      Logits; y = h / 8 - 2, x = w / 8 - 2. Neighbours are 8 pixels apart.

    Raises:
      ValueError: if the strides do not divide the sides, or no patch is left.
    """
    require_sides(x, 8, 24)
    for number, (factor, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1))):
      layer = conv(
        factor * self.channels,
        4,
        stride=stride,
        pad=1,
        # Batch normalisation has a shift of its own.
        bias=number == 0 or self.norm == 'instance',
        dtype=self.dtype,
        name=f'conv_{number}',
      )
      if number:
        x = self._normalised(layer(x), f'norm_{number}')
      else:
        x = layer(x, condition)
      x = leaky_relu(x)
    x = conv(1, 4, pad=1, dtype=self.dtype, name='out')(x)
    return x.astype(jnp.float32)

  def _normalised(self, x, name):
    match self.norm:
      case 'batch':
        return batch_norm(dtype=self.dtype, name=name)(x)
      case 'instance':
        return InstanceNorm(dtype=self.dtype, name=name)(x)
    raise ValueError(f"norm is 'batch' or 'instance', not {self.norm!r}")
