"""Drafts a table of the volumes below a folder, for its user to complete.

Names that are clear fill the columns; the others stay empty, and
`prepare --dataset=csv` refuses the table until they are complete.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from synermedgen_jax.core.errors import VolumeError
from synermedgen_jax.core.modalities import Region
from synermedgen_jax.slices import input_files
from synermedgen_jax.slices.datasets import is_label, modality_or_none
from synermedgen_jax.slices.dicom import Series, list_series
from synermedgen_jax.slices.input_files import DatasetError, Entry
from synermedgen_jax.slices.volumes import has_volume_suffix

# DICOM's MR does not state the contrast.
_DICOM_MODALITIES = {'CT': 'ct', 'PT': 'pet'}
COLUMNS = ('subject', 'modality', 'region', 'path', 'series')
# Folders that group files of all subjects, or the files of one.
_GROUPS = re.compile(
  r'anat|pet|func|dicoms?|nii|nifti|images?(t[rs])?|volumes?|data|raw|scans?'
  r'|hgg|lgg|train(ing)?|val(idation)?|test(ing)?|ses-.*|series.*',
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Draft:
  """The lines of a drafted table, in `COLUMNS`."""

  rows: list[dict[str, str]]

  @property
  def incomplete(self) -> int:
    """Number of lines without a subject or a modality."""
    return sum(not (row['subject'] and row['modality']) for row in self.rows)


def write_draft(root: Path, table: Path, region: Region | None) -> Draft:
  """Writes a table of the volumes below a folder; keeps an existing file.

  Args:
    root: folder with volumes, folders of DICOM files, or zips of them.
    table: file to write, UTF-8 with a byte order mark, as spreadsheets expect.
    region: region of every line; None leaves the column empty.

  Raises:
    DatasetError: the root cannot be read or holds no volume, or the table
      exists or cannot be written.
  """
  problems: list[str] = []
  input_files.children(root)  # raises if it cannot be read
  entries = list(_entries(root, problems))
  if not entries:
    raise DatasetError(f'{root}: holds no volume. {input_files.describe(root)}')
  rows = [row for entry in entries for row in _rows(entry, root, table, region)]
  _clear_doubtful(rows)
  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  if os.path.lexists(table):
    raise DatasetError(f'{table}: exists; choose another --draft or delete it.')
  try:
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open('x', encoding='utf-8-sig', newline='') as file:
      file.write(text.getvalue())
  except OSError as error:
    raise DatasetError(
      f'{table}: cannot be written ({error.strerror}).'
    ) from None
  return Draft(rows)


def _entries(root: Path, problems: list[str]) -> Iterator[Entry]:
  """Volumes, folders that directly hold DICOM files, and zips."""
  for entry in input_files.volume_entries(root, problems):
    if not is_label(entry.stem):
      yield entry
  for folder, folders, names in os.walk(root):
    folders[:] = sorted(
      name for name in folders if not input_files.is_hidden(name)
    )
    paths = [
      Path(folder, name)
      for name in sorted(names)
      if not input_files.is_hidden(name)
    ]
    for path in paths:
      if path.suffix.lower() == '.zip':
        yield Entry(path, path)
    files = [p for p in paths if not has_volume_suffix(p)][:1]
    if any(map(input_files.is_dicom_file, files)):
      yield Entry(Path(folder), Path(folder))


def _rows(
  entry: Entry, root: Path, table: Path, region: Region | None
) -> Iterator[dict[str, str]]:
  """One line per volume, or per series of a folder or zip that has several."""
  subject, modality = _guess(entry, root)
  path = entry.path.absolute()
  folder = table.absolute().parent
  if path.is_relative_to(folder):
    path = path.relative_to(folder)
  row = {
    'subject': subject,
    'modality': modality,
    'region': region.value if region else '',
    'path': path.as_posix(),
    'series': '',
  }
  series = _series(entry.path)
  for one in series:
    selected = (one.number or one.description) if len(series) > 1 else ''
    stated = _DICOM_MODALITIES.get(one.modality, '')
    named = modality if len(series) == 1 else ''
    yield row | {'modality': named or stated, 'series': selected}
  if not series:
    yield row


def _series(path: Path) -> list[Series]:
  """The DICOM series at a path; none if it has no DICOM or cannot be read."""
  if not path.is_dir() and path.suffix.lower() != '.zip':
    return []
  try:
    return list_series(path)
  except VolumeError:  # `prepare` reports it, if the line is kept
    return []


def _guess(entry: Entry, root: Path) -> tuple[str, str]:
  """Subject and modality of a path, '' where the names are not clear."""
  *folders, _ = entry.name.relative_to(root).parts or ('',)
  stem = entry.stem if entry.name != root else ''
  modality = _single_modality(stem)
  if not modality and folders:
    modality = _single_modality(folders[-1])
  if not has_volume_suffix(entry.name):  # a study may be named by its subject
    folders = [*folders, stem]
  subjects = [
    name
    for name in folders
    if not _GROUPS.fullmatch(name) and not modality_or_none(name)
  ]
  if subjects:
    return subjects[-1], modality
  return _without_modality(stem) if modality else '', modality


def _single_modality(name: str) -> str:
  """The only modality among the parts of a name, '' if there is none."""
  whole = modality_or_none(name)
  if whole:
    return whole.value
  parts = {modality_or_none(p) for p in re.split(r'[^A-Za-z0-9]+', name)}
  parts.discard(None)
  return parts.pop().value if len(parts) == 1 else ''


def _without_modality(stem: str) -> str:
  parts = re.split(r'([^A-Za-z0-9]+)', stem)
  kept = [p for p in parts if not modality_or_none(p)]
  return ''.join(kept).strip('_-. ')


def _clear_doubtful(rows: list[dict[str, str]]) -> None:
  """Empties the modality of volumes that a subject has twice."""
  groups: dict[tuple[str, str], list[dict[str, str]]] = {}
  for row in rows:
    groups.setdefault((row['subject'], row['modality']), []).append(row)
  for group in groups.values():
    for row in group if len(group) > 1 else ():
      row['modality'] = ''
