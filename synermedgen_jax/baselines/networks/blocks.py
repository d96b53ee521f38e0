"""Layers that several networks share.

Convolutions are named after PyTorch's, in which the systems were published.
Images are (b, h, w, c).
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The initialisation of pix2pix, CycleGAN and BBDM.
NORMAL = nn.initializers.normal(0.02)
_EPSILON = 1e-5

leaky_relu = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)


def _around_one(key, shape, dtype=jnp.float32):
  return 1 + nn.initializers.normal(0.02)(key, shape, dtype)


class InstanceNorm(nn.Module):
  """Normalisation of each channel of each image.

  It removes constant planes, and with them a condition that was concatenated
  to the image. A condition therefore comes after it, as scale and shift
  (conditional instance normalisation, arXiv 1610.07629), which start at one and
  zero.

  Attributes:
    affine: learn a scale and a shift.
    scale_init: initialiser of that scale.
    dtype: of the result; statistics are float32.
  """

  affine: bool = False
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b h w c']:
    y = _standardised(x)
    if self.affine:
      y *= self.param('scale', self.scale_init, (x.shape[-1],))
      y += self.param('bias', nn.initializers.zeros, (x.shape[-1],))
    if condition is not None:
      told = nn.Dense(
        2 * x.shape[-1],
        kernel_init=nn.initializers.zeros,
        use_bias=False,
        name='condition',
      )(condition.astype(jnp.float32))
      scale, shift = jnp.split(told[:, None, None], 2, axis=-1)
      y = y * (1 + scale) + shift
    return y.astype(self.dtype)


def batch_norm(
  *,
  scale_init: nn.initializers.Initializer = _around_one,
  dtype: jnp.dtype = jnp.float32,
  name: str | None = None,
) -> InstanceNorm:
  """Batch normalisation of a batch of one image, with scale and shift.

  The published programs train and test with one image per batch, in training
  mode: statistics are those of the image. Larger batches here keep them.
  """
  return InstanceNorm(
    affine=True, scale_init=scale_init, dtype=dtype, name=name
  )


def _standardised(x):
  x = x.astype(jnp.float32)
  mean = x.mean((1, 2), keepdims=True)
  variance = jnp.square(x - mean).mean((1, 2), keepdims=True)
  return (x - mean) * jax.lax.rsqrt(variance + _EPSILON)


def conv(
  features: int,
  kernel: int,
  *,
  stride: int = 1,
  pad: int | None = None,
  bias: bool = True,
  init=NORMAL,
  dtype: jnp.dtype = jnp.float32,
  name: str | None = None,
) -> nn.Conv:
  """A square convolution; `pad` zeros on each side, by default kernel // 2."""
  pad = kernel // 2 if pad is None else pad
  return nn.Conv(
    features,
    (kernel, kernel),
    (stride, stride),
    padding=((pad, pad), (pad, pad)),
    use_bias=bias,
    kernel_init=init,
    dtype=dtype,
    name=name,
  )


def conv_transpose(
  features: int,
  kernel: int,
  *,
  bias: bool = True,
  init=NORMAL,
  dtype: jnp.dtype = jnp.float32,
  name: str | None = None,
) -> nn.ConvTranspose:
  """A transposed convolution of stride 2 that doubles height and width.

  Input and output are aligned as by PyTorch's padding (kernel - 1) // 2 and
  output padding kernel % 2, which undo the shift of a strided `conv`. Flax's
  'SAME' is one pixel off for kernel 3.
  """
  pad = (kernel // 2, (kernel + 1) // 2)
  return nn.ConvTranspose(
    features,
    (kernel, kernel),
    (2, 2),
    padding=(pad, pad),
    use_bias=bias,
    kernel_init=init,
    dtype=dtype,
    name=name,
  )


def reflect_pad(
  x: Float[Array, 'b h w c'], width: int
) -> Float[Array, 'b y x c']:
  """Mirrors `width` pixels at every border, without the border itself."""
  sides = ((0, 0), (width, width), (width, width), (0, 0))
  return jnp.pad(x, sides, mode='reflect')


def require_sides(
  x: Float[Array, 'b h w c'], multiple: int, smallest: int = 1
) -> None:
  """Checks the height and width of the images a network is given.

  Args:
    x: the images.
    multiple: the product of the strides, which must divide both sides.
    smallest: the least side.

  Raises:
    ValueError: if a side does not fit.
  """
  _, height, width, _ = x.shape
  if any(side % multiple or side < smallest for side in (height, width)):
    raise ValueError(
      f'images of {height} x {width} pixels; sides must be multiples of '
      f'{multiple}, at least {max(multiple, smallest)}'
    )
