"""Coarse search over all shifts, mirror images and quarter turns of a volume.

Both volumes are resampled onto a coarse isotropic grid and their values are
sorted into a few bins. The joint histograms of all shifts at once are
correlations of the bins, computed by FFT. The score of a shift is the mutual
information of the overlap, times the share of voxels that overlap: without that
share, shifts with a small overlap would win by chance. The best orientations
are then compared at shifts that are exact to a sixth of a grid voxel, because
only the orientation of the file has both volumes on one lattice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from scipy import fft, ndimage

from synermedgen_jax.slices.grids import Grid, resample
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

_BINS = 6
_VOXELS = 20_000  # of the larger volume on the grid
_FINEST_MM = 2.0
# Fewer voxels say too little about the orientation.
_LEAST_VOXELS = 500
# Orientations whose score is at least this share of the best are refined.
_REFINED = 0.75
_MOST_REFINED = 4
_REFINEMENTS = (1 / 3, 1 / 6)  # grid voxels
_FINER = 3  # samples of the moving volume per grid voxel along an axis

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
    affine: (4, 4), grid indices to RAS+ millimetres.
    edges: values between the bins.
  """

  codes: Int[np.ndarray, 'x y z']
  measured: Bool[np.ndarray, 'x y z']
  affine: Float[np.ndarray, '4 4']
  edges: Float[np.ndarray, ' edges']


def measured_part(volume: Volume, window: Window) -> Volume:
  """The volume in its window, without outer planes of the lowest value alone.

  Such planes are air, or places that were not measured, which resemble air.
  """
  volume = window.clip(volume)
  inside = volume.data > volume.data.min()
  if not inside.any():
    return volume
  (cut,) = ndimage.find_objects(inside.astype(np.uint8))
  first = [along.start for along in cut]
  affine = volume.affine @ nib.affines.from_matvec(np.eye(3), first)
  return Volume(volume.data[cut], affine)


def search(fixed: Volume, moving: Volume) -> tuple[Placement, Placement]:
  """Finds the shift, and the orientation, that fit `fixed` best.

  Args:
    fixed: `measured_part` of the reference volume.
    moving: `measured_part` of a volume of the same subject, in any position.

  Returns:
    The best placement in the orientation of the file, and the best one among
    three mirror images, three half turns and six quarter turns about the
    centre of the volume. The second is the first if there are too few voxels.
  """
  step = _step(fixed, moving)
  origin = np.minimum(fixed.corners.min(0), moving.corners.min(0))
  fine = _sampled(_averaged(moving, step), step / _FINER)
  a = _binned(_averaged(fixed, step), step, origin)
  b = _binned(fine, step, origin)
  correlator = _Correlator(a)
  offset = np.rint((b.affine - a.affine)[:3, 3] / step).astype(int)
  overlap = np.minimum(a.codes.shape, offset + b.codes.shape) - np.maximum(
    offset, 0
  )
  first, scores = correlator.scores(b.codes, b.measured, overlap)
  best = np.unravel_index(scores.argmax(), scores.shape)
  unmoved = float(scores[tuple(offset - first)])
  shift, score = _refined(a, b, fine, _affine_at(a, first + best))
  mm = (offset - first - best - shift) * step
  same = Placement(tuple(mm.tolist()), '', score, unmoved, step)
  if min(a.measured.sum(), b.measured.sum()) < _LEAST_VOXELS:
    return same, same
  coarse = []
  for name, orientation in _orientations():
    codes, measured = (
      nib.orientations.apply_orientation(x, orientation)
      for x in (b.codes, b.measured)
    )
    first, scores = correlator.scores(codes, measured)
    best = np.unravel_index(scores.argmax(), scores.shape)
    turn = nib.orientations.inv_ornt_aff(orientation, b.codes.shape)
    at = _affine_at(a, first + best) @ np.linalg.inv(turn)
    coarse.append((float(scores[best]), name, at))
  coarse.sort(key=lambda found: found[0], reverse=True)
  least = _REFINED * max(same.score, coarse[0][0])
  found = [
    (_refined(a, b, fine, at)[1] if value > least else value, name)
    for value, name, at in coarse[:_MOST_REFINED]
  ]
  score, name = max(found)
  return same, Placement((0.0, 0.0, 0.0), name, score, unmoved, step)


def similarity(fixed: Volume, moving: Volume) -> float:
  """The score of `moving` where it is; arguments as of `search`."""
  step = _step(fixed, moving)
  origin = np.minimum(fixed.corners.min(0), moving.corners.min(0))
  a, b = (_binned(_averaged(v, step), step, origin) for v in (fixed, moving))
  return _score(a, b, moving)


def _affine_at(a: _Binned, first) -> Float[np.ndarray, '4 4']:
  """The affine of a grid whose first voxel is voxel `first` of another."""
  return a.affine @ nib.affines.from_matvec(np.eye(3), first)


def _refined(
  a: _Binned,
  b: _Binned,
  fine: Volume,
  affine: Float[np.ndarray, '4 4'],
) -> tuple[Float[np.ndarray, ' 3'], float]:
  """The best shift by less than a grid voxel, in grid voxels, and its score.

  Args:
    a: the fixed volume.
    b: the moving volume.
    fine: the moving volume, sampled finely.
    affine: where the grid of `b` is placed.
  """
  step = a.affine[0, 0]
  to_place = affine @ np.linalg.inv(b.affine) @ fine.affine

  def score(shift) -> float:
    moved = nib.affines.from_matvec(np.eye(3), shift * step) @ to_place
    return _score(a, b, Volume(fine.data, moved))

  best, shift = score(np.zeros(3)), np.zeros(3)
  for length in _REFINEMENTS:
    for axis in np.eye(3):
      tried = [shift + length * axis, shift - length * axis]
      scores = [score(t) for t in tried]
      if max(scores) > best:
        best, shift = max(scores), tried[int(np.argmax(scores))]
  return shift, best


def _score(a: _Binned, b: _Binned, moving: Volume) -> float:
  """The score of a volume, which is that of `b` elsewhere, where it is."""
  sampled = resample(moving, Grid(a.codes.shape, a.affine), fill=np.nan)
  both = a.measured & ~np.isnan(sampled)
  codes = np.searchsorted(b.edges, sampled[both])
  pairs = np.bincount(a.codes[both] * _BINS + codes, minlength=_BINS**2)
  joint = pairs.reshape(_BINS, _BINS, 1, 1, 1).astype(np.float32)
  voxels = min(a.measured.sum(), b.measured.sum())
  return float(_information(joint)[0, 0, 0] / voxels)


def _step(fixed: Volume, moving: Volume) -> float:
  """Size of a grid voxel in mm."""
  extents = [
    np.ptp(v.corners, axis=0) + v.spacing.min() for v in (fixed, moving)
  ]
  larger = max(float(extent.prod()) for extent in extents)
  return max(_FINEST_MM, (larger / _VOXELS) ** (1 / 3))


def _averaged(volume: Volume, step: float) -> Volume:
  """Averages blocks of voxels if they are much smaller than the grid's.

  Averaging before the filter of `resample` takes a fraction of its time.
  """
  counts = np.maximum(step // (2 * volume.spacing), 1).astype(int)
  shape = np.array(volume.data.shape) // counts
  if (counts == 1).all() or (shape < 2).any():
    return volume
  a, b, c = shape * counts
  blocks = volume.data[:a, :b, :c].reshape(
    *(n for pair in zip(shape, counts, strict=True) for n in pair)
  )
  affine = volume.affine @ nib.affines.from_matvec(
    np.diag(counts), (counts - 1) / 2
  )
  return Volume(blocks.mean((1, 3, 5), dtype=np.float32), affine)


def _sampled(volume: Volume, step: float) -> Volume:
  """The volume on an isotropic grid along RAS axes."""
  low, high = volume.corners.min(0), volume.corners.max(0)
  shape = np.ceil((high - low) / step).astype(int) + 1
  affine = nib.affines.from_matvec(np.eye(3) * step, low)
  grid = Grid(tuple(shape.tolist()), affine)
  return Volume(resample(volume, grid, fill=None), affine)


def _binned(
  volume: Volume, step: float, origin: Float[np.ndarray, ' 3']
) -> _Binned:
  """Samples a volume and sorts its values into bins of equal population.

  The lowest value is a bin of its own if it is frequent, as the background of
  skull-stripped images.
  """
  low, high = volume.corners.min(0), volume.corners.max(0)
  first = np.floor((low - origin) / step).astype(int)
  affine = nib.affines.from_matvec(np.eye(3) * step, origin + first * step)
  shape = np.ceil((high - affine[:3, 3]) / step).astype(int) + 1
  sampled = resample(volume, Grid(tuple(shape.tolist()), affine), fill=np.nan)
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
  edges = np.unique(edges)
  codes = np.searchsorted(edges, np.nan_to_num(sampled))
  return _Binned(codes.astype(np.int32), measured, affine, edges)


class _Correlator:
  """Scores shifts of a volume against a fixed one.

  Only shifts are scored at which half of the smaller volume overlaps along each
  axis. Transforms can then be shorter than the sum of both volumes.
  """

  def __init__(self, fixed: _Binned):
    self._fixed = fixed
    # By length, since several orientations have the same lengths.
    self._spectra: dict[tuple[int, ...], np.ndarray] = {}

  def scores(
    self, codes, measured, overlap: Int[np.ndarray, ' 3'] | None = None
  ) -> tuple[Int[np.ndarray, ' 3'], Float[np.ndarray, 'x y z']]:
    """Scores every shift of the volume with these bins.

    Args:
      codes: bin of every voxel.
      measured: voxels inside the volume.
      overlap: voxels along each axis that shifts may overlap by if that is less
        than half of the smaller volume; None = half.

    Returns:
      The first shift, which is the position of the volume's first voxel in the
      fixed one, and the scores of the shifts from there on.
    """
    fixed, size = np.array(self._fixed.codes.shape), np.array(codes.shape)
    least = (np.minimum(fixed, size) + 1) // 2
    if overlap is not None:
      least = np.minimum(least, overlap)
    first, last = least - size, fixed - least
    lengths = tuple(
      fft.next_fast_len(int(n), real=True) for n in fixed + size - least
    )
    shifts = np.ix_(
      *(
        np.arange(low, high + 1) % length
        for low, high, length in zip(first, last, lengths, strict=True)
      )
    )
    if lengths not in self._spectra:
      self._spectra[lengths] = _spectra(
        self._fixed.codes, self._fixed.measured, lengths
      )
    a, b = self._spectra[lengths], np.conj(_spectra(codes, measured, lengths))
    joint = np.empty((_BINS, _BINS, *(last - first + 1)), np.float32)
    for i, j in np.ndindex(_BINS, _BINS):
      joint[i, j] = fft.irfftn(a[i] * b[j], lengths)[shifts]
    voxels = min(self._fixed.measured.sum(), measured.sum())
    return first, _information(np.maximum(joint, 0)) / voxels


def _spectra(codes, measured, shape) -> Complex[np.ndarray, 'bins x y z']:
  """One transform per bin, of the voxels that have it."""
  indicators = [((codes == i) & measured) for i in range(_BINS)]
  return fft.rfftn(np.stack(indicators).astype(np.float32), shape, (1, 2, 3))


def _information(
  joint: Float[np.ndarray, 'bins bins x y z'],
) -> Float[np.ndarray, 'x y z']:
  """Mutual information times the number of overlapping voxels."""

  def entropy_sum(counts: np.ndarray) -> np.ndarray:
    return counts * np.log(np.maximum(counts, 1e-3))

  return (
    entropy_sum(joint).sum((0, 1))
    - entropy_sum(joint.sum(0)).sum(0)
    - entropy_sum(joint.sum(1)).sum(0)
    + entropy_sum(joint.sum((0, 1)))
  )


def _orientations() -> Iterator[tuple[str, Int[np.ndarray, '3 2']]]:
  """Yields names with orientations as nibabel has them."""
  same = np.array([[0, 1], [1, 1], [2, 1]])
  for axis, name in enumerate(_AXES):
    mirrored = same.copy()
    mirrored[axis, 1] = -1
    yield f'mirrored {name}', mirrored
  for axis, name in enumerate(_ABOUT):
    others = [i for i in range(3) if i != axis]
    half = same.copy()
    half[others, 1] = -1
    yield f'turned by 180° about the {name} axis', half
    for sign in (-1, 1):
      quarter = same.copy()
      quarter[others] = [[others[1], sign], [others[0], -sign]]
      yield f'turned by 90° about the {name} axis', quarter
