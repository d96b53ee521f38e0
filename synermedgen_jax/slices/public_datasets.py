"""Readers of public datasets: subject and modality of each downloaded file.

Each reader takes the unpacked folder and returns the cases that can serve a
route. docs/data.md lists the files that a reader ignores (such as validation
cases, which have no CT), with sources and licences.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from synermedgen_jax.core.modalities import Modality, Region, routes_between
from synermedgen_jax.slices.datasets import CaseFiles, DatasetError
from synermedgen_jax.slices.volumes import NIFTI, SUFFIXES

_CT_LOW = -300.0  # HU; every CT has lower values, and no SUV is negative


@dataclasses.dataclass(frozen=True)
class PublicDataset:
  """The reader of one public dataset.

  Attributes:
    find: folder -> cases.
    reference: modalities in order of preference; the first that a case has
      defines its grid. Empty = published volumes of a case share one grid.
  """

  find: Callable[[Path], list[CaseFiles]]
  reference: tuple[Modality, ...] = ()


def find_cases(name: str, root: Path) -> list[CaseFiles]:
  """The cases of the public dataset `name` under `root`, sorted.

  Raises:
    DatasetError: the folder does not have the dataset's layout, two files of a
      case have the same modality, or a link leads out of the folder.
  """
  if not root.is_dir():
    raise DatasetError(f'{root}: no such folder.')
  dataset = PUBLIC_DATASETS[name]
  cases = [
    dataclasses.replace(case, reference=dataset.reference)
    for case in dataset.find(root)
    if routes_between(case.region, frozenset(case.files))
  ]
  if not cases:
    raise DatasetError(
      f'{root}: holds no pair of {name}; docs/data.md describes its layout.'
    )
  seen: dict[str, CaseFiles] = {}
  for case in cases:
    if case.id in seen:
      raise DatasetError(
        f'{_folder(case)}: case {case.id} is in {_folder(seen[case.id])} too; '
        'remove one of them.'
      )
    seen[case.id] = case
    for path in filter(None, (*case.files.values(), case.mask)):
      if not path.resolve().is_relative_to(root.resolve()):
        raise DatasetError(
          f'{path}: is a link that leads out of {root}; copy the file there.'
        )
  return sorted(cases, key=lambda case: case.id)


def _folder(case: CaseFiles) -> Path:
  return next(iter(case.files.values())).parent


def _volumes(root: Path) -> Iterator[Path]:
  """Sorted paths of all volumes below a folder, except hidden ones."""
  for path in sorted(root.rglob('*')):
    hidden = any(p.startswith('.') for p in path.relative_to(root).parts)
    if not hidden and path.name.lower().endswith(SUFFIXES):
      yield path


def _gather(
  root: Path,
  pattern: str,
  read: Callable[[re.Match, Path], tuple[CaseFiles, Modality | None] | None],
) -> list[CaseFiles]:
  """Collects cases from the names of files, relative to the root.

  Args:
    root: the unpacked folder.
    pattern: regular expression for the end of a path.
    read: turns a match and its path into a case (without files) and a
      modality, which is None for the body mask; returns None to ignore the
      file.
  """
  cases: dict[tuple[str, Path], CaseFiles] = {}
  for path in _volumes(root):
    match = re.search(pattern, f'/{path.relative_to(root).as_posix()}')
    parsed = match and read(match, path)
    if not parsed:
      continue
    new_case, modality = parsed
    key = new_case.id, path.parent
    case = cases.setdefault(key, new_case)
    duplicate = case.files.get(modality) if modality else case.mask
    if duplicate:
      raise DatasetError(
        f'{path}: {duplicate.name} is the same volume; remove one of them.'
      )
    if modality:
      case.files[modality] = path
    else:
      cases[key] = dataclasses.replace(case, mask=path)
  return list(cases.values())


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
    return case, None if modality == 'mask' else Modality(modality)

  ends = '|'.join(re.escape(s[1:]) for s in suffixes)
  return lambda root: _gather(root, f'{_SYNTHRAD}(?:{ends})$', read)


# BraTS 2020 and 2021 name contrasts as this project does, 2023 and later use
# other names.
_BRATS = (
  r'/((BraTS(?:20_\w+|2021)_\d+|BraTS-(?:GLI|MET|MEN|SSA|PED)-\d+)(-\d+)?)'
  r'[_-](t1n|t1c|t1ce|t1|t2w|t2f|t2|flair)\.nii(?:\.gz)?$'
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


def _brats(root: Path) -> list[CaseFiles]:
  """Reads BraTS-GLI-00000-001-t1n.nii.gz and the names of older releases."""

  def read(match: re.Match, path: Path):
    case, patient, _, contrast = match.groups()
    files = CaseFiles('brats', case, Region.BRAIN, {}, patient=patient)
    return files, _BRATS_CONTRASTS[contrast]

  return _gather(root, _BRATS, read)


_STUDY = r'/(PETCT_\w+)/([^/]+)/(CTres|SUV)\.nii(?:\.gz)?$'
_CHANNEL = r'/imagesT[rs]/(fdg_(\w+?)_[^/]+)_(000[01])\.nii(?:\.gz)?$'


def _autopet(root: Path) -> list[CaseFiles]:
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
  channels: dict[tuple[Path, str, str], dict[str, Path]] = {}
  for path in _volumes(root):
    match = re.search(_CHANNEL, f'/{path.relative_to(root).as_posix()}')
    if match:
      subject, patient, channel = match.groups()
      key = path.parent, subject, patient
      channels.setdefault(key, {})[channel] = path
  for (folder, subject, patient), paths in channels.items():
    if len(paths) < 2:
      raise DatasetError(
        f'{next(iter(paths.values()))}: the other channel of {subject} is '
        'missing.'
      )
    ct = _ct_channel(folder.parent / 'dataset.json', paths)
    pet = next(name for name in paths if name != ct)
    files = {Modality.CT: paths[ct], Modality.PET: paths[pet]}
    studies.append(
      CaseFiles('autopet', subject, Region.WHOLE_BODY, files, patient=patient)
    )
  return studies


def _ct_channel(description: Path, paths: dict[str, Path]) -> str:
  """The channel with the CT, '0000' or '0001'.

  Raises:
    DatasetError: the values of both or neither channel look like a CT, or they
      contradict `dataset.json`.
  """
  cts = [n for n, p in sorted(paths.items()) if _looks_like_ct(p)]
  if len(cts) != 1:
    raise DatasetError(
      f'{paths["0000"]}: {"both" if cts else "neither"} of the two channels '
      f'reach below {_CT_LOW:.0f}, as a CT does; list the case in a table '
      '(--dataset=csv).'
    )
  if description.is_file():
    try:
      content = json.loads(description.read_text('utf-8'))
    except ValueError as error:
      raise DatasetError(f'{description}: is not JSON ({error}).') from None
    names = content.get('channel_names') or content.get('modality') or {}
    named = [f'{int(k):04}' for k, v in names.items() if 'CT' in v.upper()]
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


def _myops(root: Path) -> list[CaseFiles]:
  """Reads three contrasts of a heart, two to six slices each."""

  def read(match: re.Match, path: Path):
    case = CaseFiles('myops', match[1], Region.HEART, {})
    return case, _MYOPS_CONTRASTS[match[2]]

  return _gather(root, _MYOPS, read)


PUBLIC_DATASETS: dict[str, PublicDataset] = {}


def register_dataset(
  name: str,
  find: Callable[[Path], list[CaseFiles]],
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
