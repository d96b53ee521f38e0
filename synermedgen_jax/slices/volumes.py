"""Reads and writes volume files with their geometry and physical units.

nifti.py, itk.py (MetaImage, NRRD) and dicom.py read one format each. In memory,
every volume is float32 [x, y, z] with an affine to RAS+ millimetres, whatever
the orientation on disk.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import secrets
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.errors import UserError, VolumeError
from synermedgen_jax.slices.dicom import holds_dicom, read_series
from synermedgen_jax.slices.itk import METAIMAGE, NRRD, read_itk
from synermedgen_jax.slices.nifti import (
  CheckShape,
  any_shape,
  read_forms,
  read_nifti,
)

NIFTI = ('.nii', '.nii.gz')
ITK = (*METAIMAGE, *NRRD)
SUFFIXES = (*NIFTI, *ITK)
_SAME_MM = 0.1  # headers store float32, and exporters round
_SPACING_MM = (0.005, 100.0)  # voxel sizes; others come from a wrong unit
_FARTHEST_MM = 1e5  # float32, as NIfTI-1 stores it, has steps of 0.008 mm here
_LONGEST_AXIS = 32767  # of NIfTI-1, which `write_volume` writes
# Errors of nibabel, gzip and SimpleITK for files with invalid contents.
_READ_ERRORS = (
  OSError,
  EOFError,
  OverflowError,
  RuntimeError,
  ValueError,
  zlib.error,
  nib.spatialimages.HeaderDataError,
)


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


def read_volume(
  path: str | Path,
  *,
  series: str = '',
  may_be_zero: bool = False,
  check_shape: CheckShape = any_shape,
) -> Volume:
  """Reads a 3-D volume; trailing axes of length 1 are dropped.

  Args:
    path: a NIfTI, MetaImage or NRRD file; a folder named like one that holds
      it; or a DICOM series or study, as a folder or zip.
    series: number, description or modality of a DICOM series, if `path` holds
      several.
    may_be_zero: accept a volume of zeros alone, as a mask may be.
    check_shape: gets the shape (x, y, z) that the headers state, before voxels
      are read, and raises an error to refuse it.

  Raises:
    VolumeError: the file is missing, truncated or not 3-D, leaves the position
      or unit of its voxels open, has voxels that are not real or not finite
      numbers, or is empty (one value everywhere).
  """
  path = locate(path)
  if path.is_dir() or path.name.lower().endswith('.zip'):
    read = read_series(path, series=series, check_shape=check_shape)
  elif series:
    raise VolumeError(f'{path}: is not DICOM, which alone has series.')
  else:
    read = _read_file(path, check_shape)
  _check(path, *read, may_be_zero)
  return Volume(*read)


def locate(path: str | Path) -> Path:
  """The file or DICOM folder that a path names.

  Some programs unpack `ct.nii.gz` into a folder of this name: its single
  volume is returned.

  Raises:
    VolumeError: nothing exists at the path, it cannot be accessed, or a folder
      named like a volume holds none or several.
  """
  path = Path(path)
  try:
    if path.is_dir():
      entries = sorted(p for p in path.iterdir() if p.name[0] not in '._')
    elif path.exists() and not path.is_file():
      raise VolumeError(f'{path}: is neither a file nor a folder.')
    else:
      with path.open('rb'):
        return path
  except FileNotFoundError:
    state = 'no such file'
    if path.is_symlink():
      state = f'a link to {os.readlink(path)}, which does not exist'
    raise VolumeError(f'{path}: {state}.') from None
  except OSError as error:
    raise VolumeError(f'{path}: cannot be read ({error.strerror}).') from None
  if not has_volume_suffix(path):
    return path
  volumes = [p for p in entries if has_volume_suffix(p)]
  if len(volumes) == 1:
    return locate(volumes[0])
  if not volumes and holds_dicom(path):
    return path
  names = ', '.join(p.name for p in entries[:5]) or 'nothing'
  raise VolumeError(
    f'{path}: is a folder that holds {names}; expected one volume in it.'
  )


def _read_file(
  path: Path, check_shape: CheckShape
) -> tuple[np.ndarray, np.ndarray]:
  name = path.name.lower()
  if name.endswith(('.hdr', '.img', '.hdr.gz', '.img.gz')):
    raise VolumeError(
      f'{path}: is half of an Analyze or NIfTI pair; convert both to one '
      '.nii.gz file.'
    )
  if name.endswith(('.dcm', '.ima')):
    raise VolumeError(
      f'{path}: is one DICOM file; give the folder of its series.'
    )
  if not has_volume_suffix(path):
    raise VolumeError(
      f'{path}: not a volume; expected a name ending in {", ".join(SUFFIXES)}, '
      'or a DICOM folder or zip.'
    )
  try:
    read = read_nifti if name.endswith(NIFTI) else read_itk
    return read(path, check_shape)
  except UserError:
    raise
  except _READ_ERRORS as error:
    # SimpleITK's message begins with its source lines and ends with the cause.
    reason = (str(error).splitlines() or [type(error).__name__])[-1]
    raise VolumeError(
      f'{path}: cannot be read, truncated or not a volume ({reason}).'
    ) from error


def _check(
  path: Path, data: np.ndarray, affine: np.ndarray, may_be_zero: bool
) -> None:
  if not data.size:
    raise VolumeError(f'{path}: has no voxels, shape {data.shape}.')
  if max(data.shape) > _LONGEST_AXIS:
    raise VolumeError(
      f'{path}: has shape {data.shape}, expected at most {_LONGEST_AXIS} '
      'voxels along an axis.'
    )
  low, high = data.min(), data.max()  # NaN if any voxel is
  if not (np.isfinite(low) and np.isfinite(high)):
    bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    raise VolumeError(
      f'{path}: {bad} of {data.size} voxels are NaN or infinite; '
      'replace them by the background value.'
    )
  if low == high and not (may_be_zero and low == 0):
    raise VolumeError(f'{path}: is empty, every voxel is {low:g}.')
  if not np.isfinite(affine).all() or not abs(np.linalg.det(affine)) > 1e-12:
    raise VolumeError(
      f'{path}: its affine cannot be inverted; correct spacing and direction.'
    )
  if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
    raise VolumeError(
      f'{path}: its first voxel lies at {affine[:3, 3]} mm, expected at most '
      f'{_FARTHEST_MM:g}; correct the origin in the header.'
    )
  spacing = np.linalg.norm(affine[:3, :3], axis=0)
  if spacing.min() < _SPACING_MM[0] or spacing.max() > _SPACING_MM[1]:
    raise VolumeError(
      f'{path}: its voxels measure {" x ".join(f"{s:g}" for s in spacing)} mm, '
      f'expected {_SPACING_MM[0]:g} to {_SPACING_MM[1]:g}; correct the unit of '
      'the header.'
    )


def same_grid(a: Volume, b: Volume) -> bool:
  """Whether the voxels of both volumes coincide to within 0.1 mm."""
  if a.data.shape != b.data.shape:
    return False
  distances = np.linalg.norm(a.corners - b.corners, axis=1)
  return bool(distances.max() <= _SAME_MM)


def check_same_grid(
  path: str | Path,
  volume: Volume,
  reference_path: str | Path,
  reference: Volume,
  *,
  remedy: str,
) -> None:
  """Refuses a volume on another grid than the reference.

  Args:
    path, volume: the volume and its file.
    reference_path, reference: what it is compared with.
    remedy: what the user can do, for the message.

  Raises:
    VolumeError: naming the file, and whether shape or affine differs.
  """
  if same_grid(reference, volume):
    return
  shapes = reference.data.shape, volume.data.shape
  part = 'shape' if shapes[0] != shapes[1] else 'affine'
  detail = f' {shapes[1]} and {shapes[0]}' if part == 'shape' else ''
  raise VolumeError(
    f'{path}: its {part} differs from {Path(reference_path).name}{detail}; '
    f'{remedy}'
  )


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
    raise VolumeError(f'{path}: cannot be written, {folder} is not a folder.')
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
  path: str | Path,
  volume: Volume,
  *,
  like: str | Path | None = None,
  integers: bool = False,
  description: str = '',
) -> None:
  """Writes a NIfTI file atomically.

  Args:
    path: file name ending in .nii or .nii.gz.
    volume: the volume.
    like: a file on the same grid, as `read_volume` takes it; if it is NIfTI,
      its valid sform and qform are copied, in mm.
    integers: round to int16, as scanners store HU; otherwise float32.
    description: text in the header, up to 79 characters.

  Raises:
    VolumeError: the suffix is not NIfTI's, `like` is on another grid, a value
      is not finite or beyond int16, or the file cannot be written.
  """
  _check_output_name(path)
  path = Path(path)
  if not np.isfinite(volume.data).all():
    raise VolumeError(f'{path}: not written, as some values are not finite.')
  data = _int16(path, volume) if integers else np.float32(volume.data)
  image = nib.Nifti1Image(data, volume.affine)
  image.header['descrip'] = description.encode()
  image.header.set_xyzt_units('mm')
  like = None if like is None else locate(like)
  if like is not None and like.name.lower().endswith(NIFTI):
    forms = read_forms(like)
    image.set_sform(forms.sform, forms.sform_code)
    image.set_qform(forms.qform, forms.qform_code)
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


def _int16(path: Path, volume: Volume) -> np.ndarray:
  data = np.rint(volume.data)
  limits = np.iinfo(np.int16)
  if data.min() < limits.min or data.max() > limits.max:
    raise VolumeError(
      f'{path}: has values from {data.min():g} to {data.max():g}, beyond the '
      'range of int16.'
    )
  return data.astype(np.int16)
