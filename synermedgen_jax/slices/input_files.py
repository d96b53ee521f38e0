"""Which paths below a folder are volumes, and what the others are.

A volume is a NIfTI, MetaImage or NRRD file; a folder that is named like such a
file and holds one (some programs unpack archives that way); a folder of DICOM
files; or a zip. Everything that programs leave behind is passed over: hidden
files, macOS resource forks, slice stores, reports of `prepare --check`.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from synermedgen_jax.core.errors import UserError, VolumeError
from synermedgen_jax.slices.volumes import SUFFIXES, has_volume_suffix, locate

_LEFT_BEHIND = ('__macosx', '@eadir', 'lost+found', '$recycle.bin')
_REPORT = {'index.html'}
_DICOM = ('.dcm', '.ima', '.dicom')
_PEEK = 20  # files of a folder that are opened to recognise DICOM
_COUNTED = 20_000  # files that a description of a folder counts
_SHOWN = 5

_DICOM_HINT = (
  'put each series into <subject>/<modality>/ (--dataset=folder) or list it in '
  'a table (--dataset=csv)'
)
_ANALYZE_HINT = (
  'convert them to .nii; Analyze does not state which side is left'
)
# Suffix -> name of the format, and what to do.
_OTHER_FORMATS = {
  '.hdr': ('Analyze or NIfTI pair', _ANALYZE_HINT),
  '.img': ('Analyze or NIfTI pair', _ANALYZE_HINT),
  '.mgz': ('FreeSurfer', 'convert them with mri_convert'),
  '.mgh': ('FreeSurfer', 'convert them with mri_convert'),
  '.mnc': ('MINC', 'convert them with mnc2nii'),
  '.par': ('PAR/REC', 'convert them with dcm2niix'),
  '.rec': ('PAR/REC', 'convert them with dcm2niix'),
  '.zip': ('zip', 'unpack them'),
  '.npy': ('NumPy', 'they have no geometry; convert the originals'),
  '.npz': ('NumPy', 'they have no geometry; convert the originals'),
  '.png': ('picture', 'they have no geometry; use the volumes'),
  '.jpg': ('picture', 'they have no geometry; use the volumes'),
  **dict.fromkeys(_DICOM, ('DICOM', _DICOM_HINT)),
}


class DatasetError(UserError):
  """A layout that cannot be read; one line per fault, naming the file."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """One volume below a folder.

  Attributes:
    name: the path whose last part names the volume.
    path: the file, folder or zip to read; usually equal to `name`.
  """

  name: Path
  path: Path

  @property
  def stem(self) -> str:
    """The last part of `name` without a suffix of volumes or of archives."""
    return volume_stem(self.name)


def volume_stem(path: Path) -> str:
  """The name of a path without a suffix of volumes or of archives."""
  lower = path.name.lower()
  for suffix in sorted((*SUFFIXES, '.zip'), key=len, reverse=True):
    if lower.endswith(suffix):
      return path.name[: -len(suffix)]
  return path.name


def children(folder: Path) -> list[Path]:
  """Sorted paths in a folder, without hidden ones and what programs leave.

  Raises:
    DatasetError: the folder is missing, is a file, or cannot be read.
  """
  try:
    paths = sorted(folder.iterdir())
  except OSError as error:
    raise DatasetError(f'{folder}: {_reason(folder, error)}.') from None
  return [path for path in paths if not is_hidden(path.name)]


def is_hidden(name: str) -> bool:
  """Whether a file or folder is hidden, or left behind by a program."""
  return name.startswith('.') or name.lower() in _LEFT_BEHIND


def _reason(folder: Path, error: OSError) -> str:
  if isinstance(error, FileNotFoundError):
    return 'is a broken link' if folder.is_symlink() else 'no such folder'
  if isinstance(error, NotADirectoryError):
    return 'is a file, not a folder'
  return f'cannot be read ({error.strerror})'


def is_own_output(folder: Path) -> bool:
  """Whether a folder is a slice store or a report of `prepare --check`."""
  names = {p.name for p in itertools.islice(folder.iterdir(), 10)}
  started = names == {'settings.json'}
  return started or {'settings.json', 'cases'} <= names or names == _REPORT


def one_volume(folder: Path) -> Path | None:
  """The volume file in a folder that holds exactly one."""
  files = [p for p in children(folder) if has_volume_suffix(p) and p.is_file()]
  return files[0] if len(files) == 1 else None


def is_dicom_file(path: Path) -> bool:
  """Whether a file is DICOM, by its suffix or its first bytes."""
  if path.suffix.lower() in _DICOM:
    return True
  try:
    with path.open('rb') as file:
      return file.read(132)[128:] == b'DICM'
  except OSError:
    return False


def is_empty(folder: Path) -> bool:
  """Whether a folder has no file at any depth, except hidden ones."""
  if not folder.is_dir():
    return False
  return next(_files(folder), None) is None


def _files(folder: Path) -> Iterator[Path]:
  """Sorted files at any depth; folders that cannot be read have none."""
  try:
    paths = children(folder)
  except DatasetError:
    return
  for path in paths:
    if path.is_dir():
      if not path.is_symlink():
        yield from _files(path)
    else:
      yield path


def volume_entries(
  folder: Path, problems: list[str], *, deep: bool = True
) -> Iterator[Entry]:
  """Volume files below a folder, sorted; DICOM and zips are not among them.

  Args:
    folder: where to look.
    problems: receives a line for every folder that cannot be read, or that is
      named like a volume and does not hold one.
    deep: also look into the folders below; links to folders are not followed.
  """
  try:
    paths = children(folder)
    if is_own_output(folder):
      return
  except DatasetError as error:
    problems.append(str(error))
    return
  except OSError as error:
    problems.append(f'{folder}: {_reason(folder, error)}.')
    return
  for path in paths:
    if not path.is_dir():
      if has_volume_suffix(path):
        yield Entry(path, path)
    elif has_volume_suffix(path):
      try:
        yield Entry(path, locate(path))
      except VolumeError as error:
        problems.append(str(error))
    elif deep and not path.is_symlink():
      yield from volume_entries(path, problems)


def describe(root: Path) -> str:
  """The first files below a folder, and files that no reader supports.

  Returns:
    Sentences for the end of a message that nothing was found.
  """
  files = list(itertools.islice(_files(root), _COUNTED))
  if not files:
    return 'It holds no file.'
  names = ', '.join(str(p.relative_to(root)) for p in files[:_SHOWN])
  count = f'{len(files)}{" or more" if len(files) == _COUNTED else ""}'
  more = f' (of {count})' if len(files) > _SHOWN else ''
  kinds: collections.Counter = collections.Counter()
  peeks = 0
  for path in files:
    kind = _OTHER_FORMATS.get(path.suffix.lower())
    if not kind and not path.suffix and peeks < _PEEK:
      peeks += 1
      kind = _OTHER_FORMATS['.dcm'] if is_dicom_file(path) else None
    if kind:
      kinds[kind] += 1
  skipped = [
    f'{number} {name} file{"s" if number > 1 else ""} ({hint})'
    for (name, hint), number in kinds.most_common()
  ]
  text = f'First files: {names}{more}.'
  return f'{text} Not read: {", ".join(skipped)}.' if skipped else text
