"""Readers of public datasets: subject and modality of each downloaded file.

Each reader takes the unpacked folder and returns the cases that can serve a
route. docs/data.md lists the files that a reader ignores (such as validation
cases, which have no CT), with sources and licences.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from synermedgen_jax.core.modalities import Modality, Region, routes_between
from synermedgen_jax.slices import input_files
from synermedgen_jax.slices.datasets import CaseFiles, Fault, Listing
from synermedgen_jax.slices.input_files import DatasetError, Entry
from synermedgen_jax.slices.layouts import channel_names
from synermedgen_jax.slices.volumes import NIFTI

_CT_LOW = -300.0  # HU; every CT has lower values, and no SUV is negative


@dataclasses.dataclass(frozen=True)
class PublicDataset:
  """The reader of one public dataset.

  Attributes:
    find: folder -> cases, or a listing of cases and faults.
    reference: modalities in order of preference; the first that a case has
      defines its grid. Empty = published volumes of a case share one grid.
  """

  find: Callable[[Path], list[CaseFiles] | Listing]
  reference: tuple[Modality, ...] = ()


def find_cases(name: str, root: Path) -> list[CaseFiles]:
  """The cases of the public dataset `name` under `root`, sorted.

  Raises:
    DatasetError: as `list_public`, or for any of its faults.
  """
  return list_public(name, root).all_cases()


def list_public(name: str, root: Path) -> Listing:
  """Lists the cases of the public dataset `name` under `root`, sorted.

  Returns:
    The cases that can serve a route, and as faults: two files of a case with
    the same modality, cases that occur twice, links that lead out of the root.

  Raises:
    DatasetError: the folder cannot be read or does not have the layout.
  """
  input_files.children(root)  # raises if it cannot be read
  dataset = PUBLIC_DATASETS[name]
  listing = dataset.find(root)
  if not isinstance(listing, Listing):
    listing = Listing(listing)
  cases = [
    dataclasses.replace(case, reference=dataset.reference or case.reference)
    for case in listing.cases
    if routes_between(case.region, frozenset(case.files))
  ]
  if not cases and not listing.faults:
    raise DatasetError(
      f'{root}: holds no pair of {name}. {input_files.describe(root)} '
      'docs/data.md describes the layouts; prepare --draft=TABLE.csv writes a '
      'table to complete.'
    )
  faults = [*listing.faults, *_repeated(cases), *_outside(cases, root)]
  cases = sorted(cases, key=lambda case: case.id)
  return Listing.of(cases, faults)


def _repeated(cases: Sequence[CaseFiles]) -> Iterator[Fault]:
  seen: dict[str, CaseFiles] = {}
  for case in cases:
    if case.id in seen:
      yield Fault(
        case.id,
        f'{_folder(case)}: case {case.id} is in {_folder(seen[case.id])} too; '
        'remove one of them.',
      )
    seen[case.id] = case


def _outside(cases: Sequence[CaseFiles], root: Path) -> Iterator[Fault]:
  for case in cases:
    for path in filter(None, (*case.files.values(), case.mask, case.lesion)):
      if not path.resolve().is_relative_to(root.resolve()):
        yield Fault(
          case.id,
          f'{path}: is a link that leads out of {root}; copy the file there.',
        )


def _folder(case: CaseFiles) -> Path:
  return next(iter(case.files.values())).parent


def _matches(
  root: Path, pattern: str, faults: list[Fault]
) -> Iterator[tuple[re.Match, Entry]]:
  """Volumes below the root whose path from there ends in the pattern.

  Folders that cannot be read are added to `faults`.
  """
  problems: list[str] = []
  for entry in input_files.volume_entries(root, problems):
    match = re.search(pattern, f'/{entry.name.relative_to(root).as_posix()}')
    if match:
      yield match, entry
  faults += [Fault('', problem) for problem in problems]


def _gather(
  root: Path,
  pattern: str,
  read: Callable[[re.Match, Path], tuple[CaseFiles, Modality | str] | None],
) -> Listing:
  """Collects cases from the names of files, relative to the root.

  Args:
    root: the unpacked folder.
    pattern: regular expression for the end of a path.
    read: turns a match and its path into a case (without files) and a
      modality, or the field of a mask, 'mask' or 'lesion'; returns None to
      ignore the file.
  """
  cases: dict[tuple[str, Path], CaseFiles] = {}
  faults: list[Fault] = []
  for match, entry in _matches(root, pattern, faults):
    parsed = read(match, entry.name)
    if not parsed:
      continue
    new_case, kind = parsed
    key = new_case.id, entry.name.parent
    case = cases.setdefault(key, new_case)
    is_mask = not isinstance(kind, Modality)
    duplicate = getattr(case, kind) if is_mask else case.files.get(kind)
    if duplicate:
      faults.append(
        Fault(
          case.id,
          f'{entry.name}: {duplicate.name} is the same volume; remove one of '
          'them.',
        )
      )
    if is_mask:
      cases[key] = dataclasses.replace(case, **{kind: entry.path})
    else:
      case.files[kind] = entry.path
  return Listing.of(list(cases.values()), faults)


# SynthRAD: a task's digit, the region, the centre's letter, a number.
_SYNTHRAD = r'/([12][A-Z]{1,2}[A-Z]\d{3})/(mr|cbct|ct|mask)\.'
_SYNTHRAD_REGIONS = {
  'B': Region.BRAIN,
  'P': Region.PELVIS,
  'AB': Region.ABDOMEN,
  'HN': Region.HEAD_NECK,
  'TH': Region.THORAX,
}


def _synthrad(dataset: str, suffixes: tuple[str, ...], letters: int):
  """Reads Task1/pelvis/1PA000/mr.nii.gz or Task1/AB/1ABA000/mr.mha.

  Args:
    dataset: name of the dataset.
    suffixes: suffixes of its volumes.
    letters: letters of a region in its case names.
  """

  def read(match: re.Match, path: Path):
    name, modality = match.groups()
    region = _SYNTHRAD_REGIONS.get(name[1:-4])
    if region is None or len(name[1:-4]) != letters:
      return None
    case = CaseFiles(dataset, name, region, {})
    return case, modality if modality == 'mask' else Modality(modality)

  ends = '|'.join(re.escape(s[1:]) for s in suffixes)
  return lambda root: _gather(root, f'{_SYNTHRAD}(?:{ends})$', read)


# BraTS 2015 to 2021 name contrasts as this project does, 2023 and later use
# other names. Up to 2019, and from 2023, the last number is a time point.
_BRATS = (
  r'/(?P<case>(?P<old>Bra[tT][sS]1[5-9]_\w+)_\d+'
  r'|(?P<new>BraTS(?:20_\w+|2021)_\d+|BraTS-(?:GLI|MET|MEN|SSA|PED)-\d+)'
  r'(?:-\d+)?)'
  r'[_-](?P<contrast>t1n|t1c|t1ce|t1|t2w|t2f|t2|flair|seg)\.nii(?:\.gz)?$'
)
_BRATS_CONTRASTS = {
  't1': Modality.T1,
  't1n': Modality.T1,
  't1ce': Modality.T1CE,
  't1c': Modality.T1CE,
  't2': Modality.T2,
  't2w': Modality.T2,
  'flair': Modality.FLAIR,
  't2f': Modality.FLAIR,
}


# Tumour and oedema; 4 is enhancing tumour up to 2021, a resection cavity in GLI
# of 2024 and oedema in PED.
_BRATS_LABELS = (1, 2, 3, 4)


def _brats(root: Path) -> Listing:
  """Reads BraTS-GLI-00000-001-t1n.nii.gz and the names of older releases.

  `seg`, which the training subjects have, is the lesion mask.
  """

  def read(match: re.Match, path: Path):
    case = CaseFiles(
      'brats',
      match['case'],
      Region.BRAIN,
      {},
      patient=match['old'] or match['new'],
      lesion_labels=_BRATS_LABELS,
    )
    if match['contrast'] == 'seg':
      return case, 'lesion'
    return case, _BRATS_CONTRASTS[match['contrast']]

  return _gather(root, _BRATS, read)


_STUDY = r'/(PETCT_\w+)/([^/]+)/(CTres|SUV)\.nii(?:\.gz)?$'
_CHANNEL = r'/imagesT[rs]/(fdg_(\w+?)_[^/]+)_(000[01])\.nii(?:\.gz)?$'


def _autopet(root: Path) -> Listing:
  """Reads PETCT_0123/study/{CTres,SUV}.nii.gz, or nnU-Net's numbered channels.

  The order of numbered channels differs between releases. Their values decide
  which one is the CT, and `dataset.json` must agree. Only FDG studies are read.
  """
  named = {'CTres': Modality.CT, 'SUV': Modality.PET}

  def read_study(match: re.Match, path: Path):
    patient, study, name = match.groups()
    subject = f'{patient}_{study}'
    case = CaseFiles('autopet', subject, Region.WHOLE_BODY, {}, patient=patient)
    return case, named[name]

  studies = _gather(root, _STUDY, read_study)
  cases, faults = [*studies.cases], [*studies.faults]
  channels: dict[tuple[Path, str, str], dict[str, Path]] = {}
  for match, entry in _matches(root, _CHANNEL, faults):
    subject, patient, channel = match.groups()
    key = entry.name.parent, subject, patient
    channels.setdefault(key, {})[channel] = entry.path
  for (folder, subject, patient), paths in channels.items():
    case = CaseFiles('autopet', subject, Region.WHOLE_BODY, {}, patient=patient)
    try:
      ct = _ct_channel(folder.parent / 'dataset.json', subject, paths)
    except DatasetError as error:
      faults.append(Fault(case.id, str(error)))
      continue
    pet = next(name for name in paths if name != ct)
    case.files.update({Modality.CT: paths[ct], Modality.PET: paths[pet]})
    cases.append(case)
  return Listing.of(cases, faults)


def _ct_channel(description: Path, subject: str, paths: dict[str, Path]) -> str:
  """The channel with the CT, '0000' or '0001'.

  Raises:
    DatasetError: a channel is missing, the values of both or neither look like
      a CT, or they contradict `dataset.json`.
  """
  if len(paths) < 2:
    raise DatasetError(
      f'{next(iter(paths.values()))}: the other channel of {subject} is '
      'missing.'
    )
  cts = [n for n, p in sorted(paths.items()) if _looks_like_ct(p)]
  if len(cts) != 1:
    raise DatasetError(
      f'{paths["0000"]}: {"both" if cts else "neither"} of the two channels '
      f'reach below {_CT_LOW:.0f}, as a CT does; list the case in a table '
      '(--dataset=csv).'
    )
  if description.is_file():
    names = channel_names(description)
    named = [f'{n:04}' for n, name in names.items() if 'CT' in name.upper()]
    if named and named != cts:
      raise DatasetError(
        f'{paths[cts[0]]}: looks like a CT, but {description} names channel '
        f'{named[0]}; list the case in a table (--dataset=csv).'
      )
  return cts[0]


def _looks_like_ct(path: Path) -> bool:
  """Whether the middle slice has values too low for SUV."""
  try:
    image = nib.load(path)
    middle = np.asarray(image.dataobj[..., image.shape[2] // 2])
  except Exception as error:  # nibabel does not document its errors
    raise DatasetError(f'{path}: cannot be read ({error}).') from None
  return float(middle.min()) < _CT_LOW


# MyoPS 2020: myops_training_101_C0.nii.gz; MyoPS++: Case1001_LGE.nii.gz.
_MYOPS = r'/([A-Za-z]+(?:_[a-z]+)?_?\d+)_(C0|DE|LGE|T2)\.nii(?:\.gz)?$'
_MYOPS_CONTRASTS = {
  'C0': Modality.BSSFP,
  'DE': Modality.LGE,
  'LGE': Modality.LGE,
  'T2': Modality.T2,
}


def _myops(root: Path) -> Listing:
  """Reads three contrasts of a heart, two to six slices each."""

  def read(match: re.Match, path: Path):
    case = CaseFiles('myops', match[1], Region.HEART, {})
    return case, _MYOPS_CONTRASTS[match[2]]

  return _gather(root, _MYOPS, read)


# STS_001/CT_image.nii.gz; STS_035/ct.nii.gz in tests/data.
_IBSI = r'/(STS_\d+)/(?:(CT|MR_T1|PET)_image|(ct|mr|pet))\.nii(?:\.gz)?$'
_IBSI_MODALITIES = {
  'CT': Modality.CT,
  'MR_T1': Modality.MR,
  'PET': Modality.PET,
}
# Region of each pair with CT, and the volume whose grid it uses.
_IBSI_PAIRS = {
  Modality.MR: (Region.PELVIS, Modality.MR),
  Modality.PET: (Region.WHOLE_BODY, Modality.CT),
}


def _ibsi_sts(root: Path) -> Listing:
  """Reads CT, T1 MR and FDG-PET of sarcoma patients, as two cases of a person.

  MR-CT is a case of the pelvis and PET-CT one of the whole body, since they
  have grids of their own. The masks in the set outline tumours, not bodies:
  CT_mask.nii.gz beside CT_image.nii.gz.
  """

  def read(match: re.Match, path: Path):
    patient, image, crop = match.groups()
    case = CaseFiles('ibsi_sts', patient, Region.PELVIS, {}, patient=patient)
    return case, _IBSI_MODALITIES[image] if image else Modality(crop)

  people = _gather(root, _IBSI, read)
  cases = [
    dataclasses.replace(
      person,
      subject=f'{person.subject}_{modality}',
      region=region,
      files={m: person.files[m] for m in (Modality.CT, modality)},
      lesion=_tumour(person.files[drawn_on]),
    )
    for person in people.cases
    for modality, (region, drawn_on) in _IBSI_PAIRS.items()
    if {Modality.CT, modality} <= person.files.keys()
  ]
  return Listing(cases, people.faults)


def _tumour(image: Path) -> Path | None:
  mask = image.with_name(image.name.replace('_image', '_mask'))
  return mask if mask != image and mask.is_file() else None


PUBLIC_DATASETS: dict[str, PublicDataset] = {}


def register_dataset(
  name: str,
  find: Callable[[Path], list[CaseFiles] | Listing],
  *,
  reference: tuple[Modality, ...] = (),
) -> PublicDataset:
  """Registers a layout for `prepare --dataset=NAME`.

  Args:
    name: value of the flag, and `dataset` of the cases.
    find, reference: fields of `PublicDataset`.

  Returns:
    The registered dataset.

  Raises:
    ValueError: the name is taken.
  """
  if name in PUBLIC_DATASETS:
    raise ValueError(f'Dataset {name!r} is already registered.')
  PUBLIC_DATASETS[name] = PublicDataset(find, reference)
  return PUBLIC_DATASETS[name]


register_dataset('synthrad2023', _synthrad('synthrad2023', NIFTI, 1))
register_dataset('synthrad2025', _synthrad('synthrad2025', ('.mha',), 2))
register_dataset('brats', _brats, reference=(Modality.T1,))
register_dataset('autopet', _autopet, reference=(Modality.CT,))
register_dataset('myops', _myops, reference=(Modality.LGE, Modality.BSSFP))
register_dataset('ibsi_sts', _ibsi_sts, reference=(Modality.MR, Modality.CT))
