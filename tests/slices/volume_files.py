"""Small volumes and files for the tests of slices."""

import nibabel as nib
import numpy as np

from synermedgen_jax.slices.volumes import Volume


def write_nifti(path, data, affine=None, *, slope=1, inter=0, sform=1, qform=1):
  """A NIfTI file with exactly these numbers and codes; returns its path."""
  affine = np.eye(4) if affine is None else np.asarray(affine, float)
  image = nib.Nifti1Image(np.asarray(data), affine)
  image.header.set_slope_inter(slope, inter)
  image.header.set_sform(affine, sform)
  image.header.set_qform(affine, qform)
  path.parent.mkdir(parents=True, exist_ok=True)
  nib.save(image, path)
  return path


def turned(volume: Volume, axes: str) -> Volume:
  """The same volume with its array stored along `axes`, such as 'PIR'."""
  image = nib.Nifti1Image(volume.data, volume.affine)
  ornt = nib.orientations.ornt_transform(
    nib.io_orientation(volume.affine), nib.orientations.axcodes2ornt(axes)
  )
  image = image.as_reoriented(ornt)
  return Volume(np.asarray(image.dataobj, np.float32), image.affine)


def affine_of(spacing=(1, 1, 1), origin=(0, 0, 0)):
  affine = np.diag([*map(float, spacing), 1.0])
  affine[:3, 3] = origin
  return affine


def disc(shape, radius, centre=None):
  """[z, h, w] of bool: a cylinder along z."""
  _, rows, columns = np.indices(shape)
  y, x = centre or ((shape[1] - 1) / 2, (shape[2] - 1) / 2)
  return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
