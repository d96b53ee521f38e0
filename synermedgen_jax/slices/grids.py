"""Sampling grids: volumes to slices on a canvas, and back.

Resampling interpolates linearly, after a Gaussian filter where the target grid
is coarser, which prevents aliasing. A field that is linear in world coordinates
is sampled exactly between the outermost voxel centres, and comes back exactly
at every voxel. Grids with parallel axes take one matrix product per axis; for
others nibabel interpolates in three dimensions. World coordinates relate all
grids; this module does not register volumes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Int
from nibabel import processing
from scipy import ndimage

from synermedgen_jax.core.size import Size
from synermedgen_jax.slices.volumes import Volume

_ROUNDING = 1e-3  # voxels
_AFFINES = 3e-5  # voxels; rounding of affines in float32 or with 6 decimals
_ON_CENTRE = 1e-6  # voxels
_OBLIQUE = 1e-6  # share of a step along other axes that counts as none
_TRUNCATE = 4.0  # radius of the Gaussian in standard deviations, as in SciPy
_LEAST_SIGMA = 0.04  # voxels; narrower filters change nothing

# Directions of increasing column, row and slice: L(eft), P(osterior), ...
PLANES = {'axial': 'LPS', 'coronal': 'LIP', 'sagittal': 'PIL'}
# Orientation of a displayed slice, for captions.
PICTURED = {
  'axial': 'Anterior is up, the patient’s right on the left',
  'coronal': 'Superior is up, the patient’s right on the left',
  'sagittal': 'Superior is up, anterior on the left',
}


@dataclasses.dataclass(frozen=True)
class Grid:
  """A grid of sample points.

  Attributes:
    shape: points along each axis.
    affine: (4, 4), indices to RAS+ millimetres.
  """

  shape: tuple[int, int, int]
  affine: np.ndarray

  @classmethod
  def of(cls, volume: Volume) -> Grid:
    """The grid of a volume's own voxels."""
    return cls(volume.data.shape, volume.affine)


def slice_grid(volume: Volume, canvas: Size, plane: str = 'axial') -> Grid:
  """The grid of a volume's slices on a canvas with square pixels.

  Axes are (column, row, slice) in radiological convention: in axial slices,
  columns run to the patient's left, rows to posterior and slices to superior
  (`PLANES` lists all planes). Slice positions are the volume's own. The canvas
  is centred on the field of view, which fills its height, its width or both.

  Args:
    volume: gives the field of view and the slice positions; oblique axes count
      as the nearest anatomical ones.
    canvas: height and width in pixels.
    plane: a name in `PLANES`.
  """
  shape, affine, spacing = _in_plane(volume, plane)
  extent = shape * spacing
  pixels = np.array(canvas[::-1])  # columns, rows
  pixel = (extent[:2] / pixels).max()
  # The field of view begins half a voxel before the first centre.
  step = np.array([pixel / spacing[0], pixel / spacing[1], 1.0])
  first = np.array(
    [
      *((shape[:2] - 1) / 2 - (pixels - 1) / 2 * step[:2]),
      0.0,
    ]
  )
  # Between two pixels, a volume narrower than a pixel would not be sampled.
  first[:2] += np.where(extent[:2] < pixel, (1 - pixels % 2) * step[:2] / 2, 0)
  to_volume = np.eye(4)
  to_volume[:3, :3] = np.diag(step)
  to_volume[:3, 3] = first
  return Grid((*canvas[::-1], int(shape[2])), affine @ to_volume)


def field_of_view(volume: Volume, plane: str) -> tuple[float, float]:
  """Height and width in mm of a volume's slices in a plane of `PLANES`."""
  shape, _, spacing = _in_plane(volume, plane)
  width, height, _ = (shape * spacing).tolist()
  return height, width


def _in_plane(volume: Volume, plane: str):
  """Shape, affine and spacing of a volume along (column, row, slice)."""
  ornt = nib.orientations.ornt_transform(
    nib.io_orientation(volume.affine),
    nib.orientations.axcodes2ornt(PLANES[plane]),
  )
  shape = np.asarray(volume.data.shape)
  affine = volume.affine @ nib.orientations.inv_ornt_aff(ornt, shape)
  shape = shape[np.argsort(ornt[:, 0])]
  return shape, affine, np.linalg.norm(affine[:3, :3], axis=0)


def resample(
  volume: Volume, grid: Grid, *, fill: float | None
) -> Float[np.ndarray, 'x y z']:
  """Samples a volume at the points of a grid; returns float32.

  Args:
    volume: the volume to sample.
    grid: the sample points.
    fill: value outside the volume, may be NaN; None = value of the nearest
      voxel. The volume extends half a voxel beyond its outermost voxel centres.
  """
  to_voxel = np.linalg.inv(volume.affine) @ grid.affine
  axes = _parallel_axes(to_voxel)
  if axes is not None:
    return _resample_axes(volume.data, to_voxel, axes, grid.shape, fill)
  image = nib.Nifti1Image(
    _smooth(volume.data, _sigmas(to_voxel)), volume.affine
  )
  # `cval` would apply beyond the outermost voxel centres, so rounding could
  # remove a slice that contains them.
  out = processing.resample_from_to(
    image, (grid.shape, grid.affine), order=1, mode='nearest'
  )
  data = np.asarray(out.dataobj, np.float32)
  return data if fill is None else np.where(_inside(volume, grid), data, fill)


def _parallel_axes(to_voxel: Float[np.ndarray, '4 4']) -> list[int] | None:
  """The axis of the grid along each axis of the volume; None if oblique."""
  steps = np.abs(to_voxel[:3, :3])
  axes = steps.argmax(1)
  others = steps.copy()
  others[range(3), axes] = 0
  if len(set(axes)) < 3 or others.max() > _OBLIQUE * steps.max():
    return None
  return axes.tolist()


def _resample_axes(
  data: Float[np.ndarray, 'a b c'],
  to_voxel: Float[np.ndarray, '4 4'],
  axes: list[int],
  shape: tuple[int, int, int],
  fill: float | None,
) -> Float[np.ndarray, 'x y z']:
  """`resample` for parallel axes: one matrix product along each axis."""
  sigmas = _sigmas(to_voxel)
  positions = [
    to_voxel[axis, along] * np.arange(shape[along]) + to_voxel[axis, 3]
    for axis, along in enumerate(axes)
  ]
  # The axis that shrinks most comes first, which leaves least to compute.
  growth = [len(p) / n for p, n in zip(positions, data.shape, strict=True)]
  out = data.astype(np.float32, order='K', copy=False)
  for axis in np.argsort(growth, kind='stable').tolist():
    weights = _weights(data.shape[axis], positions[axis], sigmas[axis])
    out = _product(weights, out, axis)
  out = np.ascontiguousarray(out.transpose(np.argsort(axes)))
  if np.may_share_memory(out, data):
    out = out.copy()
  if fill is not None:
    for at, along, n in zip(positions, axes, data.shape, strict=True):
      out.swapaxes(0, along)[~_within(at, n)] = fill
  return out


def _weights(
  count: int, positions: Float[np.ndarray, ' out'], sigma: float
) -> Float[np.ndarray, 'out count']:
  """Matrix of a Gaussian filter, then linear interpolation at `positions`."""
  filtered = _smooth(np.eye(count, dtype=np.float32), [sigma, 0.0])
  at = np.clip(positions, 0, count - 1)
  at = np.where(np.abs(at - at.round()) < _ON_CENTRE, at.round(), at)
  low = at.astype(int)
  share = (at - low).astype(np.float32)[:, None]
  high = np.minimum(low + 1, count - 1)
  return filtered[low] * (1 - share) + filtered[high] * share


def _product(
  weights: Float[np.ndarray, 'out count'],
  data: Float[np.ndarray, ...],
  axis: int,
) -> Float[np.ndarray, ...]:
  """The product of a matrix with one axis of a volume of any memory order."""
  if np.array_equal(weights, np.eye(data.shape[axis])):
    return data
  if not data.flags.c_contiguous and data.T.flags.c_contiguous:
    return _product(weights, data.T, 2 - axis).T
  data = np.ascontiguousarray(data)
  if axis == 0:
    return (weights @ data.reshape(len(data), -1)).reshape(-1, *data.shape[1:])
  return weights @ data if axis == 1 else data @ weights.T


def resample_back(
  on_canvas: Volume, source: Grid, *, fill: float
) -> Float[np.ndarray, 'x y z']:
  """Samples slices at the voxels of the volume that they were cut from.

  Positions of the canvas beyond the outermost voxel centres of the source hold
  padding. They are replaced by a linear continuation of the others. An axis of
  the source with fewer than two canvas positions between its outermost centres
  has the value of the nearest position.

  Args:
    on_canvas: values on the grid that `slice_grid` or `SliceSpec.grid` made for
      the source.
    source: the grid of the source.
    fill: value outside the canvas, which may be smaller than the source.

  Raises:
    ValueError: no position of the canvas is inside the source.
  """
  covered = tuple(
    _covered(axis, count)
    for axis, count in _source_positions(on_canvas, source)
  )
  first = [axis.start for axis in covered]
  inner = Volume(on_canvas.data[covered], _shifted(on_canvas.affine, first))
  data = resample(_continued(inner, np.ones(3, int)), source, fill=None)
  return np.where(_inside(on_canvas, source), data, np.float32(fill))


def _source_positions(
  on_canvas: Volume, source: Grid
) -> list[tuple[Float[np.ndarray, ' n'], int]]:
  """For each axis of the canvas: voxel indices of its positions along the axis
  of the source that is parallel to it, and the length of that axis."""
  to_source = np.linalg.inv(source.affine) @ on_canvas.affine
  axes = np.abs(to_source[:3, :3]).argmax(0)
  return [
    (
      to_source[axis, column] * np.arange(on_canvas.data.shape[column])
      + to_source[axis, 3],
      source.shape[axis],
    )
    for column, axis in enumerate(axes)
  ]


def _covered(positions: Float[np.ndarray, ' n'], count: int) -> slice:
  """The positions within `count` voxels, without their outer halves if any."""
  for margin in (_AFFINES, 0.5 + _ROUNDING):
    inside = np.flatnonzero(
      (positions >= -margin) & (positions <= count - 1 + margin)
    )
    if inside.size:
      return slice(int(inside[0]), int(inside[-1]) + 1)
  raise ValueError('no position of the canvas is inside the volume.')


def _sigmas(to_voxel: Float[np.ndarray, '4 4']) -> Float[np.ndarray, ' 3']:
  """Standard deviations of the filter in voxels, for each axis of the volume.

  The width at half maximum is that of the coarser voxel, less that of the
  source voxel.
  """
  coarser = np.maximum(np.linalg.norm(to_voxel[:3, :3], axis=1), 1.0)
  sigmas = processing.fwhm2sigma(np.sqrt(coarser**2 - 1.0))
  return np.where(sigmas > _LEAST_SIGMA, sigmas, 0.0)


def _smooth(
  data: Float[np.ndarray, ...], sigmas: Sequence[float]
) -> Float[np.ndarray, ...]:
  """Filters each axis with a Gaussian of this standard deviation in voxels.

  A linear field stays as it is, at the ends too.
  """
  for axis, sigma in enumerate(sigmas):
    margin = int(np.ceil(_TRUNCATE * sigma))
    if not margin:
      continue
    pad = [(0, 0)] * data.ndim
    pad[axis] = (margin, margin)
    data = ndimage.gaussian_filter1d(
      np.pad(data, pad, mode='reflect', reflect_type='odd'),
      sigma,
      axis,
      mode='nearest',
      truncate=_TRUNCATE,
    )
    inner = [slice(None)] * data.ndim
    inner[axis] = slice(margin, -margin)
    data = data[tuple(inner)]
  return data


def _continued(volume: Volume, margin: Int[np.ndarray, ' 3']) -> Volume:
  """Adds a margin by odd reflection, which continues a linear field."""
  data = np.pad(
    volume.data,
    [(int(n), int(n)) for n in margin],
    mode='reflect',
    reflect_type='odd',
  )
  return Volume(data, _shifted(volume.affine, -np.asarray(margin)))


def _shifted(affine: np.ndarray, first) -> np.ndarray:
  """The affine of a grid that begins at the voxel `first`."""
  return affine @ nib.affines.from_matvec(np.eye(3), first)


def _inside(volume: Volume, grid: Grid) -> Bool[np.ndarray, 'x y z']:
  """Whether each point of the grid is inside a voxel of the volume."""
  to_voxel = np.linalg.inv(volume.affine) @ grid.affine
  inside = np.ones(grid.shape, bool)
  j, k = np.indices(grid.shape[1:], sparse=True)
  for i, plane in enumerate(inside):  # one by one: positions are float64
    for (a, b, c, first), count in zip(
      to_voxel[:3], volume.data.shape, strict=True
    ):
      plane &= _within(a * i + b * j + c * k + first, count)
  return inside


def _within(
  positions: Float[np.ndarray, ...], count: int
) -> Bool[np.ndarray, ...]:
  """Whether positions, in voxels, are inside one of `count` voxels."""
  return (positions > -0.5 - _ROUNDING) & (positions < count - 0.5 + _ROUNDING)


def to_slices(data: Float[np.ndarray, 'x y z']) -> Float[np.ndarray, 'z h w']:
  """Values on a slice grid as a stack of images."""
  return np.ascontiguousarray(data.transpose(2, 1, 0))


def from_slices(data: Float[np.ndarray, 'z h w']) -> Float[np.ndarray, 'x y z']:
  """The inverse of `to_slices`."""
  return np.ascontiguousarray(data.transpose(2, 1, 0))
