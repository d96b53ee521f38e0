"""Public datasets as they are downloaded: subject and modality of each file.

Each reader takes the folder that was unpacked and returns the cases that can
serve a route. What a reader passes over (cases of a challenge's validation
set, which have no CT) is in docs/data.md, with sources and licences.
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

_CT_LOOKS_LIKE = -300.0  # HU; no SUV is negative


@dataclasses.dataclass(frozen=True)
class PublicDataset:
  """How one public dataset becomes cases.

  Attributes:
    find: folder -> cases.
    reference: modalities by preference that give a case its grid; empty =
      the volumes of a case share one as they are published.
  """

  find: Callable[[Path], list[CaseFiles]]
  reference: tuple[Modality, ...] = ()


def find_cases(name: str, root: Path) -> list[CaseFiles]:
  """The cases of the public dataset `name` under `root`, sorted.

  Raises:
    DatasetError: the folder is not laid out as that dataset is, two files
      show the same, or a link leads out of the folder.
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
      f'{root}: holds no pair of {name}; docs/data.md says what is expected.'
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
  """Every volume below a folder, hidden ones left out, sorted."""
  for path in sorted(root.rglob('*')):
    hidden = any(p.startswith('.') for p in path.relative_to(root).parts)
    if not hidden and path.name.lower().endswith(SUFFIXES):
      yield path


def _gather(
  root: Path,
  pattern: str,
  read: Callable[[re.Match, Path], tuple[CaseFiles, Modality | None] | None],
) -> list[CaseFiles]:
  """Cases from the names of files, relative to the root.

  Args:
    root: the unpacked folder.
    pattern: regular expression for the end of a path.
    read: its match to the case (without files) and the modality, None for
      the body's mask; None alone passes the file over.
  """
  cases: dict[tuple[str, Path], CaseFiles] = {}
  for path in _volumes(root):
    match = re.search(pattern, f'/{path.relative_to(root).as_posix()}')
    found = match and read(match, path)
    if not found:
      continue
    fresh, modality = found
    key = fresh.id, path.parent
    case = cases.setdefault(key, fresh)
    twin = case.files.get(modality) if modality else case.mask
    if twin:
      raise DatasetError(f'{path}: {twin.name} shows it too.')
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
  """Task1/pelvis/1PA000/mr.nii.gz, or Task1/AB/1ABA000/mr.mha."""

  def read(match: re.Match, path: Path):
    name, modality = match.groups()
    region = _SYNTHRAD_REGIONS.get(name[1:-4])
    if region is None or len(name[1:-4]) != letters:
      return None
    shown = None if modality == 'mask' else Modality(modality)
    return CaseFiles(dataset, name, region, {}), shown

  ends = '|'.join(re.escape(s[1:]) for s in suffixes)
  return lambda root: _gather(root, f'{_SYNTHRAD}(?:{ends})$', read)


# BraTS: 2020 and 2021 name contrasts as we do, 2023 and later otherwise.
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
  """BraTS-GLI-00000-001/BraTS-GLI-00000-001-t1n.nii.gz and older names."""

  def read(match: re.Match, path: Path):
    case, patient, _, contrast = match.groups()
    files = CaseFiles('brats', case, Region.BRAIN, {}, patient=patient)
    return files, _BRATS_CONTRASTS[contrast]

  return _gather(root, _BRATS, read)


_STUDY = r'/(PETCT_\w+)/([^/]+)/(CTres|SUV)\.nii(?:\.gz)?$'
_CHANNEL = r'/imagesT[rs]/(fdg_(\w+?)_[^/]+)_(000[01])\.nii(?:\.gz)?$'


def _autopet(root: Path) -> list[CaseFiles]:
  """PETCT_0123/study/{CTres,SUV}.nii.gz, or nnU-Net's numbered channels.

  Of the latter, `dataset.json` says which number is the CT, or else the
  values do: the order differs between releases. Only FDG is taken.
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
        f'{next(iter(paths.values()))}: the other channel of {subject} is not '
        'there.'
      )
    ct = _ct_channel(folder.parent / 'dataset.json', paths)
    pet = next(name for name in paths if name != ct)
    files = {Modality.CT: paths[ct], Modality.PET: paths[pet]}
    studies.append(
      CaseFiles('autopet', subject, Region.WHOLE_BODY, files, patient=patient)
    )
  return studies


def _ct_channel(description: Path, paths: dict[str, Path]) -> str:
  """'0000' or '0001', whichever holds the CT.

  Raises:
    DatasetError: neither or both look like a CT, or the values contradict
      `dataset.json`.
  """
  looks = [n for n, p in sorted(paths.items()) if _looks_like_ct(p)]
  if len(looks) != 1:
    raise DatasetError(
      f'{paths["0000"]}: {"both" if looks else "neither"} of the two channels '
      f'reach below {_CT_LOOKS_LIKE:.0f}, as a CT does; list the case in a '
      'table (--dataset=csv).'
    )
  if description.is_file():
    try:
      told = json.loads(description.read_text())
    except ValueError as error:
      raise DatasetError(f'{description}: is not JSON ({error}).') from None
    names = told.get('channel_names') or told.get('modality') or {}
    said = [f'{int(k):04}' for k, v in names.items() if 'CT' in v.upper()]
    if said and said != looks:
      raise DatasetError(
        f'{paths[looks[0]]}: looks like a CT, but {description} says that '
        f'channel {said[0]} is; list the case in a table (--dataset=csv).'
      )
  return looks[0]


def _looks_like_ct(path: Path) -> bool:
  """Whether the middle slice has values that no SUV has."""
  try:
    image = nib.load(path)
    middle = np.asarray(image.dataobj[..., image.shape[2] // 2])
  except Exception as error:  # what broken files raise is not documented
    raise DatasetError(f'{path}: cannot be read ({error}).') from None
  return float(middle.min()) < _CT_LOOKS_LIKE


# MyoPS 2020: myops_training_101_C0.nii.gz; MyoPS++: Case1001_LGE.nii.gz.
_MYOPS = r'/([A-Za-z]+(?:_[a-z]+)?_?\d+)_(C0|DE|LGE|T2)\.nii(?:\.gz)?$'
_MYOPS_CONTRASTS = {
  'C0': Modality.BSSFP,
  'DE': Modality.LGE,
  'LGE': Modality.LGE,
  'T2': Modality.T2,
}


def _myops(root: Path) -> list[CaseFiles]:
  """Three contrasts of a heart, two to six slices each."""

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
  """Adds a layout, for `prepare --dataset=NAME`.

  Args:
    name: on the flag; the `dataset` of its cases.
    find, reference: as `PublicDataset` has them.

  Raises:
    ValueError: the name is taken.
  """
  if name in PUBLIC_DATASETS:
    raise ValueError(f'Dataset {name!r} is registered already.')
  PUBLIC_DATASETS[name] = PublicDataset(find, reference)
  return PUBLIC_DATASETS[name]


register_dataset('synthrad2023', _synthrad('synthrad2023', NIFTI, 1))
register_dataset('synthrad2025', _synthrad('synthrad2025', ('.mha',), 2))
register_dataset('brats', _brats, reference=(Modality.T1,))
register_dataset('autopet', _autopet, reference=(Modality.CT,))
register_dataset('myops', _myops, reference=(Modality.LGE, Modality.BSSFP))
