"""Sampling grids: slices on a square canvas, and the way back.

Resampling is nibabel's: linear, after a Gaussian where the target grid is the
coarser one, so that nothing aliases. All grids are tied by world coordinates;
nothing is registered here.
"""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from nibabel import processing

from synermedgen_jax.slices.volumes import Volume

_ROUNDING = 1e-3  # voxels

# Where columns, rows and slices of a plane run to: left, posterior, ...
PLANES = {'axial': 'LPS', 'coronal': 'LIP', 'sagittal': 'PIL'}
# What is up in a picture of them, and what is on its left.
PICTURED = {
  'axial': 'Anterior is up, the patient’s right on the left',
  'coronal': 'Superior is up, the patient’s right on the left',
  'sagittal': 'Superior is up, anterior on the left',
}


@dataclasses.dataclass(frozen=True)
class Grid:
  """Places to sample at.

  Attributes:
    shape: voxels along each axis.
    affine: (4, 4), indices to RAS+ millimetres.
  """

  shape: tuple[int, int, int]
  affine: np.ndarray

  @classmethod
  def of(cls, volume: Volume) -> Grid:
    """The grid of a volume's own voxels."""
    return cls(volume.data.shape, volume.affine)


def slice_grid(volume: Volume, canvas: int, plane: str = 'axial') -> Grid:
  """The slices of a volume on a square canvas.

  Axes are (column, row, slice), as a radiologist looks at them: of axial
  slices, columns run to the patient's left, rows to posterior, slices upwards
  (`PLANES` has the others). Slices are the volume's own; in the plane, its
  longer side fills the canvas.

  Args:
    volume: gives the field of view and the slice positions; axes may be
      oblique, the nearest anatomical ones are taken.
    canvas: pixels along each side.
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
  # Half a voxel beyond the first centre is where the field of view begins.
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
  """The volume's values at the places of a grid, float32.

  Args:
    volume: what to sample.
    grid: where.
    fill: value of places outside the volume, NaN allowed; None = that of the
      nearest voxel. The volume ends where its outermost voxels do, half a
      voxel beyond their centres.
  """
  # How many voxels of the volume a step of the grid spans, per volume axis.
  steps = np.linalg.inv(volume.affine)[:3, :3] @ grid.affine[:3, :3]
  coarser = np.maximum(np.linalg.norm(steps, axis=1), 1.0)
  # The voxel of a coarser grid as a Gaussian of that width at half maximum,
  # less the width that the source has already.
  fwhm = volume.spacing * np.sqrt(coarser**2 - 1.0)
  image = nib.Nifti1Image(volume.data, volume.affine)
  if fwhm.max() > 0.1 * volume.spacing.min():
    image = processing.smooth_image(image, fwhm, mode='nearest')
  # Not with `cval`, which begins at the outermost centres: a slice that lies
  # on them would be lost to rounding.
  out = processing.resample_from_to(
    image, (grid.shape, grid.affine), order=1, mode='nearest'
  )
  data = np.asarray(out.dataobj, np.float32)
  return data if fill is None else np.where(_inside(volume, grid), data, fill)


def _inside(volume: Volume, grid: Grid) -> Bool[np.ndarray, 'x y z']:
  """Which places of the grid lie within a voxel of the volume."""
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
  """Values on a slice grid as a stack of pictures."""
  return np.ascontiguousarray(data.transpose(2, 1, 0))


def from_slices(data: Float[np.ndarray, 'z h w']) -> Float[np.ndarray, 'x y z']:
  """The inverse of `to_slices`."""
  return np.ascontiguousarray(data.transpose(2, 1, 0))
