"""Whether two volumes of a subject show the same places at the same places.

Normalised mutual information over small shifts along each axis (Studholme et
al. 1999, Pattern Recognition 32, 71-86): two modalities that correspond share
most of it where neither is moved. Nothing is registered here; a pair that
turns out to be shifted is reported.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from synermedgen_jax.slices.grids import Grid, resample
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

_BINS = 32
_NOWHERE = _BINS  # the bin of places that one volume does not cover
_MOST_VOXELS = 400_000
_FINEST_MM = 2.0
_REACH_MM = 24.0
_ROUNDS = 3
# Of normalised mutual information, which lies between 1 and 2: a maximum that
# is hardly higher than its surroundings says nothing.
_LEAST_GAIN = 0.01


@dataclasses.dataclass(frozen=True)
class Offset:
  """How far a volume seems to lie from where it should.

  Attributes:
    mm: to the patient's right, anterior and superior; moving the volume by
      minus this aligns it best.
    gain: normalised mutual information there less that of the volumes as
      they are.
  """

  mm: tuple[float, float, float]
  gain: float

  @property
  def distance(self) -> float:
    """In mm; 0 where there is little to choose between places."""
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
  """Where `moving` lies beside `fixed`, to about half a millimetre.

  Args:
    fixed: the reference.
    moving: of the same subject, in the same world frame, or so it is said.
    windows: theirs.

  Returns:
    The offset, or None where the volumes hardly overlap.
  """
  grid = _common_grid(fixed, moving)
  if grid is None:
    return None
  a, b = (
    _codes(volume, window, grid)
    for volume, window in zip((fixed, moving), windows, strict=True)
  )
  step = float(grid.affine[0, 0])
  # Most of either volume has to stay in sight of the other.
  reach = np.minimum(int(_REACH_MM // step), np.array(grid.shape) // 5)
  shift = np.zeros(3, int)
  here = _information(a, b, shift)
  found = {(0, 0, 0): here}

  def at(place: np.ndarray) -> float:
    key = tuple(place.tolist())
    if key not in found:
      found[key] = _information(a, b, place)
    return found[key]

  for _ in range(_ROUNDS):
    before = shift
    for axis, most in zip(np.eye(3, dtype=int), reach, strict=True):
      line = [shift * (1 - axis) + axis * d for d in range(-most, most + 1)]
      best = max(line, key=at)
      # A best place at the end of the line is no maximum.
      if abs(best @ axis) < most:
        shift = best
    if (shift == before).all():
      break
  exact = [
    s + _vertex(at(shift - axis), at(shift), at(shift + axis))
    for s, axis in zip(shift, np.eye(3, dtype=int), strict=True)
  ]
  return Offset(tuple(float(e * step) for e in exact), float(at(shift) - here))


def _common_grid(a: Volume, b: Volume) -> Grid | None:
  """Isotropic places along RAS axes, where both volumes are."""
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
  """Values in bins; `_NOWHERE` outside the volume."""
  sampled = resample(volume, grid, fill=np.nan)
  outside = np.isnan(sampled)
  level = window.normalise(np.where(outside, window.low, sampled))
  code = np.minimum(((level + 1) / 2 * _BINS).astype(np.int32), _BINS - 1)
  return np.where(outside, _NOWHERE, code)


def _information(a, b, shift: Int[np.ndarray, 3]) -> float:
  """(H(a) + H(b)) / H(a, b) with `b` looked up `shift` voxels further on."""
  here = tuple(
    slice(max(-s, 0), n - max(s, 0))
    for s, n in zip(shift.tolist(), a.shape, strict=True)
  )
  there = tuple(
    slice(max(s, 0), n - max(-s, 0))
    for s, n in zip(shift.tolist(), a.shape, strict=True)
  )
  pairs = a[here] * (_BINS + 1) + b[there]
  counts = np.bincount(pairs.ravel(), minlength=(_BINS + 1) ** 2)
  joint = counts.reshape(_BINS + 1, _BINS + 1)[:_BINS, :_BINS].astype(float)
  if not joint.sum():
    return 0.0
  joint /= joint.sum()
  together = _entropy(joint)
  if not together:
    return 0.0
  return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / together


def _entropy(share: Float[np.ndarray, ...]) -> float:
  some = share[share > 0]
  return float(-(some * np.log(some)).sum())


def _vertex(before: float, here: float, after: float) -> float:
  """Where the parabola through three neighbours has its top, within half."""
  bend = before - 2 * here + after
  if bend >= 0:
    return 0.0
  return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
