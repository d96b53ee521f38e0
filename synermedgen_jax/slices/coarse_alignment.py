"""Coarse search over all shifts, mirror images and quarter turns of a volume.

Both volumes are resampled onto a coarse isotropic grid and their values are
sorted into a few bins. The joint histograms of all shifts at once are
correlations of the bins, computed by FFT. The score of a shift is the mutual
information of the overlap, times the share of voxels that overlap: without that
share, shifts with a small overlap would win by chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import fft

from synermedgen_jax.slices.grids import Grid, resample
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

_BINS = 6
_VOXELS = 20_000  # of the larger volume on the grid
_FINEST_MM = 2.0
# Fewer voxels say too little about the orientation.
_LEAST_VOXELS = 500

_AXES = ('left to right', 'front to back', 'head to foot')
_ABOUT = ('left-right', 'front-back', 'head-foot')


@dataclasses.dataclass(frozen=True)
class Placement:
  """A shift and an orientation of the moving volume, with its score.

  Attributes:
    mm: shift towards the patient's right, anterior and superior.
    orientation: such as 'mirrored left to right'; '' = as the file says.
    score: mutual information in nats, times the share of overlapping voxels.
    unmoved: score of the volume as it is.
    step: size of a grid voxel in mm; `mm` is exact to about half of it.
  """

  mm: tuple[float, float, float]
  orientation: str
  score: float
  unmoved: float
  step: float

  @property
  def gain(self) -> float:
    """Relative increase of the score over that of the volume as it is."""
    return self.score / max(self.unmoved, 1e-6) - 1.0


@dataclasses.dataclass(frozen=True)
class _Binned:
  """Values of a volume on the coarse grid.

  Attributes:
    codes: bin of every voxel.
    measured: voxels inside the volume.
    first: index of the first voxel on the common lattice of both volumes.
  """

  codes: Int[np.ndarray, 'x y z']
  measured: Bool[np.ndarray, 'x y z']
  first: Int[np.ndarray, ' 3']


def search(
  fixed: Volume, moving: Volume, windows: tuple[Window, Window]
) -> tuple[Placement, Placement]:
  """Finds the shift, and the orientation, that fit `fixed` best.

  Args:
    fixed: the reference volume.
    moving: a volume of the same subject, in any position.
    windows: windows of `fixed` and of `moving`.

  Returns:
    The best placement in the orientation of the file, and the best one among
    three mirror images, three half turns and six quarter turns about the
    centre of the volume. The second is the first if there are too few voxels.
  """
  step = _step(fixed, moving)
  origin = np.minimum(fixed.corners.min(0), moving.corners.min(0))
  a, b = (
    _binned(volume, window, step, origin)
    for volume, window in zip((fixed, moving), windows, strict=True)
  )
  # Every orientation fits into this shape.
  longest = max(b.codes.shape)
  shape = tuple(
    fft.next_fast_len(n + longest, real=True) for n in a.codes.shape
  )
  spectra = fft.rfftn(_indicators(a.codes, a.measured), shape, axes=(1, 2, 3))
  voxels = min(a.measured.sum(), b.measured.sum())

  def scores(codes, measured) -> Float[np.ndarray, 'x y z']:
    other = fft.rfftn(_indicators(codes, measured), shape, axes=(1, 2, 3))
    return _information(spectra, other, shape) / voxels

  zero = tuple((b.first - a.first) % np.array(shape))
  as_is = scores(b.codes, b.measured)
  best = np.unravel_index(as_is.argmax(), shape)
  unmoved = float(as_is[zero])
  shift = (np.array(zero) - np.array(best)) * step
  extent = np.array(shape) * step
  shift = (shift + extent / 2) % extent - extent / 2
  same = Placement(tuple(shift.tolist()), '', float(as_is[best]), unmoved, step)
  other = same
  if voxels >= _LEAST_VOXELS:
    for name, axes, turns in _orientations():
      codes, measured = (
        np.rot90(x, turns, axes) if turns else np.flip(x, axes)
        for x in (b.codes, b.measured)
      )
      score = float(scores(codes, measured).max())
      if not other.orientation or score > other.score:
        other = Placement((0.0, 0.0, 0.0), name, score, unmoved, step)
  return same, other


def _step(fixed: Volume, moving: Volume) -> float:
  """Size of a grid voxel in mm."""
  extents = [
    np.ptp(v.corners, axis=0) + v.spacing.min() for v in (fixed, moving)
  ]
  larger = max(float(extent.prod()) for extent in extents)
  return max(_FINEST_MM, (larger / _VOXELS) ** (1 / 3))


def _binned(
  volume: Volume, window: Window, step: float, origin: Float[np.ndarray, ' 3']
) -> _Binned:
  """Samples a volume and sorts its values into bins of equal population.

  The lowest value is a bin of its own if it is frequent, as the background of
  skull-stripped images.
  """
  low, high = volume.corners.min(0), volume.corners.max(0)
  first = np.floor((low - origin) / step).astype(int)
  affine = np.diag([step, step, step, 1.0])
  affine[:3, 3] = origin + first * step
  shape = np.ceil((high - affine[:3, 3]) / step).astype(int) + 1
  sampled = resample(
    window.clip(volume), Grid(tuple(shape.tolist()), affine), fill=np.nan
  )
  measured = ~np.isnan(sampled)
  values = sampled[measured]
  lowest = float(values.min(initial=np.inf))
  above = values[values > lowest]
  bins = _BINS
  edges = []
  if len(above) < (1 - 1 / _BINS) * len(values):
    edges, bins, values = [lowest], _BINS - 1, above
  if len(values):
    edges += np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]).tolist()
  codes = np.searchsorted(np.unique(edges), np.nan_to_num(sampled))
  return _Binned(codes.astype(np.int32), measured, first)


def _indicators(codes, measured) -> Float[np.ndarray, 'bins x y z']:
  """One array per bin: 1 where a measured voxel has that bin."""
  return np.stack(
    [((codes == i) & measured).astype(np.float32) for i in range(_BINS)]
  )


def _information(a, b, shape) -> Float[np.ndarray, 'x y z']:
  """Mutual information times the overlapping voxels, for every shift."""

  def entropy_sum(counts: np.ndarray) -> np.ndarray:
    return counts * np.log(np.maximum(counts, 1e-3))

  def correlate(x, y):
    return np.maximum(fft.irfftn(x * np.conj(y), shape), 0)

  # Sums of bins are marginals: fewer transforms than adding up joint counts.
  all_a, all_b = a.sum(0), b.sum(0)
  total = entropy_sum(correlate(all_a, all_b))
  for i in range(_BINS):
    total -= entropy_sum(correlate(a[i], all_b))
    total -= entropy_sum(correlate(all_a, b[i]))
    for j in range(_BINS):
      total += entropy_sum(correlate(a[i], b[j]))
  return total


def _orientations() -> Iterator[tuple[str, tuple[int, ...], int]]:
  """Yields names with the axes to flip, or to turn by quarter turns."""
  for axis, name in enumerate(_AXES):
    yield f'mirrored {name}', (axis,), 0
  for axis, name in enumerate(_ABOUT):
    others = tuple(i for i in range(3) if i != axis)
    yield f'turned by 180° about the {name} axis', others, 0
    for turns in (1, 3):
      yield f'turned by 90° about the {name} axis', others, turns
