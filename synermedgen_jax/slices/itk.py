"""Reads MetaImage and NRRD files with the place of every voxel; writes .mha.

SimpleITK reads voxels and geometry, but completes missing fields (origin 0,
no rotation, 1 mm) and ignores units. Such headers are refused or converted.
"""

from __future__ import annotations

import contextlib
import glob
import mmap
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from synermedgen_jax.core.errors import VolumeError
from synermedgen_jax.slices.nifti import CheckShape, any_shape, not_3d

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
METAIMAGE = ('.mha', '.mhd')
NRRD = ('.nrrd', '.nhdr')
_MM = {'um': 0.001, 'µm': 0.001, 'mm': 1.0, 'cm': 10.0, 'm': 1000.0}
# The spaces that ITK converts to LPS. It leaves others as they are, among
# them scanner-xyz, which has no fixed relation to the patient.
_SPACES = {
  'left-posterior-superior',
  'right-anterior-superior',
  'left-anterior-superior',
  'lps',
  'ras',
  'las',
}
# MetaIO's names of one field.
_ROTATION = ('TransformMatrix', 'Rotation', 'Orientation')
_ORIGIN = ('Offset', 'Position', 'Origin')
_SPACING = ('ElementSpacing', 'ElementSize')
_HEADER_BYTES = 1 << 16
_BLANKS = ' \t\n\v\f\r'  # in C; Python strips more
# The line before the names of several data files.
_LIST = re.compile(
  r'^\s*(?:ElementDataFile|data ?file)\s*[=:]\s*LIST.*$', re.I | re.M
)


def read_itk(
  path: Path, check_shape: CheckShape = any_shape
) -> tuple[np.ndarray, np.ndarray]:
  """Reads the voxels as float32 [x, y, z] and the affine to RAS+ mm.

  Trailing axes of length 1 are dropped.

  Raises:
    VolumeError: the header leaves the position or unit of the voxels open, or
      the file is not one 3-D volume; the message names the field.
    RuntimeError: SimpleITK cannot read the file.
  """
  meta = _is_metaimage(path)
  unit = _check_metaimage(path) if meta else _check_nrrd(path)
  reader = sitk.ImageFileReader()
  # Named, because SimpleITK finds no reader for `.Mha`.
  reader.SetImageIO('MetaImageIO' if meta else 'NrrdImageIO')
  reader.SetFileName(str(path))
  reader.ReadImageInformation()
  size, channels = reader.GetSize(), reader.GetNumberOfComponents()
  if len(size) < 3 or max(size[3:], default=1) > 1 or channels > 1:
    raise VolumeError(not_3d(path, (*size, channels) if channels > 1 else size))
  check_shape(size[:3])
  image = reader.Execute()
  # A view, so that the voxels are copied only once.
  view = sitk.GetArrayViewFromImage(image)
  if view.dtype.kind not in 'iuf':
    raise VolumeError(
      f'{path}: has voxels of type {view.dtype}, expected one real number each.'
    )
  data = view.reshape(view.shape[-3:]).T.astype(np.float32)
  return data, _affine(path, image, unit)


def data_files(path: Path) -> list[Path]:
  """The files that hold the voxels of a header, such as .raw of an .mhd.

  Files that are missing are named too. Empty if the voxels are in the file
  itself.

  Raises:
    VolumeError: the header gives a field twice, has a zero byte, or is too
      long; `read_itk` refuses such files, too.
  """
  named = _named(path)
  first = (named.split() or [''])[0]
  if first.upper() == 'LIST':
    header = '\n'.join(_header_lines(path))
    _, lines = _LIST.split(header, maxsplit=1)
    names = map(str.strip, lines.splitlines())
    return [path.parent / name for name in names if name]
  if '%' in first:  # a pattern, and the numbers that it takes
    pattern = path.parent / re.sub(r'%\d*d', '*', glob.escape(first))
    return sorted(pattern.parent.glob(pattern.name))
  return [path.parent / named] if named else []


def holds_voxels(path: Path) -> bool:
  """Whether no reader takes the voxels of a header from another file.

  A MetaImage file has to have the word ElementDataFile only once: MetaIO skips
  lines after an incomplete one, so a later one could count.

  Raises:
    VolumeError: see `data_files`.
  """
  if _named(path):
    return False
  if not _is_metaimage(path) or not path.stat().st_size:
    return True
  with (
    open(path, 'rb') as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
  ):
    first = content.find(b'ElementDataFile')
    return content.find(b'ElementDataFile', first + 1) < 0


def write_mha(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
  """Writes a compressed MetaImage file atomically; the inverse of `read_itk`.

  Args:
    path: file name ending in .mha.
    data: voxels [x, y, z], of a dtype that SimpleITK has.
    affine: (4, 4), voxel indices to RAS+ mm.

  Raises:
    VolumeError: the suffix is another one, or the file cannot be written.
  """
  if path.suffix.lower() != '.mha':
    raise VolumeError(f'{path}: expected a name ending in .mha.')
  image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
  to_lps = LPS_TO_RAS @ affine
  spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
  image.SetSpacing(spacing.tolist())
  image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
  image.SetOrigin(to_lps[:3, 3].tolist())
  partial = path.with_name(f'.{secrets.token_hex(8)}.partial.mha')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(partial), True)
    os.replace(partial, path)
  except (OSError, RuntimeError) as error:
    reason = (str(error).splitlines() or [type(error).__name__])[-1]
    raise VolumeError(f'{path}: cannot be written ({reason}).') from error
  finally:
    with contextlib.suppress(OSError):  # a folder that is a file
      partial.unlink(missing_ok=True)


def _affine(path: Path, image: sitk.Image, unit: float) -> np.ndarray:
  axes = image.GetDimension()
  direction = np.reshape(image.GetDirection(), (axes, axes))
  if direction[:3, 3:].any() or direction[3:, :3].any():
    raise VolumeError(
      f'{path}: its fourth axis has a part in space; extract one frame.'
    )
  affine = np.eye(4)
  affine[:3, :3] = direction[:3, :3] * image.GetSpacing()[:3] * unit
  affine[:3, 3] = np.multiply(image.GetOrigin()[:3], unit)
  return LPS_TO_RAS @ affine


def _check_metaimage(path: Path) -> float:
  """Checks the fields that ITK completes or ignores; returns mm per unit."""
  fields = _fields(path, '[=:]', end='ElementDataFile')
  for name in ('ElementDataFile', 'DimSize', 'ElementType'):
    if name not in fields:
      raise VolumeError(f'{path}: cannot be read, its header has no {name}.')
  (dimensions,) = _meta_numbers(path, fields, ('NDims',), 1)
  n = int(dimensions)
  if not 0 < n < 10:
    raise VolumeError(f'{path}: its NDims is {dimensions:g}; correct it.')
  spacing = _meta_numbers(path, fields, _SPACING, n)
  if min(spacing) <= 0:
    raise VolumeError(
      f'{path}: its ElementSpacing is {_text(spacing)}, expected voxel sizes '
      'above 0.'
    )
  _meta_numbers(path, fields, _ORIGIN, n)
  rotation = np.reshape(_meta_numbers(path, fields, _ROTATION, n * n), (n, n))
  lengths = np.linalg.norm(rotation, axis=1)
  if np.abs(lengths - 1).max() > 1e-3:
    raise VolumeError(
      f'{path}: its TransformMatrix has axes of length {_text(lengths)}, '
      'expected 1.'
    )
  # Readers differ in how they apply these two; ITK ignores them.
  for name, neutral in (
    ('CenterOfRotation', 0),
    ('ElementToIntensityFunctionSlope', 1),
    ('ElementToIntensityFunctionOffset', 0),
  ):
    values = _floats(fields.get(name, str(neutral)))
    if not values or set(values) != {neutral}:
      raise VolumeError(
        f'{path}: its {name} is {fields[name]}, expected {neutral}; write the '
        'file again without it.'
      )
  _check_data_files(path)
  unit = fields.get('DistanceUnits', 'mm').strip()
  return _MM['mm'] if unit == '?' else _unit(path, 'DistanceUnits', unit)


def _check_nrrd(path: Path) -> float:
  """Checks the fields that ITK completes or ignores; returns mm per unit."""
  fields = _nrrd_fields(path)
  space = fields.get('space', '').lower()
  if space not in _SPACES:
    raise VolumeError(
      f'{path}: its space is {space or "missing"}, so left and right are '
      'unknown; expected left-posterior-superior, right-anterior-superior or '
      'left-anterior-superior.'
    )
  for name, vectors in (('space directions', 3), ('space origin', 1)):
    values = _floats(re.sub(r'none|[(),]', ' ', fields.get(name, '')))
    if len(values) != 3 * vectors or not np.isfinite(values).all():
      raise VolumeError(
        f'{path}: its {name} is {fields.get(name, "missing")}, expected '
        f'{vectors} vector{"s" * (vectors > 1)} of 3 finite numbers.'
      )
  units = set(re.findall(r'"([^"]*)"', fields.get('space units', ''))) or {'mm'}
  if len(units) > 1:
    raise VolumeError(
      f'{path}: its space units are {fields["space units"]}, expected one unit.'
    )
  _check_data_files(path)
  return _unit(path, 'space units', units.pop() or 'mm')


def _is_metaimage(path: Path) -> bool:
  return path.name.lower().endswith(METAIMAGE)


def _check_data_files(path: Path) -> None:
  for file in data_files(path):
    if not file.is_file():
      raise VolumeError(f'{path}: its data file {file.name} is missing.')


def _named(path: Path) -> str:
  """What a header names as its data files; '' = none but itself."""
  if _is_metaimage(path):
    fields = _fields(path, '[=:]', end='ElementDataFile')
    named = fields.get('ElementDataFile', '')
    return '' if named.upper() == 'LOCAL' else named
  fields = _nrrd_fields(path)
  return fields.get('data file') or fields.get('datafile', '')


def _header_lines(path: Path) -> list[str]:
  """The lines at the start of a file, as its reader divides them.

  Those of a NRRD file end before the first empty one, where its header ends.

  Raises:
    VolumeError: a NRRD header has no such end within 64 KB.
  """
  with open(path, 'rb') as file:
    text = file.read(_HEADER_BYTES).decode('latin-1')
  meta = _is_metaimage(path)
  lines = re.split('\n' if meta else '\r\n|\r|\n', text)
  whole = len(text) < _HEADER_BYTES
  if not whole:
    lines.pop()  # may be cut
  if meta:
    return lines
  if '' not in lines and not whole:
    raise VolumeError(
      f'{path}: its header has more than {_HEADER_BYTES} bytes; write the file '
      'again with fewer comments and keys.'
    )
  return lines[: lines.index('')] if '' in lines else lines


def _nrrd_fields(path: Path) -> dict[str, str]:
  fields = _fields(path, ': ', end='')
  return {name.lower(): value for name, value in fields.items()}


def _fields(path: Path, separator: str, *, end: str) -> dict[str, str]:
  """The lines `name separator value` of a header, up to the line `end`.

  Raises:
    VolumeError: a field has two values, of which readers use one or the other,
      or a line has a zero byte, at which they end.
  """
  fields: dict[str, str] = {}
  for line in _header_lines(path):
    if '\0' in line:
      raise VolumeError(
        f'{path}: its header has a zero byte; write the file again.'
      )
    name, *values = (
      part.strip(_BLANKS) for part in re.split(separator, line, maxsplit=1)
    )
    for value in values if name != 'Comment' and name[:1] != '#' else ():
      if fields.setdefault(name, value) != value:
        raise VolumeError(
          f'{path}: its header gives {name} as {fields[name]} and as {value}; '
          'remove one of them.'
        )
    if name == end:
      break
  return fields


def _meta_numbers(
  path: Path, fields: dict[str, str], names: Sequence[str], count: int
) -> list[float]:
  """The finite numbers of a field that has several names."""
  texts = {fields[name] for name in names if name in fields}
  if names == _SPACING and names[0] in fields:
    texts = {fields[names[0]]}  # an element may be smaller than its spacing
  if len(texts) != 1:
    state = 'given twice' if texts else 'missing'
    raise VolumeError(
      f'{path}: its {names[0]} is {state}, so the position of its voxels is '
      'unknown; convert the original data again, or add it to the header.'
    )
  (text,) = texts
  values = _floats(text)
  if len(values) != count or not np.isfinite(values).all():
    raise VolumeError(
      f'{path}: its {names[0]} is {text}, expected {count} finite numbers.'
    )
  return values


def _floats(text: str) -> list[float]:
  """The numbers of a text separated by spaces; [] if one is no number."""
  try:
    return [float(word) for word in text.split()]
  except ValueError:
    return []


def _text(values) -> str:
  return ' '.join(f'{value:g}' for value in values)


def _unit(path: Path, name: str, unit: str) -> float:
  if unit not in _MM:
    raise VolumeError(
      f'{path}: its {name} is {unit}, expected one of {", ".join(_MM)}.'
    )
  return _MM[unit]
