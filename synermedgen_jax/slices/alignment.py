"""Estimates how far a volume is shifted from another one of its subject.

A coarse search (`coarse_alignment`) covers all shifts, mirror images and
quarter turns. If it finds neither a far shift nor another orientation, a fine
search maximises normalised mutual information over shifts of up to 24 mm
(Studholme et al. 1999, Pattern Recognition 32, 71-86). This module only reports
shifts; `registration` corrects them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from synermedgen_jax.slices import coarse_alignment
from synermedgen_jax.slices.grids import Grid, resample
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

BINS = 32
_OUTSIDE = BINS  # bin of grid points that a volume does not cover
_MOST_VOXELS = 400_000
_FINEST_MM = 2.0
_REACH_MM = 24.0
_ROUNDS = 3
# Normalised mutual information is between 1 and 2. A maximum that exceeds the
# value without shift by less than this is not significant.
_LEAST_GAIN = 0.01
# Coarse shifts below this are left to the fine search, if it reaches them.
_FAR_MM = 20.0
_FAR_STEPS = 2.5
_FAR_GAIN = 0.05
# Least ratio of the scores of another orientation and of the file's own.
_TURNED = 1.05
# Mutual information, in nats, below which the coarse search says nothing: the
# lowest of 84 pairs of real patients was 0.15, that of noise is below 0.01.
_LEAST_INFORMATION = 0.05


@dataclasses.dataclass(frozen=True)
class Offset:
  """Estimated shift of a volume from its reference.

  Attributes:
    mm: towards the patient's right, anterior and superior; moving the volume
      by minus this aligns it best.
    gain: improvement of the similarity by that move: of normalised mutual
      information after a fine search, relative after a coarse one.
    orientation: such as 'mirrored left to right', if another orientation fits
      better than that of the file; '' = it does not.
  """

  mm: tuple[float, float, float]
  gain: float
  orientation: str = ''

  @property
  def distance(self) -> float:
    """Length of the shift in mm.

    0 if `gain` is not significant, infinite for another orientation.
    """
    if self.orientation:
      return math.inf
    if self.gain < _LEAST_GAIN:
      return 0.0
    return float(np.linalg.norm(self.mm))

  def relative_to(self, reference: str) -> str:
    """The offset in words, compared with the file `reference`."""
    if self.orientation:
      return f'{self.orientation}, compared with {reference}'
    return f'{self} of {reference}'

  def __str__(self) -> str:
    if self.orientation:
      return self.orientation
    names = (
      ('right', 'left'),
      ('anterior', 'posterior'),
      ('superior', 'inferior'),
    )
    parts = [
      f'{abs(mm):.0f} mm {name[mm < 0]}'
      for mm, name in zip(self.mm, names, strict=True)
      if abs(mm) >= 1
    ]
    return ', '.join(parts) or 'none'


def estimate_offset(
  fixed: Volume,
  moving: Volume,
  windows: tuple[Window, Window],
) -> Offset | None:
  """Estimates the shift of `moving` from `fixed`.

  Shifts of less than 20 mm are exact to about half a millimetre, larger ones to
  about 5 mm.

  Args:
    fixed: the reference volume.
    moving: a volume of the same subject, nominally in the same world frame.
    windows: windows of `fixed` and of `moving`.

  Returns:
    The offset, or None if the volumes do not overlap.
  """
  grid = _common_grid(fixed, moving)
  if grid is None:
    return None
  fixed, moving = (
    coarse_alignment.measured_part(volume, window)
    for volume, window in zip((fixed, moving), windows, strict=True)
  )
  grid = _common_grid(fixed, moving) or grid
  placed, turned = coarse_alignment.search(fixed, moving)
  if max(placed.score, turned.score) < _LEAST_INFORMATION:
    return _near_offset(fixed, moving, windows, grid)
  if turned.score > _TURNED * placed.score:
    gain = turned.score / placed.score - 1
    return Offset((0.0, 0.0, 0.0), gain, turned.orientation)
  distance = np.linalg.norm(placed.mm)
  last = (_reach(grid) - 1) * grid.affine[0, 0]
  far = distance > _FAR_MM or (np.abs(placed.mm) > last).any()
  if placed.gain > _FAR_GAIN and distance > _FAR_STEPS * placed.step and far:
    return Offset(placed.mm, placed.gain)
  return _near_offset(fixed, moving, windows, grid)


def _near_offset(
  fixed: Volume, moving: Volume, windows: tuple[Window, Window], grid: Grid
) -> Offset:
  """Searches shifts of up to 24 mm on a fine grid over the overlap."""
  a, b = (
    _codes(volume, window, grid)
    for volume, window in zip((fixed, moving), windows, strict=True)
  )
  shift, gain = best_shift(a, b, _reach(grid))
  step = float(grid.affine[0, 0])
  return Offset(tuple(float(s * step) for s in shift), gain)


def best_shift(
  a: Int[np.ndarray, ...],
  b: Int[np.ndarray, ...],
  reach: Int[np.ndarray, ' axes'],
  *,
  ends: bool = False,
) -> tuple[Float[np.ndarray, ' axes'], float]:
  """The shift of `b` from `a` with the largest normalised mutual information.

  Args:
    a: bins of `bins_of`, with any number of axes.
    b: those of an image of the same shape.
    reach: the longest shift along each axis, in grid points.
    ends: whether a maximum at the end of the line counts, beyond which the
      values may still rise.

  Returns:
    The shift in grid points, refined by a parabola along each axis, and the
    gain of information by it.
  """
  axes = np.eye(a.ndim, dtype=int)
  shift = np.zeros(a.ndim, int)
  evaluated: dict[tuple[int, ...], float] = {}

  def at(shift: np.ndarray) -> float:
    key = tuple(shift.tolist())
    if key not in evaluated:
      evaluated[key] = information(a, b, shift)
    return evaluated[key]

  unshifted = at(shift)
  for _ in range(_ROUNDS):
    before = shift
    for axis, most in zip(axes, reach, strict=True):
      line = [shift * (1 - axis) + axis * d for d in range(-most, most + 1)]
      best = max(line, key=at)
      if ends or abs(best @ axis) < most:
        shift = best
    if (shift == before).all():
      break
  exact = [
    s + _vertex(*(at(shift + i * axis) for i in (-1, 0, 1)))
    for s, axis in zip(shift, axes, strict=True)
  ]
  return np.array(exact), float(at(shift) - unshifted)


def _reach(grid: Grid) -> Int[np.ndarray, 3]:
  """The longest shift of the fine search along each axis, in grid points.

  Most of either volume must still overlap the other.
  """
  most = int(_REACH_MM // grid.affine[0, 0])
  return np.minimum(most, np.array(grid.shape) // 5)


def _common_grid(a: Volume, b: Volume) -> Grid | None:
  """Isotropic grid along RAS axes over the overlap of both volumes."""
  low = np.maximum(a.corners.min(0), b.corners.min(0))
  extent = np.minimum(a.corners.max(0), b.corners.max(0)) - low
  if (extent <= 0).any():
    return None
  step = max(_FINEST_MM, float(extent.prod() / _MOST_VOXELS) ** (1 / 3))
  shape = (extent // step).astype(int) + 1
  affine = np.diag([step, step, step, 1.0])
  affine[:3, 3] = low + (extent - (shape - 1) * step) / 2
  return Grid(tuple(shape.tolist()), affine)


def _codes(
  volume: Volume, window: Window, grid: Grid
) -> Int[np.ndarray, 'x y z']:
  """Bin of the value at each grid point; `_OUTSIDE` outside the volume."""
  sampled = resample(volume, grid, fill=np.nan)
  outside = np.isnan(sampled)
  level = window.normalise(np.where(outside, window.low, sampled))
  return np.where(outside, _OUTSIDE, bins_of(level))


def bins_of(images: Float[np.ndarray, '*axes']) -> Int[np.ndarray, '*axes']:
  """The bin of every value in [-1, 1], from 0 to `BINS` - 1."""
  return np.clip((images + 1) / 2 * BINS, 0, BINS - 1).astype(np.int32)


def information(
  a: Int[np.ndarray, ...],
  b: Int[np.ndarray, ...],
  shift: Int[np.ndarray, ' axes'],
) -> float:
  """(H(a) + H(b)) / H(a, b), comparing a[i] with b[i + shift].

  Args:
    a: bins of `bins_of`.
    b: those of an image of the same shape.
    shift: in grid points along each axis.
  """
  in_a = tuple(
    slice(max(-s, 0), n - max(s, 0))
    for s, n in zip(shift.tolist(), a.shape, strict=True)
  )
  in_b = tuple(
    slice(max(s, 0), n - max(-s, 0))
    for s, n in zip(shift.tolist(), a.shape, strict=True)
  )
  pairs = a[in_a] * (BINS + 1) + b[in_b]
  counts = np.bincount(pairs.ravel(), minlength=(BINS + 1) ** 2)
  joint = counts.reshape(BINS + 1, BINS + 1)[:BINS, :BINS].astype(float)
  if not joint.sum():
    return 0.0
  joint /= joint.sum()
  joint_entropy = _entropy(joint)
  if not joint_entropy:
    return 0.0
  return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / joint_entropy


def _entropy(share: Float[np.ndarray, ...]) -> float:
  positive = share[share > 0]
  return float(-(positive * np.log(positive)).sum())


def _vertex(left: float, middle: float, right: float) -> float:
  """Maximum of the parabola through values at -1, 0, 1; within [-0.5, 0.5]."""
  curvature = left - 2 * middle + right
  if curvature >= 0:
    return 0.0
  return float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5))
