"""Settings that turn volumes into slices: canvas, plane, frame, windows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.core.size import Size, size_text
from synermedgen_jax.slices.grids import Grid, resample, slice_grid, to_slices
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import (
  FIXED_WINDOWS,
  Window,
  body_mask,
  choose_window,
  windows_from_json,
)

_MARGIN = 0.02  # on each side of the body, as a share of the side
_MOST_CANVAS = 4096
_DETECTION = 128  # pixels per side of the slices that are segmented


def body_on_grid(
  modality: Modality, volume: Volume, grid: Grid
) -> Bool[np.ndarray, 'z h w']:
  """Segments the body of a volume in the slices of a grid.

  The windows of a store have no effect: all values of a CT clipped to -160 to
  240 HU would be above the threshold.

  Args:
    modality: modality of the volume, which selects the threshold.
    volume: the volume, in physical units.
    grid: grid of the slices.

  Returns:
    The mask; False everywhere if the volume has no voxel above the background.
  """
  try:
    window = choose_window(modality, volume.data)
  except UserError:
    return np.zeros(grid.shape[::-1], bool)
  slices = to_slices(resample(window.clip(volume), grid, fill=window.low))
  return body_mask(modality, slices, window)


@dataclasses.dataclass(frozen=True)
class SliceSpec:
  """Settings that turn the volumes of a store or a run into slices.

  Attributes:
    canvas: height and width of a slice in pixels.
    plane: slice plane, a name in `grids.PLANES`.
    frame: content that fills the canvas, one of `core.choices.FRAMES`: 'volume'
      (the field of view) or 'body'.
    windows: windows of the modalities that use one for all volumes.

  Raises:
    UserError: a side of the canvas is below 1 or above 4096.
  """

  canvas: Size
  plane: str = 'axial'
  frame: str = 'volume'
  windows: Mapping[Modality, Window] = dataclasses.field(
    default_factory=lambda: dict(FIXED_WINDOWS)
  )

  def __post_init__(self):
    if not all(1 <= side <= _MOST_CANVAS for side in self.canvas):
      raise UserError(
        f'canvas={size_text(self.canvas)}: a slice would take '
        f'{4 * math.prod(self.canvas):,} bytes of memory (float32); expected 1 '
        f'to {_MOST_CANVAS} pixels per side.'
      )

  @classmethod
  def from_json(cls, record: Mapping[str, Any]) -> SliceSpec:
    """The inverse of `to_json`; all keys but canvas are optional.

    Raises:
      ValueError, KeyError, TypeError: the record is malformed.
    """
    canvas = record['canvas']  # older stores name the side of a square
    return cls(
      (canvas, canvas) if isinstance(canvas, int) else tuple(canvas),
      record.get('plane', 'axial'),
      record.get('frame', 'volume'),
      windows_from_json(record.get('windows', {})),
    )

  def to_json(self) -> dict[str, Any]:
    """All fields as JSON values."""
    windows = {
      m.value: dataclasses.asdict(w) for m, w in sorted(self.windows.items())
    }
    return {
      'canvas': list(self.canvas),
      'plane': self.plane,
      'frame': self.frame,
      'windows': windows,
    }

  def window(self, modality: Modality, data: Float[np.ndarray, ...]) -> Window:
    """The window of a volume; see `windows.choose_window`."""
    return choose_window(modality, data, self.windows)

  def grid(self, volume: Volume, modality: Modality) -> Grid:
    """The grid of a volume's slices.

    Frame 'volume' gives `grids.slice_grid`. Frame 'body' fits the canvas
    closely around the bounding box of the body over all slices plus a margin of
    2 % on each side, but its pixels are never larger than those of frame
    'volume'. Slice positions are the volume's own. If the segmentation is
    empty, 'body' gives the same grid as 'volume'.

    Args:
      volume: the volume.
      modality: its modality, which selects the segmentation threshold.
    """
    whole = slice_grid(volume, self.canvas, self.plane)
    if self.frame == 'volume':
      return whole
    full = slice_grid(volume, (_DETECTION, _DETECTION), self.plane)
    body = body_on_grid(modality, volume, full).any(0)
    if not body.any():
      return whole
    columns, rows = (np.flatnonzero(body.any(axis)) for axis in (0, 1))
    # One extra pixel at either end: the mask loses thin tips.
    first = np.array([columns[0], rows[0]]) - 1.5
    last = np.array([columns[-1], rows[-1]]) + 1.5
    pixels = np.array(whole.shape[:2])
    most = np.linalg.norm(whole.affine[:3, 0]) / np.linalg.norm(
      full.affine[:3, 0]
    )
    step = min(((last - first) * (1 + 2 * _MARGIN) / pixels).max(), most)
    to_full = np.diag([step, step, 1.0, 1.0])
    to_full[:2, 3] = (first + last) / 2 - (pixels - 1) / 2 * step
    return Grid(whole.shape, full.affine @ to_full)
