"""Reads and writes volume files with their geometry and physical units.

nibabel reads NIfTI; SimpleITK reads MetaImage and NRRD. In memory, every volume
is float32 [x, y, z] with an affine to RAS+ millimetres, whatever the
orientation on disk.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

from synermedgen_jax.core.errors import VolumeError

NIFTI = ('.nii', '.nii.gz')
ITK = ('.mha', '.mhd', '.nrrd')
SUFFIXES = (*NIFTI, *ITK)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_MM = 0.1  # headers store float32, and exporters round


@dataclasses.dataclass(frozen=True)
class Volume:
  """Voxels and their geometry.

  Attributes:
    data: float32 [x, y, z] in physical units (HU, SUV or the scanner's).
    affine: (4, 4), voxel indices to RAS+ millimetres.
  """

  data: Float[np.ndarray, 'x y z']
  affine: Float[np.ndarray, '4 4']

  @property
  def spacing(self) -> np.ndarray:
    """Voxel size along x, y, z in mm."""
    return np.linalg.norm(self.affine[:3, :3], axis=0)

  @property
  def corners(self) -> Float[np.ndarray, '8 3']:
    """Centres of the corner voxels, RAS+ mm."""
    ends = itertools.product(*((0, n - 1) for n in self.data.shape))
    return np.array([(*end, 1) for end in ends]) @ self.affine[:3].T


def has_volume_suffix(path: Path) -> bool:
  """Whether `read_volume` supports the suffix of the path."""
  return path.name.lower().endswith(SUFFIXES)


def read_volume(path: str | Path) -> Volume:
  """Reads a 3-D volume; trailing axes of length 1 are dropped.

  Raises:
    VolumeError: the file is missing, truncated or not 3-D, has voxels that are
      not real or not finite numbers, or is empty (one value everywhere).
  """
  path = Path(path)
  if not path.is_file():
    raise VolumeError(f'{path}: no such file.')
  if not has_volume_suffix(path):
    raise VolumeError(
      f'{path}: not a volume; expected a name ending in {", ".join(SUFFIXES)}.'
    )
  try:
    if path.name.lower().endswith(NIFTI):
      data, affine = _read_nifti(path)
    else:
      data, affine = _read_itk(path)
  except VolumeError:
    raise
  except Exception as error:  # the libraries do not document their errors
    # SimpleITK's message begins with its source lines and ends with the cause.
    reason = (str(error).splitlines() or [type(error).__name__])[-1]
    raise VolumeError(
      f'{path}: cannot be read, truncated or not a volume ({reason}).'
    ) from error
  _check(path, data, affine)
  return Volume(data, affine)


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
  image = nib.load(path)
  shape = image.shape
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  if len(shape) != 3:  # checked before reading the voxels of a long series
    raise VolumeError(_not_3d(path, image.shape))
  _check_number(path, image.get_data_dtype())
  data = image.get_fdata(dtype=np.float32, caching='unchanged')
  return data.reshape(shape), np.asarray(image.affine, np.float64)


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
  image = sitk.ReadImage(str(path))
  if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
    raise VolumeError(_not_3d(path, image.GetSize()))
  affine = np.eye(4)
  direction = np.asarray(image.GetDirection()).reshape(3, 3)
  affine[:3, :3] = direction * np.asarray(image.GetSpacing())
  affine[:3, 3] = image.GetOrigin()
  data = sitk.GetArrayFromImage(image)
  _check_number(path, data.dtype)
  data = np.ascontiguousarray(data.transpose(2, 1, 0), np.float32)
  return data, _LPS_TO_RAS @ affine


def _not_3d(path: Path, shape) -> str:
  return (
    f'{path}: has shape {tuple(shape)}, expected one 3-D volume; '
    'extract one frame or channel.'
  )


def _check_number(path: Path, dtype: np.dtype) -> None:
  if dtype.kind not in 'iuf':
    raise VolumeError(
      f'{path}: has voxels of type {dtype}, expected one real number each.'
    )


def _check(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
  if not data.size or min(data.shape) < 1:
    raise VolumeError(f'{path}: has no voxels, shape {data.shape}.')
  bad = int(np.count_nonzero(~np.isfinite(data)))
  if bad:
    raise VolumeError(
      f'{path}: {bad} of {data.size} voxels are NaN or infinite; '
      'replace them by the background value.'
    )
  if data.min() == data.max():
    raise VolumeError(f'{path}: is empty, every voxel is {data.flat[0]:g}.')
  if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
    raise VolumeError(
      f'{path}: its affine cannot be inverted; set a valid sform or qform.'
    )


def same_grid(a: Volume, b: Volume) -> bool:
  """Whether the voxels of both volumes coincide to within 0.1 mm."""
  if a.data.shape != b.data.shape:
    return False
  distances = np.linalg.norm(a.corners - b.corners, axis=1)
  return bool(distances.max() <= _SAME_MM)


def check_writable(
  path: str | Path,
  like: str | Path | None = None,
  inputs: Iterable[str | Path] = (),
) -> None:
  """Checks that `write_volume` can write to `path`, before any work starts.

  A file is created next to the output and removed again. A disk that becomes
  full later is not detected.

  Args:
    path: the output, a local NIfTI file.
    like: the file that `write_volume` takes the geometry from.
    inputs: further files and folders that the output must not replace.

  Raises:
    VolumeError: the name is not that of a local NIfTI file or is too long; the
      output is a folder, one of the inputs (also through links) or inside an
      input folder; or its folder cannot be created or written.
  """
  _check_output_name(path)
  path = Path(path)
  try:
    folder = _nearest_folder(path)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise VolumeError(
      f'{path}: cannot be written ({error.strerror}).'
    ) from None
  if path.is_dir():
    raise VolumeError(f'{path}: is a folder; name the file to write.')
  for source in inputs if like is None else (like, *inputs):
    _check_not_input(path, Path(source))


def _nearest_folder(path: Path) -> Path:
  """The first existing folder above `path`; VolumeError if none can be made."""
  folder = path.parent
  while not os.path.lexists(folder):
    folder = folder.parent
  if not folder.is_dir():
    raise VolumeError(f'{path}: cannot be written, {folder} is no folder.')
  longest = os.pathconf(folder, 'PC_NAME_MAX')
  for part in path.relative_to(folder).parts:
    length = len(os.fsencode(part))
    if length > longest:
      raise VolumeError(
        f'{path}: a name has {length} bytes, more than the {longest} that the '
        'disk allows; choose a shorter one.'
      )
  return folder


def _check_output_name(path: str | Path) -> None:
  if re.match(r'[A-Za-z][\w+.-]+:/', str(path)):
    raise VolumeError(f'{path}: expected a local file, not an address.')
  if not str(path).lower().endswith(NIFTI):
    raise VolumeError(
      f'{path}: expected a name ending in {" or ".join(NIFTI)}.'
    )


def _check_not_input(path: Path, source: Path) -> None:
  resolved = Path(os.path.realpath(path))
  if source.is_dir():
    inside = Path(os.path.realpath(source)) in resolved.parents
    if inside:
      raise VolumeError(
        f'{path}: lies in the input folder {source}; write somewhere else.'
      )
    return
  same = path.exists() and source.exists() and path.samefile(source)
  if same or resolved == Path(os.path.realpath(source)):
    raise VolumeError(
      f'{path}: is the input {source}, which would be replaced; choose another '
      'output.'
    )


def write_volume(
  path: str | Path, volume: Volume, *, like: str | Path | None = None
) -> None:
  """Writes a NIfTI file (float32) atomically.

  Args:
    path: file name ending in .nii or .nii.gz.
    volume: the volume.
    like: a file on the same grid; if it is NIfTI, its sform and qform are
      copied.

  Raises:
    VolumeError: the suffix is not NIfTI's, or `like` is on another grid.
  """
  _check_output_name(path)
  path = Path(path)
  image = nib.Nifti1Image(volume.data.astype(np.float32), volume.affine)
  image.header.set_xyzt_units('mm')
  if like is not None and str(like).lower().endswith(NIFTI):
    header = nib.load(like).header
    image.set_sform(*header.get_sform(coded=True))
    image.set_qform(*header.get_qform(coded=True))
    if not same_grid(Volume(volume.data, image.affine), volume):
      raise VolumeError(f'{path}: the volume is not on the grid of {like}.')
  suffix = '.nii.gz' if path.name.lower().endswith('.gz') else '.nii'
  # A short name: the output's own may be as long as the disk allows.
  partial = path.with_name(f'.{secrets.token_hex(8)}.partial{suffix}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, partial)
    os.replace(partial, path)
  except OSError as error:
    reason = error.strerror or error
    raise VolumeError(f'{path}: cannot be written ({reason}).') from error
  finally:
    partial.unlink(missing_ok=True)
