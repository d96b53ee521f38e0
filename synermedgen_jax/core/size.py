"""Heights and widths of slices and images, in pixels."""

from __future__ import annotations

import re

Size = tuple[int, int]  # height and width


def parse_size(text: str) -> Size:
  """Reads 'HEIGHTxWIDTH', or one number for a square.

  Raises:
    ValueError: neither of these, or a side of 0.
  """
  match = re.fullmatch(r'(\d+)(?:x(\d+))?', text.strip().lower())
  sides = [int(side) for side in match.groups(match[1])] if match else [0]
  if not all(sides):
    raise ValueError(
      f'{text}: expected HEIGHTxWIDTH in pixels, as in 400x256, or one number '
      'for a square.'
    )
  return sides[0], sides[1]


def size_text(size: Size) -> str:
  """The inverse of `parse_size`."""
  height, width = size
  return str(height) if height == width else f'{height}x{width}'
