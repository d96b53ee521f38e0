"""Estimates how far a volume is shifted from another one of its subject.

The estimate maximises normalised mutual information over small shifts along
each axis (Studholme et al. 1999, Pattern Recognition 32, 71-86). Aligned
volumes have their maximum at no shift. This module only reports shifts; it does
not register volumes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from synermedgen_jax.slices.grids import Grid, resample
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

_BINS = 32
_OUTSIDE = _BINS  # bin of grid points that a volume does not cover
_MOST_VOXELS = 400_000
_FINEST_MM = 2.0
_REACH_MM = 24.0
_ROUNDS = 3
# Normalised mutual information is between 1 and 2. A maximum that exceeds the
# value without shift by less than this is not significant.
_LEAST_GAIN = 0.01


@dataclasses.dataclass(frozen=True)
class Offset:
  """Estimated shift of a volume from its reference.

  Attributes:
    mm: towards the patient's right, anterior and superior; moving the volume
      by minus this aligns it best.
    gain: normalised mutual information after that move minus the value before.
  """

  mm: tuple[float, float, float]
  gain: float

  @property
  def distance(self) -> float:
    """Length of the shift in mm; 0 if `gain` is not significant."""
    if self.gain < _LEAST_GAIN:
      return 0.0
    return float(np.linalg.norm(self.mm))

  def __str__(self) -> str:
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
  """Estimates the shift of `moving` from `fixed`, to about half a millimetre.

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
  a, b = (
    _codes(volume, window, grid)
    for volume, window in zip((fixed, moving), windows, strict=True)
  )
  step = float(grid.affine[0, 0])
  # Most of either volume must still overlap the other.
  reach = np.minimum(int(_REACH_MM // step), np.array(grid.shape) // 5)
  shift = np.zeros(3, int)
  unshifted = _information(a, b, shift)
  evaluated = {(0, 0, 0): unshifted}

  def information(shift: np.ndarray) -> float:
    key = tuple(shift.tolist())
    if key not in evaluated:
      evaluated[key] = _information(a, b, shift)
    return evaluated[key]

  for _ in range(_ROUNDS):
    before = shift
    for axis, most in zip(np.eye(3, dtype=int), reach, strict=True):
      line = [shift * (1 - axis) + axis * d for d in range(-most, most + 1)]
      best = max(line, key=information)
      # At the end of the line, the values may still rise beyond it.
      if abs(best @ axis) < most:
        shift = best
    if (shift == before).all():
      break
  exact = [
    s + _vertex(*(information(shift + i * axis) for i in (-1, 0, 1)))
    for s, axis in zip(shift, np.eye(3, dtype=int), strict=True)
  ]
  gain = float(information(shift) - unshifted)
  return Offset(tuple(float(e * step) for e in exact), gain)


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
  code = np.minimum(((level + 1) / 2 * _BINS).astype(np.int32), _BINS - 1)
  return np.where(outside, _OUTSIDE, code)


def _information(a, b, shift: Int[np.ndarray, 3]) -> float:
  """(H(a) + H(b)) / H(a, b), comparing a[i] with b[i + shift]."""
  in_a = tuple(
    slice(max(-s, 0), n - max(s, 0))
    for s, n in zip(shift.tolist(), a.shape, strict=True)
  )
  in_b = tuple(
    slice(max(s, 0), n - max(-s, 0))
    for s, n in zip(shift.tolist(), a.shape, strict=True)
  )
  pairs = a[in_a] * (_BINS + 1) + b[in_b]
  counts = np.bincount(pairs.ravel(), minlength=(_BINS + 1) ** 2)
  joint = counts.reshape(_BINS + 1, _BINS + 1)[:_BINS, :_BINS].astype(float)
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
