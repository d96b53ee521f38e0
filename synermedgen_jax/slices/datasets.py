"""Layouts on disk: which file shows which modality of which subject.

* `folder`: ROOT/<subject>/<modality>.nii.gz (or .nii, .mha, .mhd, .nrrd), all
  of one region.
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
  """A layout that cannot be read; one line that names the file."""


@dataclasses.dataclass(frozen=True)
class CaseFiles:
  """The files of one case: one subject, volumes in one world frame.

  Attributes:
    dataset: where it is from.
    subject: unique within the dataset.
    region: which routes are meant.
    files: modality -> file.
    split: given by the data, '' = to be drawn.
    patient: who it is, where several cases or datasets show one person; '' =
      nobody else. All cases of a patient go to one split.
    reference: modalities by preference that give the case its grid.
    mask: of the body, where the data have one; above zero is inside.
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
  """ROOT/<subject>/<modality>.<suffix>; volumes named otherwise are an error.

  A file `mask` marks the body. Files and folders whose names begin with a dot,
  and other masks (`*mask*`), are passed over.
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
          raise DatasetError(f'{path}: {mask.name} shows it already.')
        mask = path
      if 'mask' in name:
        continue
      modality = _modality(_stem(path), path)
      if modality in files:
        raise DatasetError(f'{path}: {files[modality].name} shows it already.')
      files[modality] = path
    if not files:
      raise DatasetError(
        f'{folder}: holds no volume; expected <modality> + one of '
        f'{", ".join(SUFFIXES)}.'
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
  """The volumes that a table lists, one a line.

  Args:
    table: CSV with a header line.
    dataset: of lines without one.
    region: of lines without one; None = every line must have it.
  """
  if not table.is_file():
    raise DatasetError(f'{table}: no such file.')
  # Excel begins its UTF-8 with a mark.
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
  fresh = CaseFiles(dataset, row['subject'], region, {}, split, patient)
  case = cases.setdefault((dataset, row['subject']), fresh)
  if (case.region, case.split, case.patient) != (region, split, patient):
    raise DatasetError(
      f'{where}: subject {case.subject!r} had region {case.region}, split '
      f'{case.split!r} and patient {case.patient!r} before.'
    )
  if modality in case.files:
    raise DatasetError(
      f'{where}: subject {case.subject!r} has {modality} twice.'
    )
  case.files[modality] = base / row['path']
