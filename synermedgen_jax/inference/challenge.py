"""Synthesises the cases of SynthRAD's interface on grand-challenge.org.

  /input/images/mri/*.mha, or cbct/*.mha   the source
  /input/images/body/*.mha                 its body mask, on the same grid
  /input/region.json                       name of the region, optional
  /output/images/synthetic-ct/*.mha        the synthetic CT, in HU

A file of the output has the name and the geometry of its source, and int16
voxels. Voxels outside the mask are -1024 HU, as the evaluation of the challenge
sets them (evaluation/official.py). Sources: SynthRAD2023/algorithm-template,
base_algorithm.py; synthrad2025.grand-challenge.org. On the platform, a run has
one case, whose source and mask have names of their own; of several cases,
source and mask share their name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from synermedgen_jax.core.errors import UserError, VolumeError
from synermedgen_jax.core.modalities import Modality, Region, Route
from synermedgen_jax.inference.translation import translate
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.itk import read_itk, write_mha
from synermedgen_jax.slices.volumes import (
  Volume,
  check_same_grid,
  read_volume,
)

# Folders of the sources that the challenge has.
SOURCES = {Modality.MR: 'mri', Modality.CBCT: 'cbct'}
OUTSIDE = -1024  # HU
_REGIONS = {
  'brain': Region.BRAIN,
  'pelvis': Region.PELVIS,
  'head and neck': Region.HEAD_NECK,
  'thorax': Region.THORAX,
  'abdomen': Region.ABDOMEN,
}


class CaseError(UserError):
  """Cases that cannot be synthesised; one line that names file or folder."""


def check_interface(route: Route) -> None:
  """Refuses a route that the challenge does not have.

  Raises:
    CaseError: listing the sources and the target of the challenge.
  """
  if route.target is not Modality.CT or not set(route.sources) <= set(SOURCES):
    raise CaseError(
      f'{route.name}: the interface of SynthRAD has one source, '
      f'{" or ".join(SOURCES)}, and the target ct.'
    )
  route.source  # noqa: B018  refuses several


def synthesise_cases(
  trained: Trained,
  route: Route,
  inputs: Path,
  outputs: Path,
  *,
  report: Callable[[str], object] = print,
) -> None:
  """Synthesises a CT for every case of a folder.

  Args:
    trained: the model.
    route: from MR or CBCT to CT.
    inputs: the folder /input.
    outputs: the folder /output.
    report: called with one line per case.

  Raises:
    CaseError: the folder has no case, a source has no mask, or the region is
      not that of the route.
    VolumeError, UntrainedRoute, UserError: as of `translation.translate`.
  """
  check_interface(route)
  _check_region(inputs / 'region.json', route)
  pairs = _cases(inputs / 'images', SOURCES[route.source])
  for source, mask in pairs:
    volume = read_volume(source)
    body = _read_mask(mask, source, volume)
    ct = translate(trained, {route.source: volume}, route)
    data = np.where(body, np.rint(ct.data), OUTSIDE).astype(np.int16)
    path = outputs / 'images' / 'synthetic-ct' / source.name
    write_mha(path, data, ct.affine)
    inside = data[body]
    report(
      f'{path}: shape {data.shape}, {inside.min()} to {inside.max()} HU in the '
      'body mask'
    )


def _cases(images: Path, source: str) -> list[tuple[Path, Path]]:
  """The source and the mask of each case, sorted by name."""
  sources, masks = (
    {path.name: path for path in sorted((images / folder).glob('*.mha'))}
    for folder in (source, 'body')
  )
  if not sources:
    raise CaseError(f'{images / source}: holds no .mha file.')
  if len(sources) == len(masks) == 1:
    return [(*sources.values(), *masks.values())]
  lacking = [name for name in sources if name not in masks]
  if lacking:
    raise CaseError(
      f'{images / source / lacking[0]}: has no mask; of several cases, source '
      f'and mask in {images / "body"} share their name.'
    )
  return [(path, masks[name]) for name, path in sources.items()]


def _check_region(path: Path, route: Route) -> None:
  if not path.is_file():
    return
  text = path.read_text('utf-8', errors='replace').strip()
  try:
    region = _REGIONS[json.loads(text).lower()]
  except (ValueError, KeyError, AttributeError):
    raise CaseError(
      f'{path}: {text[:80]} is no region; expected one of '
      f'{", ".join(_REGIONS)}.'
    ) from None
  if region is not route.region:
    raise CaseError(
      f'{path}: the case shows {region.label}, the container is for '
      f'{route.region.label}; pack another one with --region={region}.'
    )


def _read_mask(path: Path, source: Path, volume: Volume) -> np.ndarray:
  """Voxels above 0, on the grid of the source; some are."""
  try:
    mask = Volume(*read_itk(path))
  except RuntimeError as error:
    reason = str(error).splitlines()[-1]
    raise VolumeError(f'{path}: cannot be read ({reason}).') from error
  check_same_grid(
    path, mask, source, volume, remedy='a mask has the grid of its source.'
  )
  body = mask.data > 0
  if not body.any():
    raise CaseError(f'{path}: is empty, no voxel is above 0.')
  return body
