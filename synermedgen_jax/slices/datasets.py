"""Readers of users' own layouts: subject and modality of every volume file.

* `folder`: ROOT/<subject>/<modality>.nii.gz (or .nii, .mha, .mhd, .nrrd); all
  subjects have one region.
* `csv`: a table with the columns subject, modality, path and optionally
  region, dataset, split and patient; paths are relative to the table.

See docs/data.md.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.splits import SPLITS
from synermedgen_jax.slices.volumes import SUFFIXES, has_volume_suffix


class DatasetError(UserError):
  """A layout that cannot be read; one line naming the file."""


@dataclasses.dataclass(frozen=True)
class CaseFiles:
  """The files of one case: volumes of one subject in one world frame.

  Attributes:
    dataset: name of the dataset.
    subject: name of the subject, unique within the dataset.
    region: body region, which selects the routes.
    files: modality -> file.
    split: split given by the data; '' = drawn by `prepare`.
    patient: name of the person, if several cases or datasets show the same
      person; '' = only this case. All cases of a patient get one split.
    reference: modalities in order of preference; the first that the case has
      defines its grid.
    mask: file of the body mask, if the dataset has one; voxels above zero are
      inside.
  """

  dataset: str
  subject: str
  region: Region
  files: dict[Modality, Path]
  split: str = ''
  patient: str = ''
  reference: tuple[Modality, ...] = ()
  mask: Path | None = None

  @property
  def id(self) -> str:
    """Name of the case in a store."""
    return f'{self.dataset}.{self.subject}'


def folder_cases(
  root: Path, *, dataset: str, region: Region
) -> list[CaseFiles]:
  """Lists the cases of ROOT/<subject>/<modality>.<suffix>.

  A file named `mask` is the body mask. Other masks (`*mask*`) and names that
  begin with a dot are ignored.

  Args:
    root: folder of the subjects' folders.
    dataset: name of the dataset.
    region: body region of all subjects.

  Raises:
    DatasetError: the root or a subject has no volumes, a file name is no
      modality, or two files have the same one.
  """
  if not root.is_dir():
    raise DatasetError(f'{root}: no such folder.')
  cases = []
  for folder in sorted(p for p in root.iterdir() if p.is_dir()):
    if folder.name.startswith('.'):
      continue
    files: dict[Modality, Path] = {}
    mask = None
    for path in sorted(folder.iterdir()):
      name = path.name.lower()
      if not has_volume_suffix(path) or name.startswith('.'):
        continue
      if _stem(path).lower() == 'mask':
        if mask:
          raise DatasetError(
            f'{path}: {mask.name} is a body mask too; remove one of them.'
          )
        mask = path
      if 'mask' in name:
        continue
      modality = _modality(_stem(path), path)
      if modality in files:
        raise DatasetError(
          f'{path}: {files[modality].name} has the same modality; remove one '
          'of them.'
        )
      files[modality] = path
    if not files:
      raise DatasetError(
        f'{folder}: holds no volume; expected <modality> with one of the '
        f'suffixes {", ".join(SUFFIXES)}.'
      )
    cases.append(CaseFiles(dataset, folder.name, region, files, mask=mask))
  if not cases:
    raise DatasetError(f'{root}: holds no subject folders.')
  return cases


def _stem(path: Path) -> str:
  suffix = next(s for s in SUFFIXES[::-1] if path.name.lower().endswith(s))
  return path.name[: -len(suffix)]


def _modality(name: str, where: object) -> Modality:
  try:
    return Modality.parse(name)
  except ValueError as error:
    raise DatasetError(f'{where}: {error}') from None


def csv_cases(
  table: Path, *, dataset: str, region: Region | None
) -> list[CaseFiles]:
  """Lists the cases of a table with one volume per line.

  Args:
    table: CSV file with a header line; docs/data.md lists the columns.
    dataset: dataset of lines that name none.
    region: region of lines that name none; None = every line must name one.

  Raises:
    DatasetError: the table is missing or empty, lacks a column, or a line is
      invalid or contradicts an earlier one; the message names the line.
  """
  if not table.is_file():
    raise DatasetError(f'{table}: no such file.')
  # Excel writes UTF-8 with a byte order mark.
  with table.open(newline='', encoding='utf-8-sig') as file:
    reader = csv.DictReader(file)
    missing = {'subject', 'modality', 'path'} - set(reader.fieldnames or ())
    if missing:
      raise DatasetError(
        f'{table}: has no column {", ".join(sorted(missing))}.'
      )
    cases: dict[tuple[str, str], CaseFiles] = {}
    for row in reader:
      where = f'{table}:{reader.line_num}'
      _add_row(cases, row, where, table.parent, dataset, region)
  if not cases:
    raise DatasetError(f'{table}: lists no volume.')
  return list(cases.values())


def _add_row(cases, row, where, base: Path, dataset, region) -> None:
  dataset = row.get('dataset') or dataset
  try:
    region = Region.parse(row['region']) if row.get('region') else region
  except ValueError as error:
    raise DatasetError(f'{where}: {error}') from None
  if region is None:
    raise DatasetError(f'{where}: no region; add the column or pass --region.')
  split = row.get('split') or ''
  if split and split not in SPLITS:
    raise DatasetError(
      f'{where}: unknown split {split!r}, expected one of {", ".join(SPLITS)}.'
    )
  if not row['subject'] or not row['path']:
    raise DatasetError(f'{where}: subject or path is missing.')
  if '/' in row['subject'] or '/' in dataset:
    raise DatasetError(f'{where}: subject and dataset may not contain /.')
  modality = _modality(row['modality'] or '', where)
  patient = row.get('patient') or ''
  new_case = CaseFiles(dataset, row['subject'], region, {}, split, patient)
  case = cases.setdefault((dataset, row['subject']), new_case)
  if (case.region, case.split, case.patient) != (region, split, patient):
    raise DatasetError(
      f'{where}: an earlier line gives subject {case.subject!r} the region '
      f'{case.region}, split {case.split!r} and patient {case.patient!r}.'
    )
  if modality in case.files:
    raise DatasetError(
      f'{where}: an earlier line lists {modality} of subject {case.subject!r}.'
    )
  case.files[modality] = base / row['path']
