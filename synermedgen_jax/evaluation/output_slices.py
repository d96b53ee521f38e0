"""Reads outputs that are one file per slice, and fits them to the canvas."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from synermedgen_jax.core.size import Size, size_text
from synermedgen_jax.evaluation.output_files import (
  PICTURES,
  OutputError,
  OutputFile,
)
from synermedgen_jax.input.pixels import resize
from synermedgen_jax.interop.image_files import PictureFile
from synermedgen_jax.slices.windows import Window

_GREY_LEVELS = 255
_MOST_COLOUR = 32  # levels between channels; colour maps have 80 and more
_COLOURED = 0.01  # share of pixels that may exceed it
_LEAST_SIZE = 0.5  # of the canvas, or of the box of a crop

Image2D = Float[np.ndarray, 'h w']


@dataclasses.dataclass(frozen=True)
class SliceOutput:
  """The content of one file.

  Attributes:
    values: the image in the target's unit, not clipped.
    in_unit: whether the file's own numbers are these values.
    steps: what was undone: 'rgb', 'jpeg', '8-bit'.
    colour: largest difference between channels, of 255 levels of the window.
  """

  values: Image2D
  in_unit: bool
  steps: tuple[str, ...]
  colour: float = 0.0


def read_slice(file: OutputFile, window: Window) -> SliceOutput:
  """Reads a picture or an NPY file.

  Args:
    file: the file.
    window: window of the target in the store.

  Raises:
    FormatError: the picture cannot be read.
    OutputError: the file is no grey image, or does not say what its black and
      white stand for.
  """
  picture = file.path.suffix.lower() in PICTURES
  numbers, steps = _read_picture(file) if picture else _read_array(file.path)
  ends = (-1.0, 1.0) if picture else file.range
  if ends is None and '8-bit' in steps:
    ends = (0.0, float(_GREY_LEVELS))
  values = in_unit(numbers, ends, file.window, window)
  colour = 0.0
  if values.ndim == 3:
    if values.shape[-1] > 1:
      low, high = file.window or (window.low, window.high)
      scale = _GREY_LEVELS / (high - low)
      colour = _colour(file.path, np.ptp(values, axis=-1) * scale)
      steps.append('rgb')
    values = values.mean(-1)
  return SliceOutput(values, ends is None, tuple(steps), colour)


def in_unit(
  numbers: np.ndarray,
  ends: tuple[float, float] | None,
  stated: tuple[float, float] | None,
  window: Window,
) -> np.ndarray:
  """The numbers of a file in the unit of the target.

  Args:
    numbers: float32 numbers of the file.
    ends: numbers that are black and white; None = they are in the unit.
    stated: values that black and white stand for; None = those of `window`.
    window: window of the target in the store.
  """
  if ends is None:
    return numbers
  black, white = ends
  low, high = stated or (window.low, window.high)
  return np.float32(
    low + (numbers - np.float32(black)) * ((high - low) / (white - black))
  )


def place(
  file: OutputFile,
  image: Image2D,
  canvas: Size,
  cropped: Float[np.ndarray, 'y x'] | None,
) -> tuple[Float[np.ndarray, 'y x'], bool]:
  """Resizes an image to the canvas, or to the box that it was cropped to.

  Args:
    file: its file, for messages.
    image: the image; black is -1.
    canvas: height and width of the slices.
    cropped: the slice whose non-black box the image shows; None = no crop.

  Returns:
    The image on the canvas, and whether it was resized.

  Raises:
    OutputError: the image has another aspect ratio, or less than half the size.
  """
  rows, columns = slice(0, canvas[0]), slice(0, canvas[1])
  if cropped is not None:
    rows, columns = _box(cropped)
  size = rows.stop - rows.start, columns.stop - columns.start
  box = f'the box of its {file.crop}' if file.crop else 'the canvas'
  sizes = f'has {size_text(image.shape)} pixels, {box} {size_text(size)}'
  if not _same_aspect(image.shape, size):
    hint = '' if file.crop else '; if it was cropped, name the box by --crop'
    raise OutputError(f'{file.path}: {sizes}: another aspect ratio{hint}.')
  if (np.array(image.shape) < _LEAST_SIZE * np.array(size)).any():
    raise OutputError(
      f'{file.path}: {sizes}: less than half of it; write larger images.'
    )
  placed = np.full(canvas, -1, np.float32)
  placed[rows, columns] = _resized(image, size)
  return placed, image.shape != size


def _resized(image: Image2D, size: Size) -> Float[np.ndarray, 'y x']:
  """`resize`, which is for values in [-1, 1], for any values."""
  scale = max(1.0, float(np.abs(image).max()))
  return resize(image / np.float32(scale), size) * np.float32(scale)


def _read_picture(file: OutputFile) -> tuple[np.ndarray, list[str]]:
  """A picture in [-1, 1], grey or RGB, and its steps."""
  numbers = PictureFile(file.path, file.where).read()
  with Image.open(file.path) as image:
    if image.has_transparency_data and (
      image.convert('RGBA').getextrema()[3][0] < _GREY_LEVELS
    ):
      raise OutputError(
        f'{file.path}: has transparent pixels, whose value is not stated; '
        'write it without an alpha channel.'
      )
    deep = image.mode.startswith('I')
    jpeg = image.format == 'JPEG'
  if deep and file.window is None:
    raise OutputError(
      f'{file.path}: is a 16-bit picture; state in a table the window, the '
      'values of 0 and 65535.'
    )
  return numbers, ['jpeg'] * jpeg + ['8-bit'] * (not deep)


def _read_array(path: Path) -> tuple[np.ndarray, list[str]]:
  """An NPY file with real numbers, grey or with 1 or 3 channels."""
  try:
    array = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise OutputError(f'{path}: cannot be read as NPY ({reason}).') from None
  if array.ndim not in (2, 3) or (
    array.ndim == 3 and array.shape[2] not in (1, 3)
  ):
    raise OutputError(
      f'{path}: has shape {array.shape}, expected (rows, columns), or 1 or 3 '
      'channels after them.'
    )
  if array.dtype.kind not in 'uif' or not np.isfinite(array).all():
    raise OutputError(
      f'{path}: has values of type {array.dtype} that are no finite real '
      'numbers.'
    )
  return array.astype(np.float32), ['8-bit'] * (array.dtype == np.uint8)


def _colour(path: Path, difference: Image2D) -> float:
  """The largest difference between channels; refuses a colour map."""
  if np.mean(np.round(difference) > _MOST_COLOUR) > _COLOURED:
    raise OutputError(
      f'{path}: red, green and blue differ by up to {difference.max():.0f} of '
      f'255 levels, and by more than {_MOST_COLOUR} in over {_COLOURED:.0%} of '
      'the pixels: a colour map or a drawing; write grey images.'
    )
  return float(difference.max())


def _box(image: Image2D) -> tuple[slice, slice]:
  """Rows and columns of the pixels that are not black at 8 bits."""
  visible = np.round((image + 1) / 2 * _GREY_LEVELS) > 0
  if not visible.any():
    visible = np.ones_like(visible)  # a black image has no box to crop to
  return tuple(
    slice(int(line[0]), int(line[-1]) + 1)
    for line in (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
  )


def _same_aspect(shape: Size, size: Size) -> bool:
  """Whether two shapes differ by a scale, to 1 pixel of the coarser one."""
  scale = np.sqrt(np.prod(shape) / np.prod(size))
  difference = np.abs(np.array(shape) - scale * np.array(size)).max()
  return bool(difference <= max(scale, 1))
