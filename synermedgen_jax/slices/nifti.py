"""Reads NIfTI-1 and NIfTI-2 files whose header says where every voxel lies.

nibabel parses header and voxels; this module reads the fields that determine
positions as the standard defines them (nifti1.h), without nibabel's repairs
and guesses. Gzip is recognised by content, whatever the name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.errors import VolumeError

# Gets the shape that a header states before the voxels are read; may refuse.
CheckShape = Callable[[tuple[int, ...]], None]
_GZIP = b'\x1f\x8b'
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
# Millimetres per unit, by xyzt_units; files without a unit are in mm.
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_PIECE = 1 << 20
_MOST_PACKED = 1032  # gzip's largest ratio
_CODES = range(6)  # of nifti1.h: unknown, scanner, aligned, Talairach, ...
# Beginnings of other kinds of files, as (offset, bytes, name).
_OTHERS = (
  (0, _GZIP, 'compressed twice'),
  (0, b'PK\x03\x04', 'a zip archive'),
  (128, b'DICM', 'a DICOM file'),
  (0, b'NRRD', 'an NRRD file'),
  (0, b'ObjectType', 'a MetaImage file'),
  (0, b'version https://git-lfs', 'a Git LFS pointer; fetch the file'),
)


@dataclasses.dataclass(frozen=True)
class Forms:
  """The two affines of a NIfTI header.

  Attributes:
    sform: (4, 4), voxel indices to RAS+ mm; None = unset or unusable.
    sform_code: code of nifti1.h; 0 without an affine.
    qform: (4, 4), voxel indices to RAS+ mm; None = unset or unusable.
    qform_code: code of nifti1.h; 0 without an affine.
  """

  sform: Float[np.ndarray, '4 4'] | None
  sform_code: int
  qform: Float[np.ndarray, '4 4'] | None
  qform_code: int


def any_shape(shape: tuple[int, ...]) -> None:
  """Accepts every shape; a `CheckShape`."""
  del shape


def read_nifti(
  path: Path, check_shape: CheckShape = any_shape
) -> tuple[np.ndarray, np.ndarray]:
  """Reads the voxels as float32 [x, y, z] and the affine to RAS+ mm.

  Slope and intercept are applied; slope 0 or NaN means none. Trailing axes of
  length 1 are dropped.

  Raises:
    VolumeError: the header leaves the position, unit or number of the voxels
      open, or the file is not one 3-D volume; the message names the field.
  """
  with _open(path) as file:
    header = _header(path, file)
    affine = _affine(path, header)
    shape = _shape(path, header)
    check_shape(shape)
    dtype = _dtype(path, header)
    scaling = _scaling(path, header)
    offset = float(header['vox_offset'])
    if not header.single_vox_offset <= offset < 2**40:
      raise VolumeError(
        f'{path}: its vox_offset is {offset:g}, expected at least '
        f'{header.single_vox_offset}; correct it.'
      )
    file.seek(header.get_data_offset())
    raw = _voxels(path, file, shape, dtype)
  if scaling == (1, 0):
    return raw.astype(np.float32, copy=False), affine
  slope, inter = scaling
  data = np.empty(shape, np.float32, order='F')
  for index in range(shape[2]):  # float64, one slice at a time
    data[:, :, index] = raw[:, :, index] * slope + inter
  return data, affine


def _voxels(
  path: Path, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
  """Reads the stored numbers, in pieces: gzip copies every piece."""
  needed = math.prod(shape) * dtype.itemsize
  if needed > path.stat().st_size * _MOST_PACKED:
    raise VolumeError(
      f'{path}: cannot be read, truncated: shape {shape} takes {needed} bytes.'
    )
  raw = np.empty(shape, dtype, order='F')
  left = memoryview(raw.reshape(-1, order='F').view(np.uint8))
  while left and (count := file.readinto(left[:_PIECE])):
    left = left[count:]
  if left:
    raise VolumeError(
      f'{path}: cannot be read, truncated: {len(left)} of {needed} bytes are '
      'missing.'
    )
  file.read(1)  # the end of a gzip file has a checksum
  return raw


def read_forms(path: Path) -> Forms:
  """The sform and the qform of a NIfTI file, in mm.

  Raises:
    VolumeError: the file has no valid NIfTI header.
  """
  with _open(path) as file:
    header = _header(path, file)
  return _forms(path, header)[0]


def forms_differ_mm(path: Path) -> float:
  """Largest distance between the positions of a voxel by sform and by qform.

  Returns:
    Millimetres; 0 if the file has only one of the two. `read_nifti` uses the
    sform.

  Raises:
    VolumeError: the file has no valid NIfTI header.
  """
  with _open(path) as file:
    header = _header(path, file)
  forms = _forms(path, header)[0]
  if forms.sform is None or forms.qform is None:
    return 0.0
  ends = itertools.product(*((0, n - 1) for n in _shape(path, header)))
  corners = np.array([(*end, 1) for end in ends])
  apart = corners @ (forms.sform - forms.qform)[:3].T
  return float(np.linalg.norm(apart, axis=1).max())


@contextlib.contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
  """The decompressed content."""
  with open(path, 'rb') as file:
    packed = file.read(2) == _GZIP
    file.seek(0)
    if not packed:
      yield file
      return
    with gzip.open(file) as unpacked:
      yield unpacked


def _header(path: Path, file: BinaryIO) -> nib.Nifti1Header:
  """The header with the values on disk, none of them repaired."""
  block = file.read(540)
  for start, mark, name in _OTHERS:
    if block[start:].startswith(mark):
      raise VolumeError(f'{path}: is not NIfTI but {name}.')
  if len(block) < 348:
    raise VolumeError(
      f'{path}: cannot be read, truncated: {len(block)} bytes are no header.'
    )
  sizes = struct.unpack('<i', block[:4]) + struct.unpack('>i', block[:4])
  size = next((s for s in sizes if s in _HEADERS), None)
  if size is None:
    raise VolumeError(f'{path}: cannot be read, it has no NIfTI header.')
  if len(block) < size:
    raise VolumeError(
      f'{path}: cannot be read, truncated: {len(block)} of {size} bytes of its '
      'header.'
    )
  magic = block[344:348] if size == 348 else block[4:8]
  if magic[:2] != b'n+':
    kind = (
      'the header of an .hdr/.img pair'
      if magic[:2] == b'ni'
      else ('an Analyze 7.5 file, which has no position')
    )
    raise VolumeError(
      f'{path}: is {kind}; convert the original data to .nii.gz.'
    )
  return _HEADERS[size](block[:size], check=False)


def _scaling(path: Path, header: nib.Nifti1Header) -> tuple[float, float]:
  """Slope and intercept; a slope of 0 means none, nibabel writes NaN for it."""
  slope, inter = float(header['scl_slope']), float(header['scl_inter'])
  if slope == 0 or math.isnan(slope):
    return 1.0, 0.0
  if not math.isfinite(slope) or not math.isfinite(inter):
    raise VolumeError(
      f'{path}: its scl_slope is {slope:g} and its scl_inter {inter:g}; '
      'correct them.'
    )
  return slope, inter


def _dtype(path: Path, header: nib.Nifti1Header) -> np.dtype:
  try:
    dtype = header.get_data_dtype()
  except KeyError:  # a code that the standard does not define
    dtype = np.dtype('V')
  if dtype.kind not in 'iuf':
    raise VolumeError(
      f'{path}: has voxels of datatype {int(header["datatype"])} '
      f'({header.get_value_label("datatype")}), expected one real number each.'
    )
  return dtype


def _shape(path: Path, header: nib.Nifti1Header) -> tuple[int, ...]:
  shape = full = header.get_data_shape()
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  if len(shape) != 3:
    raise VolumeError(not_3d(path, full))
  if min(shape) < 1:
    raise VolumeError(f'{path}: has no voxels, shape {shape}.')
  return shape


def not_3d(path: Path, shape) -> str:
  """The message that refuses a file with several frames or channels."""
  return (
    f'{path}: has shape {tuple(map(int, shape))}, expected one 3-D volume; '
    'extract one frame or channel.'
  )


def _affine(path: Path, header: nib.Nifti1Header) -> np.ndarray:
  forms, problem = _forms(path, header)
  affine = forms.sform if forms.sform is not None else forms.qform
  if affine is None:
    raise VolumeError(
      f'{path}: {problem}, so the position of its voxels is unknown; convert '
      'the original data again, or set a valid sform or qform with '
      'nibabel (set_sform) or fslorient.'
    )
  return affine


def _forms(path: Path, header: nib.Nifti1Header) -> tuple[Forms, str]:
  """Both affines, and the reason if neither may be used.

  An unusable sform is never replaced by the qform: nifti1.h gives precedence
  to the sform if its code is above 0.
  """
  unit = int(header['xyzt_units']) & 7
  codes = int(header['sform_code']), int(header['qform_code'])
  sform, sform_problem = _sform(header) if codes[0] else (None, '')
  qform, qform_problem = _qform(header) if codes[1] else (None, '')
  problem = sform_problem or qform_problem
  if not any(codes):
    problem = 'has neither sform nor qform (both codes are 0)'
  for name, code in zip(('sform_code', 'qform_code'), codes, strict=True):
    if code not in _CODES:
      problem = f'its {name} is {code}, expected 0 to 5'
      sform, qform = (None, qform) if name[0] == 's' else (sform, None)
  if unit not in _MM:
    problem = f'its xyzt_units is {unit}, which is no unit of length'
    sform = qform = None
  if codes[0] and sform is None:
    qform = None  # see above
  sform, qform = (_scaled(form, _MM.get(unit, 1)) for form in (sform, qform))
  return Forms(
    sform,
    0 if sform is None else codes[0],
    qform,
    0 if qform is None else codes[1],
  ), problem


def _scaled(form: np.ndarray | None, factor: float) -> np.ndarray | None:
  return None if form is None else np.diag([factor] * 3 + [1.0]) @ form


def _sform(header: nib.Nifti1Header) -> tuple[np.ndarray | None, str]:
  affine = header.get_sform().astype(np.float64)
  if not np.isfinite(affine).all():
    return None, 'its sform has a NaN or infinite number'
  determinant = np.linalg.det(affine[:3, :3])
  if not abs(determinant) > 1e-12:
    return None, f'its sform cannot be inverted (determinant {determinant:g})'
  return affine, ''


def _qform(header: nib.Nifti1Header) -> tuple[np.ndarray | None, str]:
  names = ('quatern_b', 'quatern_c', 'quatern_d')
  quaternion = np.array([float(header[name]) for name in names])
  square = float(quaternion @ quaternion)
  # Rounding may exceed 1: nifti1_io.c normalises such a quaternion.
  if not square <= 1.001:
    return None, (
      f'its qform has the quaternion ({", ".join(f"{q:g}" for q in quaternion)}'
      f'), whose square is {square:g} instead of at most 1'
    )
  quaternion /= max(1.0, math.sqrt(square))
  qfac, *spacing = (float(p) for p in header['pixdim'][:4])
  if not (min(spacing) > 0 and math.isfinite(sum(spacing))):
    return None, f'its pixdim is {tuple(spacing)}, expected voxel sizes above 0'
  if not (qfac >= 0 or qfac == -1):
    return None, f'its qfac (pixdim[0]) is {qfac:g}, expected 1 or -1'
  offset = [float(header[f'qoffset_{axis}']) for axis in 'xyz']
  if not np.isfinite(offset).all():
    return None, f'its qoffset is {tuple(offset)}'
  real = math.sqrt(max(0.0, 1 - float(quaternion @ quaternion)))
  affine = np.eye(4)
  affine[:3, :3] = nib.quaternions.quat2mat([real, *quaternion])
  affine[:3, :3] *= spacing
  affine[:3, 2] *= -1 if qfac < 0 else 1
  affine[:3, 3] = offset
  return affine, ''
