"""The files of a case, and the layout of a folder per subject.

`folder` is ROOT/<subject>/<modality>.nii.gz (or .nii, .mha, .mhd, .nrrd). A
modality may also be a folder of DICOM files or a zip of them. All subjects have
one region. `layouts`, `tables` and `public_datasets` read the other layouts;
see docs/data.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices import input_files
from synermedgen_jax.slices.dicom import holds_dicom
from synermedgen_jax.slices.input_files import DatasetError, Entry
from synermedgen_jax.slices.volumes import SUFFIXES, has_volume_suffix

_MOST_FAULTS = 20  # that one message lists
# Other names of modalities, without separators: of BIDS, BraTS, the Medical
# Segmentation Decathlon and nnU-Net.
_ALIASES = {
  't1w': Modality.T1,
  't1n': Modality.T1,
  't1weighted': Modality.T1,
  't1c': Modality.T1CE,
  't1gd': Modality.T1CE,
  't1gad': Modality.T1CE,
  't1wgd': Modality.T1CE,
  't1wce': Modality.T1CE,
  't1post': Modality.T1CE,
  't2w': Modality.T2,
  't2weighted': Modality.T2,
  't2f': Modality.FLAIR,
  't2flair': Modality.FLAIR,
  't2wflair': Modality.FLAIR,
  'mri': Modality.MR,
  'suv': Modality.PET,
  'conebeamct': Modality.CBCT,
}
# Name of a mask's file, and its field of `CaseFiles` -> what it is.
MASKS = {'mask': 'body mask', 'lesion': 'lesion mask'}
_LABELS = ('seg', 'segmentation', 'label', 'labels', 'lesion')


def parse_modality(name: str) -> Modality:
  """The modality of a name, such as ct, T1w or T1-Gd, ignoring case.

  Raises:
    UserError: the name is unknown; the message lists the known ones, and the
      one that is part of the name.
  """
  known = modality_or_none(name)
  if known:
    return known
  try:
    return Modality.parse(name)
  except UserError as error:
    parts = {modality_or_none(p) for p in re.split(r'[^A-Za-z0-9]+', name)}
    parts.discard(None)
    if len(parts) != 1:
      raise
    (likely,) = parts
    message = str(error).removesuffix('.')
    raise UserError(f'{message}; rename it if it is {likely}.') from None


def modality_or_none(name: str) -> Modality | None:
  """The modality of a name, None if it is unknown."""
  lower = name.strip().lower()
  if lower in Modality.members:
    return Modality(lower)
  bare = re.sub(r'[\s_-]', '', lower)
  return _ALIASES.get(bare) or Modality.members.get(bare)


def is_label(name: str) -> bool:
  """Whether a volume is a mask or a segmentation, by its name."""
  last = re.split(r'[^a-z]+', name.lower())[-1]
  return 'mask' in name.lower() or last in _LABELS


@dataclasses.dataclass(frozen=True)
class CaseFiles:
  """The files of one case: volumes of one subject in one world frame.

  Attributes:
    dataset: name of the dataset.
    subject: name of the subject, unique within the dataset.
    region: body region, which selects the routes.
    files: modality -> file, or folder or zip of DICOM files.
    split: split given by the data; '' = drawn by `prepare`.
    patient: name of the person, if several cases or datasets show the same
      person; '' = only this case. All cases of a patient get one split.
    reference: modalities in order of preference; the first that the case has
      defines its grid.
    mask: file of the body mask, if the dataset has one, on the grid of one of
      the volumes; voxels above zero are inside.
    series: modality -> DICOM series in its folder or zip: number, description
      or modality; needed where there are several.
    lesion: file of the lesion mask, on the grid of one of the volumes.
    lesion_labels: values in it that mark a lesion; others are refused.
  """

  dataset: str
  subject: str
  region: Region
  files: dict[Modality, Path]
  split: str = ''
  patient: str = ''
  reference: tuple[Modality, ...] = ()
  mask: Path | None = None
  series: dict[Modality, str] = dataclasses.field(default_factory=dict)
  lesion: Path | None = None
  lesion_labels: tuple[int, ...] = (1,)

  @property
  def id(self) -> str:
    """Name of the case in a store."""
    return f'{self.dataset}.{self.subject}'


@dataclasses.dataclass(frozen=True)
class Fault:
  """Something in a layout that cannot be read.

  Attributes:
    case: id of the affected case; '' if the fault concerns no single case.
    problem: one line that names the file and the remedy.
  """

  case: str
  problem: str


@dataclasses.dataclass(frozen=True)
class Listing:
  """The cases of a layout and its faults; no case has a fault."""

  cases: Sequence[CaseFiles]
  faults: Sequence[Fault] = ()

  @classmethod
  def of(cls, cases: Sequence[CaseFiles], faults: Sequence[Fault]) -> Listing:
    """Leaves out the cases that have a fault."""
    bad = {fault.case for fault in faults}
    return cls([c for c in cases if c.id not in bad], list(faults))

  def all_cases(self) -> list[CaseFiles]:
    """The cases; raises DatasetError with all faults if there is one."""
    if self.faults:
      raise DatasetError(join_problems([f.problem for f in self.faults]))
    return list(self.cases)


def join_problems(problems: Sequence[str]) -> str:
  """One problem, or a numbered list of the first ones."""
  if len(problems) == 1:
    return problems[0]
  lines = [f'{len(problems)} problems; --skip_bad skips their subjects:']
  lines += [f'  {i}. {p}' for i, p in enumerate(problems[:_MOST_FAULTS], 1)]
  if len(problems) > _MOST_FAULTS:
    lines.append(f'  and {len(problems) - _MOST_FAULTS} more.')
  return '\n'.join(lines)


def folder_cases(
  root: Path, *, dataset: str, region: Region
) -> list[CaseFiles]:
  """Lists the subjects of ROOT/<subject>/<modality>.<suffix>.

  Raises:
    DatasetError: as `list_folder`, or for any of its faults.
  """
  return list_folder(root, dataset=dataset, region=region).all_cases()


def list_folder(root: Path, *, dataset: str, region: Region) -> Listing:
  """Lists the subjects of ROOT/<subject>/<modality>.<suffix>.

  <modality> is a volume, a folder with one volume or with DICOM files, or a zip
  of DICOM files. A volume named `mask` is the body mask, one named `lesion` the
  lesion mask. Other masks and segmentations (`*mask*`, `*_seg`), hidden files,
  empty folders and the stores and reports of `prepare` are passed over.

  Args:
    root: folder of the subjects' folders.
    dataset: name of the dataset.
    region: body region of all subjects.

  Returns:
    The cases, and the subjects without volumes, with a file name that is no
    modality, or with two files of the same one.

  Raises:
    DatasetError: the root cannot be read or has no subject folders.
  """
  cases, faults = [], []
  for folder in input_files.children(root):
    if not folder.is_dir() or has_volume_suffix(folder):
      continue
    case = CaseFiles(dataset, folder.name, region, {})
    try:
      entries, problems = _subject_entries(folder)
      if not entries and not problems:
        if input_files.is_own_output(folder) or input_files.is_empty(folder):
          continue
        problems = [_no_volume(folder)]
      case, more = assign_files(case, entries)
      if not (case.files or problems or more):  # masks and labels alone
        problems = [_no_volume(folder)]
    except (UserError, OSError) as error:
      problems, more = [str(error)], []
    cases.append(case)
    faults += [Fault(case.id, problem) for problem in (*problems, *more)]
  if not cases:
    raise DatasetError(
      f'{root}: holds no subject folders with volumes. '
      f'{input_files.describe(root)} docs/data.md describes the layouts; '
      'prepare --draft=TABLE.csv writes a table to complete.'
    )
  return Listing.of(cases, faults)


def _no_volume(folder: Path) -> str:
  return (
    f'{folder}: holds no volume; expected <modality> with one of the suffixes '
    f'{", ".join(SUFFIXES)}, or a folder or zip of DICOM files named '
    f'<modality>. {input_files.describe(folder)} prepare --draft=TABLE.csv '
    'writes a table to complete.'
  )


def _subject_entries(folder: Path) -> tuple[list[Entry], list[str]]:
  """Volumes, DICOM folders and zips of a subject; and its problems."""
  problems: list[str] = []
  entries = list(input_files.volume_entries(folder, problems, deep=False))
  for path in input_files.children(folder):
    if has_volume_suffix(path):
      continue
    is_zip = path.suffix.lower() == '.zip' and path.is_file()
    known = modality_or_none(input_files.volume_stem(path))
    if not (is_zip or path.is_dir()) or input_files.is_empty(path):
      continue
    inner = None if is_zip else input_files.one_volume(path)
    if known and inner:
      entries.append(Entry(path, inner))
    elif holds_dicom(path):
      entries.append(Entry(path, path))  # refused if the name is unknown
    elif known:
      problems.append(
        f'{path}: holds neither one volume nor DICOM files. '
        f'{input_files.describe(path)}'
      )
  return sorted(entries, key=lambda entry: entry.name), problems


def assign_files(
  case: CaseFiles, entries: Sequence[Entry]
) -> tuple[CaseFiles, list[str]]:
  """Gives a case its volumes, each named by its modality.

  Returns:
    The case with files and masks, and a line for every name that is no modality
    and for every modality or mask that occurs twice.
  """
  files: dict[Modality, Path] = {}
  names: dict[Modality, Path] = {}
  masks: dict[str, Path] = {}
  problems = []
  for entry in entries:
    stem = entry.stem.lower()
    if stem in MASKS:
      if stem in masks:
        problems.append(
          f'{entry.name}: {masks[stem].name} is a {MASKS[stem]} too; remove '
          'one of them.'
        )
      masks[stem] = entry.path
    if is_label(entry.stem):
      continue
    try:
      modality = parse_modality(entry.stem)
    except UserError as error:
      problems.append(f'{entry.name}: {error}')
      continue
    if modality in files:
      problems.append(
        f'{entry.name}: {names[modality].name} has the same modality; remove '
        'one of them.'
      )
    files[modality], names[modality] = entry.path, entry.name
  return dataclasses.replace(case, files=files, **masks), problems
