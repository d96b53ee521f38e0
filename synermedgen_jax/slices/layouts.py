"""Readers of common layouts, each from a root folder to cases and faults.

* `nnunet`: ROOT/imagesTr/<case>_0000.nii.gz, channels named in dataset.json.
* `bids`: ROOT/sub-*/[ses-*/]anat/*_T1w.nii.gz, and pet/*_pet.nii.gz.
* `flat`: ROOT/<subject>_<modality>.nii.gz.

`datasets` reads a folder per subject, `tables` a table. None of them reads
voxels. See docs/data.md.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices import input_files
from synermedgen_jax.slices.datasets import (
  MASKS,
  CaseFiles,
  Fault,
  Listing,
  is_label,
  list_folder,
  modality_or_none,
  parse_modality,
)
from synermedgen_jax.slices.input_files import DatasetError, Entry

_CHANNEL = re.compile(r'(.+)_(\d{4})')
_MASK = re.compile(rf'(.+)[_-]({"|".join(MASKS)})', re.IGNORECASE)
_NNUNET_FOLDERS = ('imagesTr', 'imagesTs')
# Suffixes of BIDS names; other images are passed over.
_BIDS_SUFFIXES = {
  't1w': Modality.T1,
  't2w': Modality.T2,
  'flair': Modality.FLAIR,
  'pet': Modality.PET,
  'ct': Modality.CT,
}
_BIDS_SKIPPED = {'derivatives', 'sourcedata', 'code'}


def _nothing(root: Path, name: str, expected: str) -> DatasetError:
  return DatasetError(
    f'{root}: holds no volume of the layout {name} ({expected}). '
    f'{input_files.describe(root)} docs/data.md describes the layouts; '
    'prepare --draft=TABLE.csv writes a table to complete.'
  )


@dataclasses.dataclass
class _Subjects:
  """Collects the volumes of subjects, and the faults of each."""

  dataset: str
  region: Region
  cases: dict[str, CaseFiles] = dataclasses.field(default_factory=dict)
  faults: list[Fault] = dataclasses.field(default_factory=list)

  def case(self, subject: str, patient: str = '') -> CaseFiles:
    """The case of a subject, which this adds if it is new."""
    new = CaseFiles(self.dataset, subject, self.region, {}, patient=patient)
    return self.cases.setdefault(subject, new)

  def fault(self, subject: str, problem: str) -> None:
    """Adds a fault; the empty subject stands for the layout itself."""
    case_id = self.case(subject).id if subject else ''
    self.faults.append(Fault(case_id, problem))

  def add(self, subject: str, modality: Modality, entry: Entry) -> None:
    """Gives a subject a volume; a second one of a modality is a fault."""
    files = self.case(subject).files
    if modality in files:
      self.fault(
        subject,
        f'{entry.name}: {files[modality]} is {modality} of {subject} too; '
        'remove one of them, or list the volumes in a table (--draft).',
      )
    files[modality] = entry.path

  def listing(self) -> Listing:
    """Cases sorted by subject, without those that have no volume."""
    cases = [case for _, case in sorted(self.cases.items())]
    cases = [c for c in cases if c.files]
    return Listing.of(cases, self.faults)


def list_nnunet(root: Path, *, dataset: str, region: Region) -> Listing:
  """Lists the cases of an nnU-Net dataset, of imagesTr and imagesTs.

  Args:
    root: folder with dataset.json, which names the channels.
    dataset: name of the dataset.
    region: body region of all cases.

  Raises:
    DatasetError: dataset.json is missing or damaged, or there is no image.
  """
  description = root / 'dataset.json'
  channels = channel_names(description)
  subjects = _Subjects(dataset, region)
  problems: list[str] = []
  modalities = {}
  for channel, name in channels.items():
    modalities[channel] = modality_or_none(name)
    if not modalities[channel]:
      problems.append(
        f'{description}: channel {channel} is {name!r}, which is no known '
        'modality and is left out; list the volumes in a table (--draft) if it '
        'is one.'
      )
  for name in _NNUNET_FOLDERS:
    folder = root / name
    if not folder.exists():
      continue
    for entry in input_files.volume_entries(folder, problems, deep=False):
      match = _CHANNEL.fullmatch(entry.stem)
      if not match:
        subjects.fault(
          entry.stem,
          f'{entry.name}: expected <case>_<channel of four digits>, such as '
          f'{entry.stem}_0000.',
        )
        continue
      subject, channel = match[1], int(match[2])
      if channel not in modalities:
        subjects.fault(
          subject,
          f'{entry.name}: {description} has no channel {channel}, only '
          f'{", ".join(map(str, channels))}.',
        )
      elif modalities[channel]:
        subjects.add(subject, modalities[channel], entry)
  for problem in problems:
    subjects.fault('', problem)
  if not subjects.cases and not subjects.faults:
    raise _nothing(root, 'nnunet', 'imagesTr/<case>_0000.nii.gz')
  return subjects.listing()


def list_bids(root: Path, *, dataset: str, region: Region) -> Listing:
  """Lists the sessions of a BIDS dataset; those of a subject are one patient.

  Reads T1w (with `ce-gadolinium` as T1CE), T2w, FLAIR, ct and pet. Other
  images, derivatives and hidden files are passed over.

  Args:
    root: folder of the folders sub-*.
    dataset: name of the dataset.
    region: body region of all cases.

  Raises:
    DatasetError: the root cannot be read or has no such image.
  """
  subjects = _Subjects(dataset, region)
  problems: list[str] = []
  for patient in input_files.children(root):
    if not patient.name.startswith('sub-') or not patient.is_dir():
      continue
    for entry in input_files.volume_entries(patient, problems):
      parts = entry.name.relative_to(patient).parts[:-1]
      session = '_'.join(p for p in parts if p.startswith('ses-'))
      subject = f'{patient.name}_{session}' if session else patient.name
      *labels, suffix = entry.stem.split('_')
      modality = _BIDS_SUFFIXES.get(suffix.lower())
      if modality is None or not _BIDS_SKIPPED.isdisjoint(parts):
        continue
      entities = dict(label.partition('-')[::2] for label in labels)
      agent = entities.get('ce', '')
      if agent and modality is Modality.T1:
        modality = Modality.T1CE
      subjects.case(subject, patient.name)
      if agent and not agent.lower().startswith('gad'):
        subjects.fault(
          subject,
          f'{entry.name}: the contrast agent ce-{agent} is unknown, expected '
          'ce-gadolinium; list the volume in a table (--draft).',
        )
        continue
      subjects.add(subject, modality, entry)
  for problem in problems:
    subjects.fault('', problem)
  if not subjects.cases and not subjects.faults:
    raise _nothing(root, 'bids', 'sub-*/[ses-*/]anat/*_T1w.nii.gz')
  return subjects.listing()


def is_bids_image(stem: str) -> bool:
  """Whether a name ends as those of images that `list_bids` reads."""
  return stem.rpartition('_')[2].lower() in _BIDS_SUFFIXES


def list_flat(root: Path, *, dataset: str, region: Region) -> Listing:
  """Lists the subjects of ROOT/<subject>_<modality>.nii.gz, or with `-`.

  <subject>_mask is the body mask, <subject>_lesion the lesion mask; other masks
  and segmentations are passed over.

  Args:
    root: folder of the volumes.
    dataset: name of the dataset.
    region: body region of all subjects.

  Raises:
    DatasetError: the root cannot be read or has no volume.
  """
  input_files.children(root)  # raises if it cannot be read
  subjects = _Subjects(dataset, region)
  problems: list[str] = []
  masks: dict[str, dict[str, Path]] = {}
  for entry in input_files.volume_entries(root, problems, deep=False):
    subject, modality = split_name(entry.stem)
    if modality:
      subjects.add(subject, modality, entry)
    elif match := _MASK.fullmatch(entry.stem):
      masks.setdefault(match[1], {})[match[2].lower()] = entry.path
    elif not is_label(entry.stem):
      try:
        parse_modality(re.split(r'[_-]', entry.stem)[-1])
        problem = 'has no subject; expected <subject>_<modality>.'
      except UserError as error:
        problem = str(error)
      subjects.fault(
        re.split(r'[_-][^_-]*$', entry.stem)[0], f'{entry.name}: {problem}'
      )
  for problem in problems:
    subjects.fault('', problem)
  if not subjects.cases and not subjects.faults:
    raise _nothing(root, 'flat', '<subject>_<modality>.nii.gz')
  for subject, of_subject in masks.items():
    if subject in subjects.cases:
      subjects.cases[subject] = dataclasses.replace(
        subjects.cases[subject], **of_subject
      )
  return subjects.listing()


def split_name(stem: str) -> tuple[str, Modality | None]:
  """Subject and modality of <subject>_<modality> or <subject>-<modality>.

  The longest end that is a modality counts: p1_t2_flair is FLAIR of p1. Without
  one, the subject is the whole stem and the modality None.
  """
  for match in re.finditer(r'[_-]+', stem):
    modality = modality_or_none(stem[match.end() :])
    if modality and match.start():
      return stem[: match.start()], modality
  return stem, None


def channel_names(description: Path) -> dict[int, str]:
  """Number -> name of the channels that dataset.json lists.

  Raises:
    DatasetError: the file is missing or not as nnU-Net writes it.
  """
  try:
    content = json.loads(description.read_bytes())
  except FileNotFoundError:
    raise DatasetError(
      f'{description}: no such file; --root is the folder with dataset.json '
      'and imagesTr.'
    ) from None
  except OSError as error:
    raise DatasetError(
      f'{description}: cannot be read ({error.strerror}).'
    ) from None
  except ValueError as error:
    raise DatasetError(f'{description}: is not JSON ({error}).') from None
  names = isinstance(content, dict) and (
    content.get('channel_names') or content.get('modality')
  )
  try:
    channels = {int(number): str(name) for number, name in names.items()}
  except (AttributeError, ValueError):
    raise DatasetError(
      f'{description}: has no "channel_names" (or "modality") that names each '
      'channel, such as {"0": "CT", "1": "PET"}.'
    ) from None
  known = [modality_or_none(name) for name in channels.values()]
  for modality, count in collections.Counter(filter(None, known)).items():
    if count > 1:
      raise DatasetError(f'{description}: {count} channels are {modality}.')
  return channels


Reader = Callable[..., Listing]
# Layouts that need --region, by the value of --dataset.
LAYOUTS: Mapping[str, Reader] = {
  'folder': list_folder,
  'flat': list_flat,
  'nnunet': list_nnunet,
  'bids': list_bids,
}
