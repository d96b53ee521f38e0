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


class GroupNorm(nn.Module):
  """Normalisation of each group of channels of each image.

  Unlike Flax's, it takes a condition, as scale and shift after the norm
  (conditional instance normalisation, arXiv 1610.07629), which start at one and
  zero.

  Attributes:
    group_size: channels that share a mean and a standard deviation.
    affine: learn a scale and a shift of each channel.
    scale_init: initialiser of that scale.
    dtype: of the result; statistics are float32.
  """

  group_size: int
  affine: bool = False
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b h w c']:
    mean, std = _moments(x, self.group_size)
    channels = x.shape[-1]
    factor, shift = 1 / std, jnp.zeros(())
    if self.affine:
      factor *= self.param('scale', self.scale_init, (channels,))
      shift = self.param('bias', nn.initializers.zeros, (channels,))
    if condition is not None:
      told = nn.Dense(
        2 * channels,
        kernel_init=nn.initializers.zeros,
        use_bias=False,
        name='condition',
      )(condition.astype(jnp.float32))
      more, offset = jnp.split(told[:, None, None], 2, axis=-1)
      factor, shift = factor * (1 + more), shift * (1 + more) + offset
    # One factor and one shift per channel of an image: one pass over pixels.
    return ((x - mean) * factor + shift).astype(self.dtype)


class InstanceNorm(GroupNorm):
  """Normalisation of each channel of each image.

  It removes constant planes, and with them a condition that was concatenated
  to the image.
  """

  group_size: int = 1


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


def _moments(x, group_size):
  """Mean and standard deviation of groups, (b, 1, 1, c), in float32."""
  x = x.astype(jnp.float32)
  mean = _over_groups(x.mean((1, 2), keepdims=True), group_size)
  variance = jnp.square(x - mean).mean((1, 2), keepdims=True)
  return mean, jnp.sqrt(_over_groups(variance, group_size) + _EPSILON)


def _over_groups(x, group_size):
  """Each channel's value replaced by the mean of its group."""
  if group_size == 1:
    return x
  means = x.reshape(*x.shape[:-1], -1, group_size).mean(-1)
  return jnp.repeat(means, group_size, axis=-1)


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
) -> nn.Module:
  """A square convolution; `pad` zeros on each side, by default kernel // 2."""
  pad = kernel // 2 if pad is None else pad
  if (kernel, stride, pad) == (4, 2, 1):
    return HalvingConv(features, bias, init, dtype, name=name)
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


class HalvingConv(nn.Module):
  """A 4 x 4 convolution of stride 2 and padding 1.

  Computed as a 2 x 2 convolution of the input's 2 x 2 blocks, whose pixels
  become channels: XLA's gradient of a strided convolution takes up to ten times
  as long on CPUs.

  Attributes:
    features: output channels.
    bias: add a bias.
    kernel_init: initialiser of the kernel.
    dtype: of the computation.
  """

  features: int
  bias: bool = True
  kernel_init: nn.initializers.Initializer = NORMAL
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b y x f']:
    """Convolves images.

    Args:
      x: images.
      condition: values of further channels, which are constant. Their
        convolution differs at the border alone, and costs next to nothing.
    """
    channels = x.shape[-1]
    inputs = channels + (0 if condition is None else condition.shape[-1])
    shape = (4, 4, inputs, self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    kernel = kernel.astype(self.dtype)
    y = _halved(x.astype(self.dtype), kernel[:, :, :channels])
    if condition is not None:
      constant = condition.astype(self.dtype)[:, None, None]
      y += _halved_constant(constant, kernel[:, :, channels:], y.shape[1:3])
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      y += bias.astype(self.dtype)
    return y


def _halved(x, kernel):
  """The 4 x 4 convolution of stride 2 and padding 1, of 2 x 2 blocks."""
  b, h, w, c = x.shape
  blocks = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
  blocks = blocks.reshape(b, h // 2 + 1, 2, w // 2 + 1, 2, c)
  kernel = kernel.reshape(2, 2, 2, 2, c, -1)
  return _conv_without_padding(
    blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2 + 1, -1, 4 * c),
    kernel.transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, -1),
  )


def _halved_constant(x, kernel, sides):
  """`_halved` of images that are constant in each channel, (b, 1, 1, k).

  Three pixels hold all values of a side: its two ends and one between them.
  `sides` are those of the output.
  """
  b, _, _, k = x.shape
  small = [2 * min(side, 3) for side in sides]
  y = _halved(jnp.broadcast_to(x, (b, *small, k)), kernel)
  for axis, side in enumerate(sides, start=1):
    if side > 3:
      first, middle, last = jnp.split(y, 3, axis)
      shape = [side - 2 if i == axis else n for i, n in enumerate(y.shape)]
      middle = jnp.broadcast_to(middle, shape)
      y = jnp.concatenate([first, middle, last], axis)
  return y


def _conv_without_padding(x, kernel):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1, 1),
    padding='VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


class ConvTranspose(nn.Module):
  """A transposed convolution of stride 2 that doubles height and width.

  Computed as a convolution of the input that yields the four pixels of every
  2 x 2 block of the output as channels (arXiv 1609.07009): XLA's gradient of a
  convolution with a dilated input takes ten times as long on CPUs. A kernel of
  3 costs as much as one of 4.

  Input and output are aligned as by PyTorch's padding (kernel - 1) // 2 and
  output padding kernel % 2, which undo the shift of a strided `conv`. Flax's
  'SAME' is one pixel off for kernel 3. Kernels are those of Flax's module,
  mirrored against PyTorch's.

  Attributes:
    features: output channels.
    kernel: 2, 3 or 4.
    bias: add a bias.
    kernel_init: initialiser of the kernel.
    dtype: of the computation.
  """

  features: int
  kernel: int
  bias: bool = True
  kernel_init: nn.initializers.Initializer = NORMAL
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b y x f']:
    side, shape = self.kernel, (x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, (side, side, *shape))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    y = _pixels_of_2(x, kernel) if side == 2 else _pixels_of_4(x, kernel)
    b, h, _, w, *_ = y.shape
    y = y.reshape(b, 2 * h, 2 * w, self.features)
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      y += bias.astype(self.dtype)
    return y


def _pixels_of_2(x, kernel):
  """(b, h, 2, w, 2, f): every input pixel yields its own four."""
  return jnp.einsum('bhwc,pqcf->bhpwqf', x, kernel[::-1, ::-1])


def _pixels_of_4(x, kernel):
  """(b, h, 2, w, 2, f) of a kernel of 3 or 4.

  In each dimension, pixel p of block i is the sum over s of input i + p + s - 1
  times kernel 2 s + p.
  """
  b, h, w, c = x.shape
  missing = 4 - kernel.shape[0]
  kernel = jnp.pad(kernel, [(missing, 0), (missing, 0), (0, 0), (0, 0)])
  kernel = kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 4, 1, 3, 5)
  # Padded before: XLA's gradient of a padding convolution is slow, too.
  y = _conv_without_padding(
    jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), kernel.reshape(2, 2, c, -1)
  ).reshape(b, h + 1, w + 1, 2, 2, -1)
  rows = [
    jnp.stack([y[:, p : p + h, q : q + w, p, q] for q in (0, 1)], axis=3)
    for p in (0, 1)
  ]
  return jnp.stack(rows, axis=2)


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
