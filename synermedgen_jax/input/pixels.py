"""Fits slices and pictures of any shape to the images of the model, and back.

An image keeps its aspect ratio: it is padded to that of the model's images with
black, the value of air in a slice, and then resized.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image

from synermedgen_jax.core.size import Size

# Weights of red, green and blue (ITU-R BT.601).
_LUMINANCE = np.asarray([0.299, 0.587, 0.114], np.float32)


def to_pixels(
  image: Float[np.ndarray, 'h w *c'], size: Size, channels: int
) -> Float[np.ndarray, '{size[0]} {size[1]} {channels}']:
  """Converts an image in [-1, 1] to the size and channels of the model.

  A colour image becomes grey if the model has another number of channels; a
  grey image is repeated along the channels.

  Args:
    image: an image of any shape, grey or with three channels.
    size: height and width of the result.
    channels: channels of the result.
  """
  if image.ndim == 3 and image.shape[-1] != channels:
    image = image @ _LUMINANCE
  pixels = resize(letterbox(image, size), size)
  if pixels.ndim == 2:
    pixels = np.repeat(pixels[..., None], channels, axis=-1)
  return pixels


def from_pixels(
  pixels: Float[np.ndarray, 'y x'], size: Size
) -> Float[np.ndarray, '{size[0]} {size[1]}']:
  """The inverse of `to_pixels` for grey images, up to interpolation.

  Args:
    pixels: an image of the model in [-1, 1].
    size: height and width of the image that `to_pixels` converted.
  """
  padding = _missing(size, pixels.shape)
  padded = [n + sum(p) for n, p in zip(size, padding, strict=True)]
  (top, _), (left, _) = padding
  full = resize(pixels, (padded[0], padded[1]))
  return full[top : top + size[0], left : left + size[1]]


def letterbox(
  image: Float[np.ndarray, 'h w *c'], like: Size
) -> Float[np.ndarray, 'y x *c']:
  """Pads an image in [-1, 1] with black (-1) to the aspect ratio of a size.

  The shorter side gets a border on both ends, of whole pixels.
  """
  padding = _missing(image.shape[:2], like)
  padding += [(0, 0)] * (image.ndim - 2)
  return np.pad(image, padding, constant_values=-1.0)


def _missing(size: Size, like: Size) -> list[tuple[int, int]]:
  """Pixels to add before and after each axis for the aspect ratio of `like`."""
  scale = max(side / other for side, other in zip(size, like, strict=True))
  missing = [
    max(round(scale * other) - side, 0)
    for side, other in zip(size, like, strict=True)
  ]
  return [(n // 2, n - n // 2) for n in missing]


def resize(
  image: Float[np.ndarray, 'h w *c'], size: Size
) -> Float[np.ndarray, '{size[0]} {size[1]} *c']:
  """Resizes an image in [-1, 1], bicubic and anti-aliased."""
  if image.shape[:2] == tuple(size):
    return image
  if image.ndim == 3:
    channels = [resize(channel, size) for channel in np.moveaxis(image, -1, 0)]
    return np.stack(channels, axis=-1)
  height, width = size
  resized = Image.fromarray(image).resize(
    (width, height), Image.Resampling.BICUBIC
  )
  return np.clip(np.asarray(resized, np.float32), -1.0, 1.0)


def patchify(
  image: Float[np.ndarray, 'h w c'], patch: int
) -> Float[np.ndarray, 'p d']:
  """Patches, row by row, each flattened as (row, column, channel)."""
  h, w, c = image.shape
  blocks = image.reshape(h // patch, patch, w // patch, patch, c)
  return blocks.transpose(0, 2, 1, 3, 4).reshape(-1, patch * patch * c)
