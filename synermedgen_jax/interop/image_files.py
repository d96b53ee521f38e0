"""Converts encoded pictures to values in [-1, 1] and back."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float
from PIL import Image

from synermedgen_jax.core.errors import UserError

# Some other formats of Pillow run external programs.
_FORMATS = ('PNG', 'JPEG', 'WEBP')


class FormatError(UserError):
  """Data in BAGEL's formats that cannot be used; one line naming the file."""


@dataclasses.dataclass(frozen=True)
class PictureFile:
  """A picture on disk.

  Attributes:
    path: the file.
    where: file and line that name the picture, for errors.
  """

  path: Path
  where: str

  def read(self) -> Float[np.ndarray, 'h w *channels']:
    """Reads a float32 image in [-1, 1], grey or with three channels.

    Raises:
      FormatError: the file is missing or not a picture.
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
  """A picture in a table.

  Attributes:
    data: bytes of a PNG, JPEG or WebP file.
    where: file, row and index of the picture, for errors.
  """

  data: bytes = dataclasses.field(repr=False)
  where: str

  def read(self) -> Float[np.ndarray, 'h w *channels']:
    """Decodes a float32 image in [-1, 1], grey or with three channels.

    Raises:
      FormatError: the bytes are not a picture.
    """
    return _decode(io.BytesIO(self.data), self.where)


def _decode(file: BinaryIO, where: str) -> np.ndarray:
  try:
    with Image.open(file, formats=_FORMATS) as image:
      values = _values(image)
  except Exception as error:  # decoders raise many types
    reason = str(error).splitlines()[0] if str(error) else repr(error)
    raise FormatError(
      f'{where} cannot be read as {", ".join(_FORMATS)}: {reason}.'
    ) from None
  return values * np.float32(2) - np.float32(1)


def _values(image: Image.Image) -> np.ndarray:
  """Grey or RGB in [0, 1]; transparent pixels are white, as in BAGEL."""
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


def encode_png(image: Float[np.ndarray, 'h w *channels']) -> bytes:
  """Encodes values in [-1, 1] as PNG, 8 bits per channel, grey or RGB."""
  levels = np.round((np.clip(image, -1, 1) + 1) / 2 * 255).astype(np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(levels).save(buffer, 'PNG')
  return buffer.getvalue()
