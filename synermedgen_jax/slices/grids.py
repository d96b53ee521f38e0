"""Sampling grids: volumes to slices on a square canvas, and back.

Resampling uses nibabel: linear interpolation, after a Gaussian filter where the
target grid is coarser, which prevents aliasing. World coordinates relate all
grids; this module does not register volumes.
"""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from nibabel import processing

from synermedgen_jax.slices.volumes import Volume

_ROUNDING = 1e-3  # voxels

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


def slice_grid(volume: Volume, canvas: int, plane: str = 'axial') -> Grid:
  """The grid of a volume's slices on a square canvas.

  Axes are (column, row, slice) in radiological convention: in axial slices,
  columns run to the patient's left, rows to posterior and slices to superior
  (`PLANES` lists all planes). Slice positions are the volume's own; its longer
  in-plane side fills the canvas.

  Args:
    volume: gives the field of view and the slice positions; oblique axes count
      as the nearest anatomical ones.
    canvas: pixels per side.
    plane: a name in `PLANES`.
  """
  ornt = nib.orientations.ornt_transform(
    nib.io_orientation(volume.affine),
    nib.orientations.axcodes2ornt(PLANES[plane]),
  )
  shape = np.asarray(volume.data.shape)
  affine = volume.affine @ nib.orientations.inv_ornt_aff(ornt, shape)
  shape = shape[np.argsort(ornt[:, 0])]
  spacing = np.linalg.norm(affine[:3, :3], axis=0)
  extent = shape * spacing
  pixel = extent[:2].max() / canvas
  # The field of view begins half a voxel before the first centre.
  step = np.array([pixel / spacing[0], pixel / spacing[1], 1.0])
  first = np.array(
    [
      *((shape[:2] - 1) / 2 - (canvas - 1) / 2 * step[:2]),
      0.0,
    ]
  )
  to_volume = np.eye(4)
  to_volume[:3, :3] = np.diag(step)
  to_volume[:3, 3] = first
  return Grid((canvas, canvas, int(shape[2])), affine @ to_volume)


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
  # Voxels of the volume per step of the grid, along each axis of the volume.
  steps = np.linalg.inv(volume.affine)[:3, :3] @ grid.affine[:3, :3]
  coarser = np.maximum(np.linalg.norm(steps, axis=1), 1.0)
  # Width at half maximum of the coarser voxel, less that of the source voxel.
  fwhm = volume.spacing * np.sqrt(coarser**2 - 1.0)
  image = nib.Nifti1Image(volume.data, volume.affine)
  if fwhm.max() > 0.1 * volume.spacing.min():
    image = processing.smooth_image(image, fwhm, mode='nearest')
  # `cval` would apply beyond the outermost voxel centres, so rounding could
  # remove a slice that contains them.
  out = processing.resample_from_to(
    image, (grid.shape, grid.affine), order=1, mode='nearest'
  )
  data = np.asarray(out.dataobj, np.float32)
  return data if fill is None else np.where(_inside(volume, grid), data, fill)


def _inside(volume: Volume, grid: Grid) -> Bool[np.ndarray, 'x y z']:
  """Whether each point of the grid is inside a voxel of the volume."""
  to_voxel = np.linalg.inv(volume.affine) @ grid.affine
  i, j, k = np.indices(grid.shape, sparse=True)
  inside = np.ones(grid.shape, bool)
  for (a, b, c, first), count in zip(
    to_voxel[:3], volume.data.shape, strict=True
  ):
    at = a * i + b * j + c * k + first
    inside &= (at > -0.5 - _ROUNDING) & (at < count - 0.5 + _ROUNDING)
  return inside


def to_slices(data: Float[np.ndarray, 'x y z']) -> Float[np.ndarray, 'z h w']:
  """Values on a slice grid as a stack of images."""
  return np.ascontiguousarray(data.transpose(2, 1, 0))


def from_slices(data: Float[np.ndarray, 'z h w']) -> Float[np.ndarray, 'x y z']:
  """The inverse of `to_slices`."""
  return np.ascontiguousarray(data.transpose(2, 1, 0))
