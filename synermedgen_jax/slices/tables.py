"""Reads a table of volumes as people and spreadsheets write it.

The separator is a comma, semicolon or tab; the encoding UTF-8, UTF-16 or that
of Western European Windows (cp1252). Spaces around values, capitals in names,
blank lines, `~` and backslashes in paths are accepted. Every faulty line is
reported, numbered as an editor numbers it.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import difflib
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from synermedgen_jax.core.choices import SPLITS
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Region
from synermedgen_jax.slices import input_files
from synermedgen_jax.slices.datasets import (
  CaseFiles,
  Fault,
  Listing,
  parse_modality,
)
from synermedgen_jax.slices.dicom import holds_dicom
from synermedgen_jax.slices.input_files import DatasetError
from synermedgen_jax.slices.volumes import locate

REQUIRED = ('subject', 'modality', 'path')
_OPTIONAL = ('region', 'dataset', 'split', 'patient', 'series', 'lesion')
COLUMNS = (*REQUIRED, *_OPTIONAL)
_EXTRA = '+'  # values beyond the columns of the header
_SEPARATORS = ',;\t'
_SIMILAR = 0.8  # difflib's ratio from which a column counts as a typo
_WINDOWS_DRIVE = re.compile(r'[A-Za-z]:[\\/]|\\\\')
_BINARY = {
  b'PK\x03\x04': 'an Excel or LibreOffice workbook',
  b'\xd0\xcf\x11\xe0': 'an Excel workbook',
  b'\x1f\x8b': 'a gzip file',
}
Row = Mapping[str, str]


def csv_cases(
  table: Path, *, dataset: str, region: Region | None
) -> list[CaseFiles]:
  """Lists the cases of a table with one volume per line.

  Raises:
    DatasetError: as `list_table`, or for any of its faults.
  """
  return list_table(table, dataset=dataset, region=region).all_cases()


def list_table(table: Path, *, dataset: str, region: Region | None) -> Listing:
  """Lists the cases of a table with one volume per line.

  Args:
    table: file with a header line; docs/data.md lists the columns.
    dataset: dataset of lines that name none.
    region: region of lines that name none; None = every line must name one.

  Returns:
    The cases, and every line that is incomplete, invalid, contradicts an
    earlier one, or names a file that cannot be read.

  Raises:
    DatasetError: the file cannot be read, is no table, has no line, or lacks or
      repeats a column.
  """
  cases: dict[str, CaseFiles] = {}
  faults = []
  reader = _Lines(table, dataset, region)
  for number, row in read_rows(table):
    case_id = f'{row.get("dataset") or dataset}.{row["subject"]}'
    try:
      reader.add(cases, row)
    except UserError as error:
      case_id = case_id if row['subject'] else ''
      faults.append(Fault(case_id, f'{table}:{number}: {error}'))
  if not cases and not faults:
    raise DatasetError(f'{table}: lists no volume.')
  return Listing.of(list(cases.values()), faults)


@dataclasses.dataclass(frozen=True)
class _Lines:
  """Turns lines into cases; the fields are those of `list_table`."""

  table: Path
  dataset: str
  region: Region | None

  def add(self, cases: dict[str, CaseFiles], row: Row) -> None:
    """Adds one line; raises UserError if it cannot be used."""
    if row[_EXTRA]:
      raise DatasetError(
        'has more values than the header has columns; put values that contain '
        'the separator in quotes (").'
      )
    empty = [name for name in REQUIRED if not row[name]]
    if empty:
      raise DatasetError(
        f'{" and ".join(empty)} {"is" if len(empty) == 1 else "are"} empty; '
        'complete the line or delete it.'
      )
    new_case = self._case(row)
    modality = parse_modality(row['modality'])
    path = self._path(row['path'])
    case = cases.setdefault(new_case.id, new_case)
    for field in ('region', 'split', 'patient', 'lesion'):
      before, now = (getattr(c, field) or '' for c in (case, new_case))
      if before != now:
        raise DatasetError(
          f'gives subject {case.subject!r} the {field} {str(now)!r}, an '
          f'earlier line {str(before)!r}.'
        )
    if modality in case.files:
      raise DatasetError(
        f'an earlier line lists {modality} of subject {case.subject!r}.'
      )
    case.files[modality] = path
    if row.get('series'):
      case.series[modality] = row['series']

  def _case(self, row: Row) -> CaseFiles:
    region = self.region
    if row.get('region'):
      region = Region.parse(row['region'].replace(' ', '_'))
    if region is None:
      raise DatasetError('no region; add the column or pass --region.')
    split = row.get('split', '').lower()
    if split and split not in SPLITS:
      raise DatasetError(
        f'unknown split {row["split"]!r}, expected one of {", ".join(SPLITS)}.'
      )
    return CaseFiles(
      row.get('dataset') or self.dataset,
      row['subject'],
      region,
      {},
      split,
      row.get('patient', ''),
      lesion=self._path(row['lesion']) if row.get('lesion') else None,
    )

  def _path(self, text: str) -> Path:
    """The volume, relative to the table; DatasetError if it cannot be read."""
    path = self.table.parent / os.path.expanduser(text)
    if '\\' in text and os.sep != '\\' and not os.path.lexists(path):
      if _WINDOWS_DRIVE.match(text):
        raise DatasetError(
          f'{text}: is a path of a Windows drive; write it relative to the '
          'table.'
        )
      path = self.table.parent / os.path.expanduser(text.replace('\\', '/'))
    path = locate(path)  # raises VolumeError if it cannot be read
    if path.is_dir() and not holds_dicom(path):
      inner = input_files.one_volume(path)
      if not inner:
        raise DatasetError(
          f'{path}: is a folder without DICOM files and without exactly one '
          'volume.'
        )
      return inner
    return path


def read_rows(table: Path) -> Iterator[tuple[int, Row]]:
  """Yields the lines of a table that are not blank.

  Yields:
    The number of the line in the file, from 1, and the value of each known
    column, stripped; '' where the line is too short. `_EXTRA` holds values
    beyond the last column.

  Raises:
    DatasetError: as `list_table`; a quote that is not closed counts as damage
      of the table, since the lines behind it cannot be told apart.
  """
  text = _decode(table)
  start, separator, names = _header(text, table)
  for number, values in _records(text, separator, table):
    if number <= start or not any(values):
      continue
    extra = [value for value in values[len(names) :] if value]
    values += [''] * (len(names) - len(values))
    row = dict(zip(names, values, strict=False))
    kept = {name: row.get(name, '') for name in COLUMNS}
    yield number, kept | {_EXTRA: ' '.join(extra)}


def _decode(table: Path) -> str:
  try:
    data = table.read_bytes()
  except FileNotFoundError:
    reason = 'is a broken link' if table.is_symlink() else 'no such file'
    raise DatasetError(f'{table}: {reason}.') from None
  except IsADirectoryError:
    raise DatasetError(
      f'{table}: is a folder; --dataset=csv reads a table, --dataset=folder a '
      'folder.'
    ) from None
  except OSError as error:
    raise DatasetError(f'{table}: cannot be read ({error.strerror}).') from None
  for magic, kind in _BINARY.items():
    if data.startswith(magic):
      raise DatasetError(f'{table}: is {kind}; save it as CSV.')
  text = data.decode(_encoding(data), errors='replace')
  if '\0' in text:
    raise DatasetError(f'{table}: is not a text file; save it as CSV.')
  return text.lstrip('\ufeff')


def _encoding(data: bytes) -> str:
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    return 'utf-16'
  # ASCII in UTF-16 has a zero byte in every pair.
  for offset, name in ((1, 'utf-16-le'), (0, 'utf-16-be')):
    sample = data[offset:200:2]
    if sample and not any(sample):
      return name
  try:
    data.decode('utf-8')
  except UnicodeDecodeError:
    return 'cp1252'
  return 'utf-8'


def _records(
  text: str, separator: str, table: Path
) -> Iterator[tuple[int, list[str]]]:
  """Number of the first line and stripped values of each record."""
  reader = csv.reader(
    io.StringIO(text, newline=''), delimiter=separator, skipinitialspace=True
  )
  number = 1
  while True:
    try:
      values = next(reader, None)
    except csv.Error as error:
      raise DatasetError(f'{table}:{number}: {error}.') from None
    if values is None:
      return
    if any(re.search(r'[\r\n]', value.strip()) for value in values):
      raise DatasetError(
        f'{table}:{number}: a quote (") is not closed on this line.'
      )
    yield number, [value.strip().strip('\ufeff\u200b') for value in values]
    number = reader.line_num + 1


def _header(text: str, table: Path) -> tuple[int, str, list[str]]:
  """Line number, separator and lower-case names of the header."""
  lines = io.StringIO(text, newline='')
  number, line = next(
    ((n, v) for n, v in enumerate(lines, 1) if v.strip(f' {_SEPARATORS}\r\n')),
    (0, ''),
  )
  separators = _SEPARATORS
  stated = re.fullmatch(r'"?sep=(.)"?\s*', line)  # written for Excel
  if stated:
    separators = stated[1]
    number, line = number + 1, next(lines, '')
  options = {s: _names(line, s) for s in separators}
  separator = max(
    options, key=lambda s: (len({*options[s]} & {*COLUMNS}), len(options[s]))
  )
  _check_columns(options[separator], f'{table}:{max(number, 1)}')
  return number, separator, options[separator]


def _names(line: str, separator: str) -> list[str]:
  reader = csv.reader([line], delimiter=separator, skipinitialspace=True)
  return [name.strip().lower() for name in next(reader, [])]


def _check_columns(names: list[str], where: str) -> None:
  """Raises DatasetError if a column is missing, misspelt or repeated."""
  repeated = sorted({n for n in names if n in COLUMNS and names.count(n) > 1})
  if repeated:
    raise DatasetError(f'{where}: repeats the column {", ".join(repeated)}.')
  absent = [name for name in COLUMNS if name not in names]
  for name in names:
    if name and name not in COLUMNS:
      (likely,) = difflib.get_close_matches(name, absent, 1, _SIMILAR) or ('',)
      if likely:
        raise DatasetError(
          f'{where}: unknown column {name!r}; rename it to {likely!r}, or to '
          'something less similar if it is another thing.'
        )
  missing = [name for name in REQUIRED if name not in names]
  if missing:
    columns = ', '.join(filter(None, names)) or 'none'
    raise DatasetError(
      f'{where}: has no column {", ".join(missing)}; its columns are {columns} '
      '(separated by commas, semicolons or tabs).'
    )
