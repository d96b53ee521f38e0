"""Turns the files of one subject into a case of the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core.modalities import Modality, all_routes, routes_between
from synermedgen_jax.slices.alignment import estimate_offset
from synermedgen_jax.slices.case import Case, voxel_checksum
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import SliceSpec, body_on_grid
from synermedgen_jax.slices.grids import Grid, resample, to_slices
from synermedgen_jax.slices.lesions import measure_lesions
from synermedgen_jax.slices.masks import drawn_masks
from synermedgen_jax.slices.registration import moved, register_rigid
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import (
  Volume,
  VolumeError,
  check_same_grid,
  read_volume,
)
from synermedgen_jax.slices.windows import Window

# Modalities for the body mask, those with the sharpest contour first.
_OUTLINE = (
  Modality.CT,
  Modality.MR,
  Modality.T1,
  Modality.T2,
  Modality.T1CE,
  Modality.FLAIR,
  Modality.BSSFP,
  Modality.LGE,
  Modality.CBCT,
  Modality.PET,
)
_COVERED = 0.9  # least share of a usable slice's body in all modalities
_BODY = 0.02  # least share of body in the canvas of a usable slice


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings that apply to every case of a store.

  Attributes:
    slices: canvas, plane, frame and windows of the slices.
    reference: modalities in order of preference; the first that a subject has
      defines the grid onto which its other volumes are resampled. Empty = the
      preference of the dataset; without one, all volumes of a subject must
      share one grid.
    required: modalities that every subject must have; empty = those of at
      least one route.
    most_offset: largest estimated shift of a volume from the reference, in mm;
      0 = not checked.
    register: registration that corrects a volume before it is used, 'rigid';
      '' = none.
    check_units: refuse volumes whose values are not in the unit of their
      modality.
  """

  slices: SliceSpec
  reference: tuple[Modality, ...] = ()
  required: tuple[Modality, ...] = ()
  most_offset: float = 6.0
  register: str = ''
  check_units: bool = True

  def to_json(self) -> dict[str, Any]:
    """All fields as JSON values, for the record in the store."""
    return {
      **self.slices.to_json(),
      'reference': list(self.reference),
      'required': list(self.required),
      'most_offset': self.most_offset,
      'register': self.register,
      'check_units': self.check_units,
    }


class MisalignedError(VolumeError):
  """A volume that is shifted from the subject's reference volume."""


@dataclasses.dataclass(frozen=True)
class Ingested:
  """A case and its arrays, the arguments of `StoreWriter.write_case`."""

  case: Case
  volumes: Mapping[Modality, Float[np.ndarray, 'z h w']]
  mask: Bool[np.ndarray, 'z h w']


def check_modalities(files: CaseFiles, settings: Settings) -> None:
  """Checks that a subject has all required modalities and those of a route.

  Raises:
    VolumeError: a modality is missing; the message names the subject.
  """
  where = next(iter(files.files.values())).parent
  have = ', '.join(files.files)
  for modality in settings.required:
    if modality not in files.files:
      raise VolumeError(
        f'{where}: subject {files.subject!r} has {have} but no '
        f'{modality.value}; add the file or leave the subject out.'
      )
  if not routes_between(files.region, frozenset(files.files)):
    routes = ', '.join(
      f'{r.source}->{r.target}'
      for r in all_routes()
      if r.region == files.region
    )
    raise VolumeError(
      f'{where}: subject {files.subject!r} has {have}; a subject of region '
      f'{files.region} needs both modalities of one of {routes}.'
    )


def ingest(
  files: CaseFiles,
  settings: Settings,
  volumes: Mapping[Modality, Volume] | None = None,
) -> Ingested:
  """Resamples a subject's volumes onto one slice grid.

  Args:
    files: files of the subject.
    settings: settings of the store.
    volumes: contents of the files, if the caller has read them.

  Returns:
    The case without a split, its volumes in [-1, 1], and the body mask where
    every modality was measured.

  Raises:
    VolumeError: a file or the subject cannot be used; the message names it.
    MisalignedError: a volume is shifted by more than `most_offset`.
  """
  check_modalities(files, settings)
  if volumes is None:
    volumes = {
      m: read_volume(p, series=files.series.get(m, ''))
      for m, p in sorted(files.files.items())
    }
  volumes = dict(volumes)
  checksums = _checksums(files, volumes)
  reference = _reference(files, volumes, settings.reference or files.reference)
  if settings.check_units:
    _check_units(files, volumes)
  windows = _windows(files, volumes, settings.slices)
  drawn = drawn_masks(files, volumes, reference)
  transforms = _align(files, volumes, windows, reference, settings)
  grid = settings.slices.grid(volumes[reference], reference)
  outline = next(m for m in (*_OUTLINE, *volumes) if m in volumes)
  if 'body' in drawn:
    body = drawn['body'].on_grid(grid, transforms) > 0.5
  else:
    body = body_on_grid(outline, volumes[outline], grid)
  slices, measured = _on_grid(files, volumes, windows, reference, grid)
  covered = np.all(list(measured.values()), axis=0)
  usable = _usable(body, covered)
  if not usable:
    raise VolumeError(
      f'{files.files[outline].parent}: subject {files.subject!r} has no slice '
      f'whose body every modality covers: {_uncovered(body, measured)}.'
    )
  for modality, window in windows.items():
    slices[modality] = window.normalise(slices[modality])
  lesions = None
  if 'lesion' in drawn:
    share = drawn['lesion'].on_grid(grid, transforms)
    lesions = measure_lesions(share, body, slices, measured, grid.affine)
  case = Case(
    id=files.id,
    dataset=files.dataset,
    subject=files.subject,
    region=files.region,
    modalities=windows,
    sources={m: f'{p.parent.name}/{p.name}' for m, p in files.files.items()},
    shape=slices[outline].shape,
    affine=tuple(map(tuple, np.round(grid.affine, 6).tolist())),
    plane=settings.slices.plane,
    usable=usable,
    checksums=checksums,
    transforms={
      m: tuple(map(tuple, matrix.tolist())) for m, matrix in transforms.items()
    },
    patient=files.patient,
    lesions=lesions,
  )
  return Ingested(case, slices, body & covered)


def _checksums(
  files: CaseFiles, volumes: Mapping[Modality, Volume]
) -> dict[Modality, str]:
  """Checksums of the voxels; VolumeError if two volumes have the same ones."""
  checksums, seen = {}, {}
  for modality, volume in volumes.items():
    checksum = checksums[modality] = voxel_checksum(volume.data)
    other = seen.setdefault(checksum, modality)
    if other != modality and files.files[modality] == files.files[other]:
      raise VolumeError(
        f'{files.files[modality]}: is listed as {other} and as {modality} of '
        f'subject {files.subject!r}; correct one of them.'
      )
    if other != modality:
      raise VolumeError(
        f'{files.files[modality]}: has the same voxels as '
        f'{files.files[other]}, so it cannot be {modality} and that one '
        f'{other}; replace one of them or leave the subject out.'
      )
  return checksums


def _reference(
  files: CaseFiles,
  volumes: Mapping[Modality, Volume],
  preferred: Sequence[Modality],
) -> Modality:
  """The modality whose grid the case uses."""
  for modality in preferred:
    if modality in volumes:
      return modality
  first, *others = volumes
  for other in others:
    check_same_grid(
      files.files[other],
      volumes[other],
      files.files[first],
      volumes[first],
      remedy=f'pass --reference={first.value} to resample onto one grid, if '
      'the two share a world frame.',
    )
  return first


def _windows(
  files: CaseFiles,
  volumes: Mapping[Modality, Volume],
  spec: SliceSpec,
) -> dict[Modality, Window]:
  """The window of every volume; VolumeError names a volume without one."""
  windows = {}
  for modality, volume in volumes.items():
    try:
      windows[modality] = spec.window(modality, volume.data)
    except ValueError as error:
      raise VolumeError(f'{files.files[modality]}: {error}') from None
  return windows


def _check_units(files: CaseFiles, volumes: Mapping[Modality, Volume]) -> None:
  for modality, volume in volumes.items():
    check_units(
      files.files[modality],
      modality,
      volume,
      override='--nocheck_units',
    )


def _align(
  files: CaseFiles,
  volumes: dict[Modality, Volume],
  windows: Mapping[Modality, Window],
  reference: Modality,
  settings: Settings,
) -> dict[Modality, Float[np.ndarray, '4 4']]:
  """Checks that the volumes lie on the reference; registers those that do not.

  Args:
    files: files of the subject, for messages.
    volumes: the volumes; registered ones are replaced.
    windows: their windows.
    reference: modality that the others are compared with.
    settings: `most_offset` and `register`.

  Returns:
    The matrix of every volume that was registered, RAS+ mm.

  Raises:
    MisalignedError: a volume is off by more than `most_offset`, and is not
      registered or still off after registration.
  """
  transforms = {}
  fixed, name = volumes[reference], files.files[reference].name
  for modality, volume in (
    tuple(volumes.items()) if settings.most_offset else ()
  ):
    if modality == reference:
      continue
    pair = windows[reference], windows[modality]
    offset = estimate_offset(fixed, volume, pair)
    if offset is None or offset.distance <= settings.most_offset:
      continue
    problem = (
      f'{files.files[modality]}: appears to be {offset.relative_to(name)}'
    )
    if offset.orientation:
      raise MisalignedError(
        f'{problem}; correct its orientation, or skip this check with '
        '--most_offset=0.'
      )
    if not settings.register:
      raise MisalignedError(
        f'{problem}; register it, for example with --register=rigid, or skip '
        'this check with --most_offset=0.'
      )
    try:
      matrix = register_rigid(fixed, volume, pair)
    except RuntimeError as error:  # SimpleITK's, with its source lines first
      raise MisalignedError(
        f'{problem}; rigid registration failed ({str(error).splitlines()[-1]}).'
      ) from error
    volumes[modality] = moved(volume, matrix)
    left = estimate_offset(fixed, volumes[modality], pair)
    if left is None or left.distance > settings.most_offset:
      raise MisalignedError(
        f'{problem}, and after rigid registration '
        f'{left.relative_to(name) if left else "beside it"}; register it with '
        'another tool, or skip this check with --most_offset=0.'
      )
    transforms[modality] = matrix
  return transforms


def _on_grid(
  files: CaseFiles,
  volumes: dict[Modality, Volume],
  windows: Mapping[Modality, Window],
  reference: Modality,
  grid: Grid,
) -> tuple[
  dict[Modality, Float[np.ndarray, 'z h w']],
  dict[Modality, Bool[np.ndarray, 'z h w']],
]:
  """The slices of every volume, and whether it covers each of their pixels.

  Empties `volumes`, so that memory holds each volume in one form alone.
  """
  slices, measured = {}, {}
  for modality in tuple(volumes):
    volume, window = volumes.pop(modality), windows[modality]
    sampled = to_slices(resample(window.clip(volume), grid, fill=np.nan))
    measured[modality] = np.isfinite(sampled)
    if not measured[modality].any():
      raise VolumeError(
        f'{files.files[modality]}: does not overlap '
        f'{files.files[reference].name} in world coordinates; '
        'register them first.'
      )
    slices[modality] = np.where(measured[modality], sampled, window.low)
  return slices, measured


def _uncovered(
  body: Bool[np.ndarray, 'z h w'],
  measured: Mapping[Modality, Bool[np.ndarray, 'z h w']],
) -> str:
  """Why no slice is usable, with numbers."""
  area = body.mean((1, 2))
  large = area >= _BODY
  if not large.any():
    return (
      f'the body fills {area.max():.1%} of the largest slice, less than '
      f'{_BODY:.0%}'
    )
  size = body[large].sum()
  parts = [
    f'{modality} covers {(body & seen)[large].sum() / size:.0%} of the body'
    for modality, seen in measured.items()
  ]
  return f'{", ".join(parts)}; {_COVERED:.0%} of a slice is needed'


def _usable(
  body: Bool[np.ndarray, 'z h w'], covered: Bool[np.ndarray, 'z h w']
) -> range:
  """The longest run of slices with enough body that all modalities cover."""
  area = body.sum((1, 2))
  enough = area >= _BODY * body[0].size
  seen = (body & covered).sum((1, 2)) >= _COVERED * np.maximum(area, 1)
  best, start = range(0), None
  for index, good in enumerate([*(enough & seen), False]):
    if good and start is None:
      start = index
    elif not good and start is not None:
      if index - start > len(best):
        best = range(start, index)
      start = None
  return best
