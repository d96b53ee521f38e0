"""Which volumes to predict: one, those of a folder, or those of a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region, Route, find_route
from synermedgen_jax.slices import input_files, tables
from synermedgen_jax.slices.datasets import CaseFiles, is_label
from synermedgen_jax.slices.dicom import holds_dicom
from synermedgen_jax.slices.layouts import LAYOUTS
from synermedgen_jax.slices.volumes import NIFTI, has_volume_suffix

_TABLES = ('.csv', '.tsv', '.txt')
_LISTED = 5  # subjects that a message names


class InputError(UserError):
  """Inputs from which nothing can be predicted; one line that names them."""


@dataclasses.dataclass(frozen=True)
class Request:
  """One volume to predict.

  Attributes:
    name: name of the subject, or of the file.
    route: sources and target.
    files: source -> its file, or folder or zip of DICOM files; the first gives
      the grid of the output.
    output: NIfTI file to write.
    series: source -> DICOM series in its folder or zip.
  """

  name: str
  route: Route
  files: Mapping[Modality, Path]
  output: Path
  series: Mapping[Modality, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Requests:
  """The volumes to predict, and those that cannot be.

  Attributes:
    requests: in the order of names.
    skipped: one line for each subject or file that is left out, such as a mask.
    faults: one line for each that cannot be read, such as a bad row.
    single: one volume was named, rather than a folder or a table.
  """

  requests: Sequence[Request]
  skipped: Sequence[str] = ()
  faults: Sequence[str] = ()
  single: bool = False

  @property
  def page(self) -> Path:
    """The path of a page about all of them."""
    output = self.requests[0].output
    name = input_files.volume_stem(output) if self.single else 'index'
    return output.with_name(f'{name}.html')


def holds_several(path: Path) -> bool:
  """Whether a path names a table or a folder of volumes, not one volume."""
  if path.suffix.lower() in _TABLES:
    return True
  return path.is_dir() and not has_volume_suffix(path) and not holds_dicom(path)


def one_volume(
  paths: Sequence[Path],
  sources: Sequence[Modality],
  series: Sequence[str],
  target: Modality,
  region: Region,
  output: Path,
) -> Requests:
  """The request of one volume from a file of each source.

  Raises:
    InputError: the output is not a NIfTI file.
    UserError: no route leads from the sources to the target.
  """
  if not output.name.lower().endswith(NIFTI):
    raise InputError(
      f'--output {output}: expected a name ending in {" or ".join(NIFTI)}.'
    )
  files = dict(zip(sources, paths, strict=True))
  chosen = dict(zip(sources, series, strict=False))
  name = input_files.volume_stem(output)
  route = find_route(region, sources, target)
  return Requests([Request(name, route, files, output, chosen)], single=True)


def several_volumes(
  path: Path,
  layout: str,
  sources: Sequence[Modality],
  target: Modality,
  region: Region | None,
  folder: Path,
) -> Requests:
  """The requests of the subjects of a folder or table.

  Args:
    path: a table, or a folder.
    layout: a key of `LAYOUTS`, which reads the folder; '' = every volume
      directly in the folder is an input of the only source.
    sources: sources of every request.
    target: modality to synthesise.
    region: body region; None = the table names it.
    folder: folder of the outputs, FOLDER/<name>_<target>.nii.gz.

  Raises:
    InputError: the output is named like a file, a region or layout is missing,
      or no subject has the sources.
    DatasetError: the folder or table cannot be read.
    UserError: no route leads from the sources to the target.
  """
  if folder.name.lower().endswith(NIFTI):
    raise InputError(
      f'--output {folder}: {path} holds several volumes; name a folder.'
    )
  if folder.resolve() == path.resolve():
    raise InputError(
      f'--output {folder}: is the input folder, so outputs would become '
      'inputs; name another one.'
    )
  table = path.suffix.lower() in _TABLES
  if layout and table:
    raise InputError(f'--dataset={layout}: {path} is a table; leave it out.')
  if region is None and not table:
    raise InputError(f'--region is required for the folder {path}.')
  if table:
    listing = tables.list_table(path, dataset='table', region=region)
  elif layout:
    listing = LAYOUTS[layout](path, dataset='folder', region=region)
  else:
    return _plain(path, sources, target, region, folder)
  faults = [fault.problem for fault in listing.faults]
  skipped: list[str] = []
  requests = []
  for case in listing.cases:
    missing = [m for m in sources if m not in case.files]
    if Path(case.subject).name != case.subject:
      faults.append(
        f'{case.subject}: is no name of a file; rename the subject.'
      )
    elif missing:
      skipped.append(f'{case.subject}: has no {", ".join(missing)}.')
    else:
      requests.append(_of_case(case, sources, target, folder))
  return _checked(path, requests, skipped, faults)


def _of_case(
  case: CaseFiles,
  sources: Sequence[Modality],
  target: Modality,
  folder: Path,
) -> Request:
  output = folder / f'{case.subject}_{target}.nii.gz'
  files = {m: case.files[m] for m in sources}
  route = find_route(case.region, sources, target)
  return Request(case.subject, route, files, output, case.series)


def _plain(
  path: Path,
  sources: Sequence[Modality],
  target: Modality,
  region: Region,
  folder: Path,
) -> Requests:
  """The requests of the volumes that lie directly in a folder."""
  if len(sources) > 1:
    raise InputError(
      f'{path}: with several sources, --dataset names the layout of the '
      f'folder: {", ".join(LAYOUTS)}.'
    )
  route = find_route(region, sources, target)
  skipped: list[str] = []
  requests = []
  entries = list(input_files.volume_entries(path, skipped, deep=False))
  series = [
    input_files.Entry(p, p)
    for p in input_files.children(path)
    if p.is_dir() and not has_volume_suffix(p) and holds_dicom(p)
  ]
  for entry in (*entries, *series):
    if is_label(entry.stem):
      skipped.append(f'{entry.path}: is a mask or a label by its name.')
      continue
    output = folder / f'{entry.stem}_{target}.nii.gz'
    files = {sources[0]: entry.path}
    requests.append(Request(entry.stem, route, files, output))
  return _checked(path, requests, skipped)


def _checked(
  path: Path,
  requests: Sequence[Request],
  skipped: Sequence[str],
  faults: Sequence[str] = (),
) -> Requests:
  """Refuses no request, and two with one output."""
  if not requests:
    lines = ' '.join([*faults, *skipped][:_LISTED])
    if not lines and path.is_dir():
      lines = (
        f'{input_files.describe(path)} If each subject has a folder, name the '
        f'layout with --dataset: {", ".join(LAYOUTS)}.'
      )
    raise InputError(f'{path}: has no volume to predict from. {lines}'.strip())
  by_output: dict[Path, Request] = {}
  for request in requests:
    other = by_output.setdefault(request.output, request)
    if other is not request:
      files = [next(iter(r.files.values())) for r in (other, request)]
      raise InputError(
        f'{files[0]} and {files[1]} would both become {request.output}; rename '
        'one.'
      )
  return Requests(sorted(requests, key=lambda r: r.name), skipped, faults)
