"""Uploads: streamed to a folder, refused early if they are too large.

A limit holds for the bytes of an upload, for what an archive in it takes
unpacked, and for the voxels of its volume in memory.
"""

from __future__ import annotations

import math
import re
import shutil
import unicodedata
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from synermedgen_jax.core.errors import UserError, VolumeError
from synermedgen_jax.serving.sessions import Session, Upload
from synermedgen_jax.slices.itk import holds_voxels
from synermedgen_jax.slices.nifti import CheckShape

MB = 1_000_000
_MOST_FILES = 20_000  # of a series, or of a zip
_MOST_NAME = 100  # bytes
_PLACES = 4  # uploads of this size that a session may keep
_UNSAFE = re.compile(r'[^\w.+=@-]+')
_DETACHED = ('.mhd', '.nhdr')


class UploadError(UserError):
  """An upload that is refused; one line with its name."""


class TooLarge(UploadError):
  """An upload beyond the limit, on the disk or unpacked."""


def safe_name(name: str) -> str:
  """A name of a file without a folder, for a name that a browser gives.

  Letters, digits and ._+=@- stay, others become _; the end is kept, as the
  suffix says what the file is.
  """
  name = PurePosixPath(PureWindowsPath(name).name).name
  name = _UNSAFE.sub('_', unicodedata.normalize('NFC', name)).lstrip('.')
  while len(name.encode()) > _MOST_NAME:
    name = name[1:]
  return name.lstrip('.') or 'file'


def check_declared(
  session: Session, upload: Upload | None, size: int, limit: int
) -> None:
  """Refuses bytes before they are read.

  Args:
    session: who sends them.
    upload: the upload that they belong to; None = a new one.
    size: bytes that are declared; 0 = not known.
    limit: bytes of an upload.

  Raises:
    TooLarge: the upload, or all uploads of the session, would exceed it.
    UploadError: the disk has less space.
  """
  held = upload.size if upload else 0
  if held + size > limit:
    raise too_large('The upload', held + size, limit)
  if session.size + size > _PLACES * limit:
    raise TooLarge(
      f'This browser has {session.size / MB:.0f} MB of volumes here already; '
      'close its pages and open the app again.'
    )
  free = shutil.disk_usage(session.folder.parent).free
  if size > free:
    raise UploadError(
      f'The upload has {size / MB:.0f} MB, {free / MB:.0f} MB are free in '
      f'{session.folder.parent.parent}; set TMPDIR.'
    )


def too_large(name: str, size: int, limit: int) -> TooLarge:
  """The refusal of `size` bytes beyond a limit."""
  return TooLarge(
    f'{name} has {size / MB:.0f} MB, at most '
    f'{limit / MB:.0f} MB are accepted; --max_upload_mb of synermedgen app '
    'raises the limit.'
  )


async def receive(
  chunks: AsyncIterator[bytes],
  session: Session,
  upload: Upload,
  name: str,
  limit: int,
) -> None:
  """Streams a file into the folder of an upload.

  Args:
    chunks: the bytes.
    session: who sends them.
    upload: the upload that the file belongs to.
    name: name of the file, as the browser gives it.
    limit: bytes of the upload.

  Raises:
    TooLarge: more bytes come than the limit allows.
    UploadError: the upload has too many files, or the browser has left,
      or the disk is full.
  """
  if len(upload.files) >= _MOST_FILES:
    raise TooLarge(f'A series has at most {_MOST_FILES} files.')
  name = _free_name(upload.folder, safe_name(name), len(upload.files))
  try:
    with (upload.folder / name).open('xb') as file:
      async for chunk in chunks:
        if session.closed:
          raise UploadError('The browser has left.')
        upload.size += len(chunk)
        if upload.size > limit:
          raise too_large('The upload', upload.size, limit)
        file.write(chunk)
  except OSError as error:
    raise UploadError(
      f'{name}: cannot be stored ({error.strerror or error}).'
    ) from error
  upload.files.append(name)


def _free_name(folder: Path, name: str, number: int) -> str:
  """The name, with a number in front if a file of another folder has it."""
  free = name
  while (folder / free).exists():  # the disk decides whether case matters
    free, number = f'{number}_{name}', number + 1
  return free


def check_contents(upload: Upload, limit: int) -> None:
  """Refuses an archive beyond the limit, and voxels of another file.

  A file that cannot be read passes: `read_volume` says why.

  Args:
    upload: the upload.
    limit: bytes of an unpacked archive.

  Raises:
    TooLarge: it would grow beyond the limit.
    UploadError: the file takes its voxels from another file.
  """
  if len(upload.files) > 1:
    return
  path, lower = upload.path, upload.path.name.lower()
  if lower.endswith('.zip'):
    _check_zip(path, upload.name, limit)
    return
  if lower.endswith(_DETACHED) or (
    lower.endswith(('.mha', '.nrrd')) and not _holds_voxels(path)
  ):
    raise UploadError(
      f'{upload.name}: its voxels are in another file, or may be; convert it '
      'to one .nii.gz file.'
    )


def shape_check(name: str, limit: int) -> CheckShape:
  """What refuses a shape before its voxels are read.

  Args:
    name: name of the volume, for the message.
    limit: bytes of float32 voxels.

  Returns:
    A function for `read_volume`, which raises `TooLarge`.
  """

  def check(shape: tuple[int, ...]) -> None:
    size = 4 * math.prod(shape)
    if size > limit:
      raise too_large(f'{name} in memory', size, limit)

  return check


def _check_zip(path: Path, name: str, limit: int) -> None:
  try:
    with zipfile.ZipFile(path) as packed:
      entries = packed.infolist()
  except (zipfile.BadZipFile, OSError, NotImplementedError):
    return
  size = sum(entry.file_size for entry in entries)
  if size > limit:
    raise too_large(f'{name} unpacked', size, limit)
  if len(entries) > _MOST_FILES:
    raise TooLarge(
      f'{name}: holds {len(entries)} files, at most {_MOST_FILES} are accepted.'
    )


def _holds_voxels(path: Path) -> bool:
  """Whether a header names no other file; also if `read_volume` refuses it."""
  try:
    return holds_voxels(path)
  except VolumeError:
    return True
