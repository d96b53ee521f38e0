"""Reports properties and likely problems of a subject's files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import nibabel as nib
import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.core.size import size_text
from synermedgen_jax.slices.alignment import Offset, estimate_offset
from synermedgen_jax.slices.datasets import CaseFiles, Fault
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.grids import (
  Grid,
  field_of_view,
  resample,
  slice_grid,
  to_slices,
)
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.nifti import forms_differ_mm
from synermedgen_jax.slices.splits import shared_volumes
from synermedgen_jax.slices.units import suspicious_units
from synermedgen_jax.slices.volumes import (
  NIFTI,
  Volume,
  VolumeError,
  read_volume,
  same_grid,
)

_PICTURE = 128  # pixels of the longer side
_FORMS_MM = 1.0
_PADDING = 0.1  # share of a canvas that is worth a line
_STRIDE = 16  # pixels per latent token of BAGEL


@dataclasses.dataclass(frozen=True)
class VolumeFacts:
  """Properties of one file.

  Attributes:
    name: file name.
    shape: voxels along each axis, as stored.
    spacing: voxel size along each axis in mm.
    axes: directions of the axes, e.g. 'LPS'.
    low, high: smallest and largest value.
    percentiles: 1st and 99th percentile of the values.
    same_grid: whether the voxels coincide with those of the reference.
    offset: shift from the reference; None for the reference itself and where
      it cannot be estimated.
    reading: the modality that a model reads, as text; '' = not read.
  """

  name: str
  shape: tuple[int, ...]
  spacing: tuple[float, ...]
  axes: str
  low: float
  high: float
  percentiles: tuple[float, float]
  same_grid: bool
  offset: Offset | None
  reading: str = ''


@dataclasses.dataclass(frozen=True)
class CaseFacts:
  """Properties and problems of one subject.

  Attributes:
    id: id of the case.
    volumes: readable volumes by modality.
    problems: one line per problem, each naming its file.
    usable: number of usable slices.
    pictures: middle slice of each modality on one grid, in [-1, 1].
    checksums: checksum of the voxels of each modality, if all are usable.
    notes: one line per doubtful finding that `prepare` accepts.
    extent: height and width in mm of the slices of the reference; None without
      a readable volume.
  """

  id: str
  volumes: Mapping[Modality, VolumeFacts]
  problems: tuple[str, ...]
  usable: int
  pictures: Mapping[Modality, Float[np.ndarray, 'h w']]
  checksums: Mapping[Modality, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  extent: tuple[float, float] | None = None

  @property
  def distance(self) -> float:
    """Largest offset in mm."""
    offsets = [v.offset.distance for v in self.volumes.values() if v.offset]
    return max(offsets, default=0.0)


def inspect(files: CaseFiles, settings: Settings) -> CaseFacts:
  """Checks one subject as `prepare` would read it; writes nothing."""
  volumes, problems = {}, []
  for modality, path in sorted(files.files.items()):
    try:
      series = files.series.get(modality, '')
      volumes[modality] = read_volume(path, series=series)
    except VolumeError as error:
      problems.append(str(error))
  preferred = (*(settings.reference or files.reference), *volumes)
  reference = next((m for m in preferred if m in volumes), None)
  facts = {}
  for modality, volume in volumes.items():
    name = files.files[modality].name
    offset = None
    if modality != reference:
      offset = _offset(volumes, reference, modality, settings.slices)
    if settings.check_units:
      signs = suspicious_units(modality, volume)
      problems += [f'{name}: {sign}' for sign in signs]
    facts[modality] = _facts(name, volume, volumes[reference], offset)
    if (
      offset and settings.most_offset and offset.distance > settings.most_offset
    ):
      problems.append(
        f'{name}: appears to be '
        f'{offset.relative_to(files.files[reference].name)}.'
      )
  usable, checksums = 0, {}
  spec = _small(settings.slices)
  pictures = _middle_slices(volumes, reference, spec)
  if len(volumes) == len(files.files):
    try:
      ingested = ingest(
        files,
        dataclasses.replace(
          settings,
          slices=spec,
          most_offset=0.0,
          check_units=False,
        ),
        volumes,
      )
      checksums = ingested.case.checksums
      usable = len(ingested.case.usable)
      middle = ingested.case.usable[usable // 2]
      pictures = {m: x[middle] for m, x in ingested.volumes.items()}
    except VolumeError as error:
      problems.append(str(error))
  notes = (
    *_differing_forms(files),
    *_pet_against_mr(files, volumes, reference, settings),
  )
  extent = None
  if reference is not None:
    extent = field_of_view(volumes[reference], settings.slices.plane)
  return CaseFacts(
    files.id, facts, tuple(problems), usable, pictures, checksums, notes, extent
  )


def canvas_advice(cases: Sequence[CaseFacts], spec: SliceSpec) -> str:
  """A line if a canvas of another shape would spare a tenth of its pixels.

  Args:
    cases: results of `inspect`.
    spec: the settings of the slices.

  Returns:
    The line; '' if the canvas fits, or if it shows the body alone.
  """
  extents = [case.extent for case in cases if case.extent]
  if not extents or spec.frame == 'body':
    return ''
  height, width = np.median(extents, axis=0)
  rows, columns = spec.canvas
  pixel = max(height / rows, width / columns)
  padding = 1 - height * width / (pixel**2 * rows * columns)
  if padding < _PADDING:
    return ''
  longer = max(rows, columns)
  scale = longer / max(height, width)
  sides = (
    min(math.ceil(scale * side / _STRIDE) * _STRIDE, longer)
    for side in (height, width)
  )
  return (
    f'{spec.plane} slices are {height:.0f} x {width:.0f} mm (height x width, '
    f'median): {padding:.0%} of a canvas of {size_text(spec.canvas)} is '
    f'padding; --canvas={size_text(tuple(sides))} fits them.'
  )


def _small(spec: SliceSpec) -> SliceSpec:
  """The settings with a canvas of the same shape, at most `_PICTURE` pixels."""
  scale = _PICTURE / max(spec.canvas)
  height, width = (max(round(scale * side), 1) for side in spec.canvas)
  return dataclasses.replace(spec, canvas=(height, width))


def _middle_slices(
  volumes: Mapping[Modality, Volume],
  reference: Modality | None,
  spec: SliceSpec,
) -> dict[Modality, Float[np.ndarray, 'h w']]:
  """The middle slice of the reference in every volume, in [-1, 1]."""
  if reference is None:
    return {}
  full = slice_grid(volumes[reference], spec.canvas, spec.plane)
  to_middle = np.eye(4)
  to_middle[2, 3] = full.shape[2] // 2
  grid = Grid((*full.shape[:2], 1), full.affine @ to_middle)
  pictures = {}
  for modality, volume in volumes.items():
    try:
      window = spec.window(modality, volume.data)
    except UserError:
      continue  # `ingest` reports the problem
    sampled = resample(window.clip(volume), grid, fill=window.low)
    pictures[modality] = window.normalise(to_slices(sampled))[0]
  return pictures


def _differing_forms(files: CaseFiles) -> Iterator[str]:
  """A line for every NIfTI file with two different positions."""
  for path in files.files.values():
    if not (path.is_file() and path.name.lower().endswith(NIFTI)):
      continue
    try:
      apart = forms_differ_mm(path)
    except VolumeError:
      continue  # `read_volume` reports the problem
    if apart > _FORMS_MM:
      yield (
        f'{path.name}: sform and qform differ by {apart:.1f} mm; the sform is '
        'used.'
      )


def _pet_against_mr(
  files: CaseFiles,
  volumes: Mapping[Modality, Volume],
  reference: Modality | None,
  settings: Settings,
) -> Iterator[str]:
  """A line if PET and MR are off, although each may pass on its own."""
  others = [m for m in volumes if m.family == 'mr' and m != reference]
  if Modality.PET not in volumes or reference is Modality.PET:
    return
  for modality in others if settings.most_offset else ():
    offset = _offset(volumes, modality, Modality.PET, settings.slices)
    if offset and offset.distance > settings.most_offset:
      yield (
        f'{files.files[Modality.PET].name}: appears to be '
        f'{offset.relative_to(files.files[modality].name)}.'
      )


def with_shared_volumes(
  cases: Sequence[CaseFacts], people: Mapping[str, str]
) -> list[CaseFacts]:
  """Adds a problem to every case that has a volume of another person's case.

  Args:
    cases: results of `inspect`.
    people: id of the case -> person that it shows.
  """
  shared = shared_volumes({c.id: c.checksums for c in cases}, people)
  return [
    dataclasses.replace(c, problems=(*c.problems, shared[c.id]))
    if c.id in shared
    else c
    for c in cases
  ]


def layout_faults(faults: Sequence[Fault]) -> list[CaseFacts]:
  """Cases without volumes that report the faults of a layout."""
  problems: dict[str, list[str]] = {}
  for fault in faults:
    problems.setdefault(fault.case or 'layout', []).append(fault.problem)
  return [
    CaseFacts(name, {}, tuple(lines), 0, {})
    for name, lines in sorted(problems.items())
  ]


def _offset(
  volumes, reference: Modality, modality: Modality, spec: SliceSpec
) -> Offset | None:
  pair = volumes[reference], volumes[modality]
  try:
    windows = (
      spec.window(reference, pair[0].data),
      spec.window(modality, pair[1].data),
    )
  except ValueError:
    return None  # `ingest` reports the problem
  return estimate_offset(*pair, windows)


def _facts(
  name: str, volume: Volume, reference: Volume, offset: Offset | None
) -> VolumeFacts:
  low, high = np.percentile(volume.data, (1, 99))
  return VolumeFacts(
    name=name,
    shape=volume.data.shape,
    spacing=tuple(float(s) for s in volume.spacing),
    axes=''.join(nib.aff2axcodes(volume.affine)),
    low=float(volume.data.min()),
    high=float(volume.data.max()),
    percentiles=(float(low), float(high)),
    same_grid=same_grid(volume, reference),
    offset=offset,
  )
