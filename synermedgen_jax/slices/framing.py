"""How a volume becomes slices: canvas, plane, frame and windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.grids import Grid, resample, slice_grid, to_slices
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import (
  FIXED_WINDOWS,
  Window,
  body_mask,
  choose_window,
  windows_from_json,
)

FRAMES = ('volume', 'body')
_MARGIN = 0.02  # beside the body, of its longer side
_DETECTION = 128  # pixels per side of the slices in which the body is found


@dataclasses.dataclass(frozen=True)
class SliceSpec:
  """How the volumes of a store, or of a run, become slices.

  Attributes:
    canvas: pixels along each side of a slice.
    plane: of the slices, a name in `grids.PLANES`.
    frame: what fills the canvas, one of `FRAMES`: the field of view of the
      volume, or the body.
    windows: of the modalities that have one window for all volumes.
  """

  canvas: int
  plane: str = 'axial'
  frame: str = 'volume'
  windows: Mapping[Modality, Window] = dataclasses.field(
    default_factory=lambda: dict(FIXED_WINDOWS)
  )

  @classmethod
  def from_json(cls, record: Mapping[str, Any]) -> SliceSpec:
    """The inverse of `to_json`; missing keys other than canvas have defaults.

    Raises:
      ValueError, KeyError, TypeError: the record is not one of these.
    """
    return cls(
      record['canvas'],
      record.get('plane', 'axial'),
      record.get('frame', 'volume'),
      windows_from_json(record.get('windows', {})),
    )

  def to_json(self) -> dict[str, Any]:
    """As plain values."""
    windows = {
      m.value: dataclasses.asdict(w) for m, w in sorted(self.windows.items())
    }
    return {
      'canvas': self.canvas,
      'plane': self.plane,
      'frame': self.frame,
      'windows': windows,
    }

  def window(self, modality: Modality, data: Float[np.ndarray, ...]) -> Window:
    """The window of a volume; raises as `windows.choose_window`."""
    return choose_window(modality, data, self.windows)

  def grid(self, volume: Volume, modality: Modality, window: Window) -> Grid:
    """The grid of a volume's slices.

    With the frame 'volume' it is `grids.slice_grid`. With 'body', the outline
    of the body over all slices and a margin of 2 % fill the canvas, centred;
    slices stay those of the volume. It is never wider than the volume, and is
    the whole volume where no body is found.

    Args:
      volume: as `slice_grid` takes it.
      modality: its modality, which decides how the body is found.
      window: its window.
    """
    if self.frame == 'volume':
      return slice_grid(volume, self.canvas, self.plane)
    whole = slice_grid(volume, _DETECTION, self.plane)
    slices = to_slices(resample(volume, whole, fill=window.low))
    body = body_mask(modality, slices, window).any(0)
    if not body.any():
      return slice_grid(volume, self.canvas, self.plane)
    columns, rows = (np.flatnonzero(body.any(axis)) for axis in (0, 1))
    # A pixel more at either end, since the mask loses thin tips.
    first = np.array([columns[0], rows[0]]) - 1.5
    last = np.array([columns[-1], rows[-1]]) + 1.5
    side = min((last - first).max() * (1 + 2 * _MARGIN), _DETECTION)
    step = side / self.canvas
    to_whole = np.diag([step, step, 1.0, 1.0])
    to_whole[:2, 3] = (first + last) / 2 - (self.canvas - 1) / 2 * step
    return Grid(
      (self.canvas, self.canvas, whole.shape[2]), whole.affine @ to_whole
    )
