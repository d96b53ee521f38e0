"""Resampling by 2 with the filter [1, 3, 3, 1] of StyleGAN2.

Each channel is filtered alone, along height and along width. Beyond the border
of an image are zeros, as in StyleGAN2 (Karras et al., 2020): a constant image
keeps its value except beside the border.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)


def downsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b y x c']:
  """Halves height and width.

  A place of the result lies in the middle of the 2 x 2 pixels it replaces.

  Raises:
    ValueError: the height or the width is odd.
  """
  require_sides(x, 2)
  return _filtered(_filtered(x, 1, pad=1, stride=2), 2, pad=1, stride=2)


def upsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b y x c']:
  """Doubles height and width.

  The middle of the 2 x 2 places that replace a pixel is where the pixel was.
  """
  return _doubled(_doubled(x, 1), 2)


def blur(x: Float[Array, 'b h w c']) -> Float[Array, 'b y x c']:
  """Filters an image for a 3 x 3 convolution of stride 2 without padding.

  That convolution then halves an even height and width, aligned as
  `downsample`.

  Returns:
    (b, h + 1, w + 1, c): a pixel more than the image along each axis.
  """
  return _filtered(_filtered(x, 1, pad=2, stride=1), 2, pad=2, stride=1)


def require_sides(x: Float[Array, 'b h w c'], multiple: int) -> None:
  """Checks the size of images.

  Raises:
    ValueError: the height or the width is not a multiple of `multiple`.
  """
  height, width = x.shape[1:3]
  if height % multiple or width % multiple:
    raise ValueError(
      f'Images are {height} x {width} pixels: height and width must be '
      f'multiples of {multiple}.'
    )


def _filtered(x, axis, *, pad, stride):
  """Every `stride`-th place of the filtered axis, padded on both sides."""
  x = _padded(x, axis, pad)
  length = x.shape[axis] - len(_TAPS) + 1
  return sum(
    tap * lax.slice_in_dim(x, start, start + length, stride, axis)
    for start, tap in enumerate(_TAPS)
  )


def _doubled(x, axis):
  """The axis with zeros between its places, filtered with a gain of 2.

  Half of the taps meet a zero, so each place is a sum of two terms.
  """
  length = x.shape[axis]
  padded = _padded(x, axis, 1)
  before = lax.slice_in_dim(padded, 0, length, axis=axis)
  after = lax.slice_in_dim(padded, 2, length + 2, axis=axis)
  outer, inner = 2 * _TAPS[0], 2 * _TAPS[1]
  pair = (outer * before + inner * x, inner * x + outer * after)
  shape = (*x.shape[:axis], 2 * length, *x.shape[axis + 1 :])
  return jnp.stack(pair, axis + 1).reshape(shape)


def _padded(x, axis, width):
  sides = [(0, 0)] * x.ndim
  sides[axis] = (width, width)
  return jnp.pad(x, sides)
