"""Pictures as files and as bytes, to values in [-1, 1] and back.

A picture of any shape becomes a square: it lies in the middle, and what is
around it is black, as air is in a slice.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float
from PIL import Image

from synermedgen_jax.core.errors import UserError

# Some of Pillow's other formats run a program of their own.
_FORMATS = ('PNG', 'JPEG', 'WEBP')


class FormatError(UserError):
  """Data in BAGEL's formats that cannot be used; one line naming the place."""


@dataclasses.dataclass(frozen=True)
class PictureFile:
  """A picture on disk.

  Attributes:
    path: the file.
    where: which line asks for it, for errors.
  """

  path: Path
  where: str

  def read(self) -> Float[np.ndarray, 'side side *channels']:
    """A square in [-1, 1], grey or of three channels.

    Raises:
      FormatError: the file is not there or is no picture.
    """
    try:
      with self.path.open('rb') as file:
        return _decode(file, f'{self.where}: picture {self.path}')
    except OSError as error:
      raise FormatError(
        f'{self.where}: picture {self.path}: {error.strerror}.'
      ) from None


@dataclasses.dataclass(frozen=True)
class PictureBytes:
  """A picture out of a table.

  Attributes:
    data: the bytes of a PNG, JPEG or WebP file.
    where: the row and the picture's place in it, for errors.
  """

  data: bytes = dataclasses.field(repr=False)
  where: str

  def read(self) -> Float[np.ndarray, 'side side *channels']:
    """A square in [-1, 1], grey or of three channels.

    Raises:
      FormatError: the bytes are no picture.
    """
    return _decode(io.BytesIO(self.data), self.where)


def _decode(file: BinaryIO, where: str) -> np.ndarray:
  try:
    with Image.open(file, formats=_FORMATS) as image:
      values = _values(image)
  except Exception as error:  # Decoders raise a dozen kinds.
    reason = str(error).splitlines()[0] if str(error) else repr(error)
    raise FormatError(
      f'{where} cannot be read as {", ".join(_FORMATS)}: {reason}.'
    ) from None
  return letterbox(values * np.float32(2) - np.float32(1))


def _values(image: Image.Image) -> np.ndarray:
  """Grey or RGB in [0, 1], what is transparent on white as BAGEL has it."""
  if image.mode.startswith('I;16'):
    return np.asarray(image, np.float32) / np.float32(65535)
  if image.has_transparency_data:
    grey = image.mode in ('L', 'LA')
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image).convert('L' if grey else 'RGB')
  elif image.mode in ('1', 'L'):
    image = image.convert('L')
  else:
    image = image.convert('RGB')
  return np.asarray(image, np.float32) / np.float32(255)


def letterbox(
  image: Float[np.ndarray, 'h w *channels'],
) -> Float[np.ndarray, 'side side *channels']:
  """A picture in the middle of a black square as wide as its longer side."""
  height, width = image.shape[:2]
  missing = [max(height, width) - side for side in (height, width)]
  padding = [(n // 2, n - n // 2) for n in missing]
  padding += [(0, 0)] * (image.ndim - 2)
  return np.pad(image, padding, constant_values=-1.0)


def encode_png(image: Float[np.ndarray, 'h w *channels']) -> bytes:
  """Values in [-1, 1] as the bytes of a PNG file of 8 bits, grey or RGB."""
  levels = np.round((np.clip(image, -1, 1) + 1) / 2 * 255).astype(np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(levels).save(buffer, 'PNG')
  return buffer.getvalue()
