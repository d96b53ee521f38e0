"""Which part of a volume fills the canvas: all of it, or the body in it."""

from __future__ import annotations

import numpy as np

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.grids import Grid, resample, slice_grid, to_slices
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window, body_mask

FRAMES = ('volume', 'body')
_MARGIN = 0.02  # beside the body, of its longer side
_LOOKED_AT = 128  # pixels a side, whatever the canvas: where the body is found


def framed_grid(
  volume: Volume,
  modality: Modality,
  window: Window,
  canvas: int,
  plane: str = 'axial',
  frame: str = 'volume',
) -> Grid:
  """`grids.slice_grid`, and where `frame` is 'body' closer to it.

  The body's outline over all slices, a little air around it, fills the canvas;
  its middle is the canvas's. Slices stay those of the volume. Never wider than
  the volume, and the whole volume where no body is found.

  Args:
    volume: as `slice_grid` has it.
    modality: its modality, by which the body is found (`windows.body_mask`).
    window: its window.
    canvas: pixels along each side.
    plane: a name in `grids.PLANES`.
    frame: one of `FRAMES`.
  """
  if frame == 'volume':
    return slice_grid(volume, canvas, plane)
  whole = slice_grid(volume, _LOOKED_AT, plane)
  slices = to_slices(resample(volume, whole, fill=window.low))
  body = body_mask(modality, slices, window).any(0)
  if not body.any():
    return slice_grid(volume, canvas, plane)
  columns, rows = (np.flatnonzero(body.any(axis)) for axis in (0, 1))
  # A pixel more at either end: the mask loses tips as thin as that.
  first = np.array([columns[0], rows[0]]) - 1.5
  last = np.array([columns[-1], rows[-1]]) + 1.5
  side = min((last - first).max() * (1 + 2 * _MARGIN), _LOOKED_AT)
  step = side / canvas
  to_whole = np.diag([step, step, 1.0, 1.0])
  to_whole[:2, 3] = (first + last) / 2 - (canvas - 1) / 2 * step
  return Grid((canvas, canvas, whole.shape[2]), whole.affine @ to_whole)
