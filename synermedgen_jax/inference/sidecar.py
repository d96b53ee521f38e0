"""The record beside a synthetic volume, a JSON file as in BIDS.

`ct.nii.gz` has `ct.json`, and `ct_low.nii.gz` and `ct_high.nii.gz` if its
interval is asked for. Keys of BIDS have its names: `Modality`, `Units`,
`Sources`, `GeneratedBy`. The file is written after the volumes, so a volume
with its record is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib

from synermedgen_jax import __version__
from synermedgen_jax.core import files
from synermedgen_jax.core.commit import commit
from synermedgen_jax.core.errors import VolumeError
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.inference.asking import Answers
from synermedgen_jax.inference.intervals import Calibration
from synermedgen_jax.inference.prediction import Findings
from synermedgen_jax.inference.reading import Reading
from synermedgen_jax.slices.input_files import volume_stem
from synermedgen_jax.slices.itk import data_files
from synermedgen_jax.slices.volumes import ITK
from synermedgen_jax.slices.windows import Window

NOTICE = 'Synthetic image for research, not for diagnosis'
# Suffixes of what may lie beside a volume.
PICTURES = ('.png', '.html')
# Keys that state what was asked for; the others are results.
_REQUEST = (
  *('Route', 'Sources', 'SourceStamps', 'SourceModalities', 'Series'),
  *('Checkpoints', 'Read'),
  *('Sampling', 'Seed', 'ValueRange', 'Intervals'),
)


def sidecar_path(output: Path) -> Path:
  """The path of the record of a volume."""
  return output.with_name(f'{volume_stem(output)}.json')


def interval_paths(output: Path) -> tuple[Path, Path]:
  """The paths of the low and high end of a volume's interval."""
  stem = volume_stem(output)
  suffix = output.name[len(stem) :]
  low, high = (output.with_name(f'{stem}_{e}{suffix}') for e in ('low', 'high'))
  return low, high


def interval_record(
  calibration: Calibration, route: Route, output: Path
) -> dict[str, Any]:
  """What a record states about the interval of a volume."""
  interval = calibration.routes[route.name]
  return {
    'Files': [path.name for path in interval_paths(output)],
    'Level': calibration.level,
    'Draws': calibration.draws,
    'Factor': interval.factor,
    'Coverage': interval.coverage,
    'CoverageSubjects': len(interval.by_subject),
    'CoverageSplit': calibration.split,
    'CoverageStore': calibration.store,
    'Description': f'Low and high end: the mean of {calibration.draws} draws '
    f'minus and plus {interval.factor:.4g} of their deviations. Coverage is '
    'the share of the voxels in the body of the measured subjects, at the '
    'resolution of the store, that were inside.',
  }


def header_text(route: Route) -> str:
  """The description in the NIfTI header, at most 79 characters."""
  return f'Synthetic {route.target.label}, not for diagnosis; SynerMedGen'[:79]


def request_record(
  route: Route,
  sources: Mapping[Modality, Path],
  series: Mapping[Modality, str],
  checkpoints: Sequence[Mapping[str, Any]],
  sampling: Sequence[Mapping[str, Any] | None],
  *,
  seed: int,
  window: Window,
  intervals: Mapping[str, Any] | None = None,
  read: bool = True,
  names: Mapping[Modality, Path] | None = None,
) -> dict[str, Any]:
  """The part of a record that states what is asked for.

  Args:
    route: sources and target.
    sources: source -> its file.
    series: source -> DICOM series.
    checkpoints: workdir and step of each run.
    sampling: settings of each run; None = as it was trained.
    seed: random seed of the noise.
    window: values of black and white.
    intervals: see `interval_record`; None = none is asked for.
    read: whether sources and result are read.
    names: source -> its file as the record names it; None = its path.
  """
  return {
    'Synthetic': True,
    'Description': f'{NOTICE}: {route.target.label} synthesised from '
    f'{", ".join(m.label for m in route.sources)}.',
    'Modality': route.target.label,
    'Units': route.target.unit,
    'ValueRange': [window.low, window.high],
    'BodyPart': route.region.label,
    'Route': route.name,
    'Sources': [str(path) for path in (names or sources).values()],
    'SourceStamps': [stamp(path) for path in sources.values()],
    'SourceModalities': [m.label for m in sources],
    'Series': [series.get(m, '') for m in sources],
    'GeneratedBy': [
      {
        'Name': 'synermedgen-jax',
        'Version': __version__,
        'Commit': commit(),
      }
    ],
    'Checkpoints': list(checkpoints),
    'Sampling': list(sampling),
    'Seed': seed,
    'Intervals': intervals,
    'Read': read,
  }


def stamp(path: Path) -> list[int]:
  """Size in bytes and time of change in ns of a file, or of all in a folder.

  Another volume under the same name has another stamp. The files that a
  MetaImage or NRRD header names count too.
  """
  entries = [path] if path.is_file() else path.rglob('*')
  found = {file for file in entries if file.is_file()}
  headers = [file for file in found if file.name.lower().endswith(ITK)]
  found.update(*map(data_files, headers))
  states = [file.stat() for file in found if file.is_file()]
  return [
    sum(state.st_size for state in states),
    max((state.st_mtime_ns for state in states), default=0),
  ]


def check_replaceable(output: Path) -> None:
  """Refuses to replace what `predict` has not written.

  Raises:
    VolumeError: the output exists and its header does not begin with
      'Synthetic', or a JSON file of its name is no record of `predict`.
  """
  if output.is_file():
    try:
      header = nib.load(output).header
      text = header['descrip'].item().decode('latin-1')
    except (OSError, nib.filebasedimages.ImageFileError, KeyError):
      text = ''
    if not text.startswith('Synthetic'):
      raise VolumeError(
        f'{output}: exists and is not a synthetic volume of `predict`; write '
        'somewhere else, or remove it.'
      )
  path = sidecar_path(output)
  if path.is_file() and not _record(path).get('Synthetic'):
    raise VolumeError(
      f'{path}: exists and is no record of `predict`; write somewhere else, or '
      'remove it.'
    )


def _record(path: Path) -> Mapping[str, Any]:
  """The content of a record; empty if it is none."""
  try:
    content = json.loads(path.read_bytes())
  except (OSError, ValueError):
    return {}
  return content if isinstance(content, dict) else {}


def findings_record(findings: Findings) -> dict[str, Any]:
  """The part of a record that states what the checks showed."""
  offset = findings.offset
  return {
    'Reading': {
      'Sources': {m.label: _votes(r) for m, r in findings.sources.items()},
      'Output': _votes(findings.output),
    },
    'Match': {
      'OffsetFromSource': None
      if offset is None
      else {'Text': str(offset), 'Significant': offset.distance > 0},
      **{task.upper(): _score(a) for task, a in findings.answers.items()},
    },
    'Warnings': list(findings.warnings),
  }


def _votes(reading: Reading | None) -> dict[str, Any] | None:
  if reading is None:
    return None
  votes = {m.label: count for m, count in reading.votes.items()}
  return {'Slices': reading.slices, 'Votes': votes}


def _score(answers: Answers) -> dict[str, Any]:
  return {
    'Right': answers.right,
    'Asked': answers.asked,
    'Chance': answers.chance,
  }


def write_sidecar(
  output: Path, request: Mapping[str, Any], findings: Findings
) -> Path:
  """Writes the record of a volume, which has been written before."""
  path = sidecar_path(output)
  files.write_json(path, {**request, **findings_record(findings)})
  return path


def remove_record(output: Path) -> None:
  """Removes the record of an earlier volume, and its interval.

  They would describe the volume that is written next, as would its picture and
  page. Files beside a volume that its record does not name are kept.
  """
  path = sidecar_path(output)
  record = _record(path)
  named = [
    *((record.get('Intervals') or {}).get('Files', ())),
    *record.get('Files', ()),
  ]
  beside = [output.with_name(f'{volume_stem(output)}{s}') for s in PICTURES]
  for file in (*interval_paths(output), *beside):
    if file.name in named:
      file.unlink(missing_ok=True)
  path.unlink(missing_ok=True)


def add_file(output: Path, file: Path) -> None:
  """Names a picture or a page in the record of a volume."""
  path = sidecar_path(output)
  record = dict(_record(path))
  record['Files'] = sorted({*record.get('Files', ()), file.name})
  files.write_json(path, record)


def is_finished(output: Path, request: Mapping[str, Any]) -> bool:
  """Whether a volume was predicted as requested; False if it is missing.

  A volume without a record, or with that of another request, is not.
  """
  path = sidecar_path(output)
  volumes = [output, *(interval_paths(output) if request['Intervals'] else ())]
  if not all(file.is_file() for file in (*volumes, path)):
    return False
  try:
    record = json.loads(path.read_bytes())
    asked = json.loads(json.dumps(request))  # tuples become lists
    return all(record[key] == asked[key] for key in _REQUEST)
  except (ValueError, KeyError, TypeError):
    return False
