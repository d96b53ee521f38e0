"""Reads a CT, MR or PET series from DICOM files.

pydicom reads the headers, SimpleITK decodes the pixels, slice by slice and as
float32, since the type of the first slice may not hold the others. CT is in
HU, PET in body-weight SUV, MR in the scanner's unit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.config import disable_value_validation
from pydicom.uid import (
  DeflatedExplicitVRLittleEndian,
  ExplicitVRBigEndian,
  ExplicitVRLittleEndian,
  ImplicitVRLittleEndian,
)

from synermedgen_jax.core.errors import VolumeError
from synermedgen_jax.slices.dicom_headers import (
  PARSE_ERRORS,
  Instance,
  RefusedError,
  common,
  not_a_slice,
  stack,
)
from synermedgen_jax.slices.itk import LPS_TO_RAS
from synermedgen_jax.slices.nifti import CheckShape, any_shape
from synermedgen_jax.slices.suv import suv_factor

# Suffixes of other files that exports contain.
_NOT_DICOM = re.compile(
  r'\.(bmp|csv|db|dll|exe|gif|gz|html?|ico|inf|ini|jpe?g|js|json|log|md|nii|pdf'
  r'|png|py|rtf|sh|tiff?|tsv|txt|xlsx?|xml|ya?ml|zip)$',
  re.IGNORECASE,
)
_PREAMBLE = 132
_UNCOMPRESSED = (
  '',  # old files without file meta information
  ImplicitVRLittleEndian,
  ExplicitVRLittleEndian,
  DeflatedExplicitVRLittleEndian,
  ExplicitVRBigEndian,
)
_MOST_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Series:
  """The files with one SeriesInstanceUID.

  Attributes:
    uid: SeriesInstanceUID.
    number: SeriesNumber, '' if missing.
    description: SeriesDescription, '' if missing.
    modality: DICOM's Modality, such as CT, MR or PT.
    instances: the files, in the order of their names.
  """

  uid: str
  number: str
  description: str
  modality: str
  instances: tuple[Instance, ...]

  def __str__(self) -> str:
    return (
      f'{self.number or "no number"} {self.description!r} {self.modality}, '
      f'{len(self.instances)} slices'
    )

  def matches(self, wanted: str) -> bool:
    """Whether `wanted` is the number, description, modality or UID."""
    names = (self.number, self.description, self.modality, self.uid)
    modality = {'pet': 'pt', 'cbct': 'ct'}.get(wanted.casefold(), wanted)
    return any(
      name and name.casefold() in (wanted.casefold(), modality)
      for name in names
    )


def holds_dicom(path: Path) -> bool:
  """Whether a folder or zip has a DICOM file among its first hundred files.

  Raises:
    VolumeError: the folder or zip cannot be read.
  """
  if path.is_dir():
    files = (p for p, _ in zip(_walk(path), range(100), strict=False))
    return any(_starts_as_dicom(p) for p in files)
  with _zip_errors(path), zipfile.ZipFile(path) as packed:
    entries = [e for e in packed.infolist() if not _ignored(e.filename)]
    for entry in entries[:100]:
      with packed.open(entry) as file:
        if file.read(_PREAMBLE)[128:] == b'DICM':
          return True
  return False


def list_series(path: Path) -> list[Series]:
  """Lists the series in a folder or zip, by number.

  Raises:
    VolumeError: it cannot be read, has no DICOM file, or has files that are
      neither DICOM nor of a kind that exports contain.
  """
  with _unpacked(path) as folder, disable_value_validation(), _refusals(path):
    return _scan(path, folder)


def read_series(
  path: Path, *, series: str = '', check_shape: CheckShape = any_shape
) -> tuple[np.ndarray, np.ndarray]:
  """Reads one series as float32 [x, y, z] and the affine to RAS+ mm.

  Args:
    path: folder or zip of a series or of a study.
    series: number, description, modality or UID of the series; '' = the only
      CT, MR or PET series.
    check_shape: gets the shape before the pixels are read.

  Raises:
    VolumeError: no series or several match, or the series is no regular stack
      of slices with known values; the message names folder, series and reason.
  """
  with _unpacked(path) as folder, disable_value_validation():
    with _refusals(path):
      chosen = _choose(path, _scan(path, folder), series)
    with _refusals(f'{path}: series {chosen}'):
      return _read(chosen, check_shape)


@contextlib.contextmanager
def _refusals(where: object) -> Iterator[None]:
  """Adds the folder or series to the reason of a refusal."""
  try:
    yield
  except RefusedError as error:
    raise VolumeError(f'{where}: {error}.') from error


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
  """The folder itself, or a temporary one with the content of the zip."""
  if path.is_dir():
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    with _zip_errors(path), zipfile.ZipFile(path) as packed:
      entries = [e for e in packed.infolist() if not _ignored(e.filename)]
      size = sum(e.file_size for e in entries)
      free = shutil.disk_usage(folder).free
      if size > free:
        raise VolumeError(
          f'{path}: takes {size / 1e9:.1f} GB unpacked, {free / 1e9:.1f} GB '
          f'are free in {tempfile.gettempdir()}; set TMPDIR.'
        )
      packed.extractall(folder, entries)
    yield Path(folder)


@contextlib.contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
  try:
    yield
  except (
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,  # a password is required
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise VolumeError(f'{path}: cannot be unpacked ({error}).') from error


def _ignored(name: str) -> bool:
  """Whether a file is clearly not DICOM by its name."""
  parts = PurePath(name).parts
  return (
    name.endswith('/')
    or any(part.startswith('.') or part == '__MACOSX' for part in parts)
    or bool(_NOT_DICOM.search(name))
    or parts[-1].upper() == 'DICOMDIR'
  )


def _walk(folder: Path) -> Iterator[Path]:
  """The files below a folder that may be DICOM, in the order of their names."""

  def fail(error: OSError) -> None:
    raise VolumeError(
      f'{error.filename}: cannot be read ({error.strerror}).'
    ) from error

  for parent, folders, names in os.walk(folder, onerror=fail):
    folders.sort()
    for name in sorted(names):
      path = Path(parent, name)
      if not _ignored(path.relative_to(folder).as_posix()):
        yield path


def _starts_as_dicom(path: Path) -> bool:
  try:
    with open(path, 'rb') as file:
      return file.read(_PREAMBLE)[128:] == b'DICM'
  except OSError as error:
    raise VolumeError(f'{path}: cannot be read ({error.strerror}).') from error


def _scan(path: Path, folder: Path) -> list[Series]:
  by_uid: dict[str, list[Instance]] = defaultdict(list)
  others = []
  for file in _walk(folder):
    name = file.relative_to(folder).as_posix()
    header = _header(path, file, name)
    if header is None:
      others.append(name)
    elif 'Rows' in header:  # reports, plans and contours are no images
      instance = Instance(file, name, header)
      by_uid[instance.text('SeriesInstanceUID')].append(instance)
  if not by_uid:
    held = ', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'
    raise VolumeError(f'{path}: has no DICOM images; it holds {held}.')
  if others:
    raise VolumeError(
      f'{path}: {len(others)} files are not DICOM or damaged: '
      f'{", ".join(others[:5])}; remove or replace them.'
    )
  if '' in by_uid:
    raise VolumeError(f'{path}: {by_uid[""][0].name} has no SeriesInstanceUID.')
  series = [
    Series(
      uid,
      instances[0].text('SeriesNumber'),
      instances[0].text('SeriesDescription'),
      instances[0].text('Modality'),
      tuple(instances),
    )
    for uid, instances in by_uid.items()
  ]
  return sorted(series, key=lambda s: (len(s.number), s.number, s.uid))


def _header(path: Path, file: Path, name: str) -> pydicom.Dataset | None:
  """The data set without pixels; None if the file is not DICOM."""
  try:
    with open(file, 'rb') as stream:
      start = stream.read(1024)
    if start[128:_PREAMBLE] == b'DICM':
      return pydicom.dcmread(file, stop_before_pixels=True)
    # Old files begin with the first element of group 2 or 8.
    if start[:2] in (b'\x02\x00', b'\x08\x00'):
      header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
      return header if 'SOPClassUID' in header else None
  except OSError as error:
    raise VolumeError(
      f'{path}: {name} cannot be read ({error.strerror}).'
    ) from error
  except PARSE_ERRORS:
    return None
  text = start and not set(start) & set(range(7))
  return pydicom.Dataset() if text else None  # a LICENCE, a README


def _choose(path: Path, series: Sequence[Series], wanted: str) -> Series:
  if wanted:
    matching = [s for s in series if s.matches(wanted.strip())]
    if len(matching) == 1:
      return matching[0]
    state = 'no series' if not matching else f'{len(matching)} series'
    listed = _listed(matching or series, uid=bool(matching))
    raise VolumeError(f'{path}: {state} match {wanted!r}: {listed}.')
  volumes = [s for s in series if not all(map(not_a_slice, s.instances))]
  if len(volumes) == 1:
    return volumes[0]
  if not volumes:
    reasons = '; '.join(
      f'{s} ({not_a_slice(s.instances[0])})' for s in series[:_MOST_LISTED]
    )
    raise VolumeError(f'{path}: holds no CT, MR or PET slices: {reasons}.')
  raise VolumeError(
    f'{path}: holds {len(volumes)} series: {_listed(volumes)}; select one by '
    'number, description or modality (series).'
  )


def _listed(series: Sequence[Series], *, uid: bool = False) -> str:
  lines = [f'{s}{f", UID {s.uid}" if uid else ""}' for s in series]
  more = len(lines) - _MOST_LISTED
  return '; '.join(lines[:_MOST_LISTED] + [f'{more} more'] * (more > 0))


def _read(
  series: Series, check_shape: CheckShape
) -> tuple[np.ndarray, np.ndarray]:
  """Values and affine; RefusedError has the reason."""
  instances = series.instances
  reasons = [(i, not_a_slice(i)) for i in instances]
  refused = [(i, reason) for i, reason in reasons if reason]
  if refused:
    raise RefusedError(
      f'{len(refused)} of {len(instances)} files are not slices, first '
      f'{refused[0][0].name}: {refused[0][1]}'
    )
  common(instances, 'SOPClassUID')
  if len(instances) < 2:
    raise RefusedError('a single slice is no volume')
  slices, affine = stack(instances)
  factor = _check_values(slices)
  columns, rows = (int(slices[0].number(k)) for k in ('Columns', 'Rows'))
  shape = (columns, rows, len(slices))
  check_shape(shape)
  data = np.empty(shape, np.float32, order='F')
  for index, instance in enumerate(slices):
    _read_pixels(instance, data[:, :, index])
  if factor != 1:
    data *= np.float32(factor)
  return data, LPS_TO_RAS @ affine


def _check_values(slices: Sequence[Instance]) -> float:
  """Checks that values have a known unit; returns the factor to that unit."""
  modality = slices[0].text('Modality')
  rescaled = sum(bool(i.text('RescaleSlope')) for i in slices)
  if modality == 'MR' and 0 < rescaled < len(slices):
    raise RefusedError(
      f'{rescaled} of {len(slices)} slices have a RescaleSlope, so the others '
      'have another scale; export the original series'
    )
  for instance in slices:
    if 'ModalityLUTSequence' in instance.header:
      raise RefusedError(
        f'{instance.name}: values need a ModalityLUTSequence, which is not '
        'supported'
      )
    given = [
      k for k in ('RescaleSlope', 'RescaleIntercept') if instance.text(k)
    ]
    if modality == 'MR' and not given:
      continue
    slope = instance.number('RescaleSlope')
    intercept = instance.number('RescaleIntercept')
    if slope == 0 or (modality == 'PT' and (slope < 0 or intercept)):
      raise RefusedError(
        f'{instance.name}: RescaleSlope is {slope:g} and RescaleIntercept '
        f'{intercept:g}'
      )
  if modality == 'CT':
    kind = common(slices, 'RescaleType')
    if kind.upper() not in ('', 'HU', 'US'):
      raise RefusedError(f'RescaleType is {kind}, expected HU')
  return suv_factor(slices) if modality == 'PT' else 1.0


def _check_length(instance: Instance, pixels: int) -> None:
  """Compares the length of uncompressed pixels; GDCM accepts fewer."""
  if instance.transfer_syntax not in _UNCOMPRESSED:
    return
  try:
    data = pydicom.dcmread(
      instance.path, specific_tags=['PixelData'], force=True
    )
    length = len(data.get('PixelData') or b'')
  except (OSError, *PARSE_ERRORS) as error:
    raise RefusedError(f'{instance.name}: its pixels are damaged') from error
  expected = pixels * int(instance.number('BitsAllocated')) // 8
  if length not in (expected, expected + 1):  # padded to an even length
    raise RefusedError(
      f'{instance.name}: PixelData has {length} bytes, expected {expected}'
    )


def _read_pixels(instance: Instance, into: np.ndarray) -> None:
  """Decodes the rescaled values into an array [column, row]."""
  _check_length(instance, into.size)
  try:
    image = sitk.ReadImage(str(instance.path), sitk.sitkFloat32, 'GDCMImageIO')
  except RuntimeError as error:
    syntax = instance.transfer_syntax
    raise RefusedError(
      f'{instance.name}: its pixels cannot be decoded '
      f'({pydicom.uid.UID(syntax).name or "no transfer syntax"}); the file is '
      'truncated, or convert the series to NIfTI with dcm2niix'
    ) from error
  if image.GetSize() != (*into.shape, 1):
    raise RefusedError(
      f'{instance.name}: has shape {image.GetSize()}, expected '
      f'{(*into.shape, 1)}'
    )
  into[:] = sitk.GetArrayViewFromImage(image)[0].T
