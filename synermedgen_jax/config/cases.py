"""The cases that flags name, and the settings that turn them into slices."""

from __future__ import annotations

import collections
import dataclasses
import sys
from pathlib import Path

from synermedgen_jax.config.command_line import UsageError
from synermedgen_jax.config.volume_flags import VolumeOptions
from synermedgen_jax.core.choices import DATASETS
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.core.size import parse_size
from synermedgen_jax.phantoms import cohorts
from synermedgen_jax.slices import ingest, tables
from synermedgen_jax.slices.datasets import DatasetError, Listing
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.layouts import LAYOUTS
from synermedgen_jax.slices.public_datasets import PUBLIC_DATASETS, list_public
from synermedgen_jax.slices.recognition import Recognised, recognise
from synermedgen_jax.slices.windows import FIXED_WINDOWS, parse_windows


def ingest_settings(options: VolumeOptions) -> ingest.Settings:
  """The settings of the flags.

  Raises:
    UsageError: a value is invalid; the message names its flag.
  """
  reference = options.reference
  if reference is None:
    # The phantoms' PET has a coarser grid than their CT.
    reference = ['ct', 't1'] if 'phantom' in (options.dataset or ()) else []
  try:
    windows = {**FIXED_WINDOWS, **parse_windows(options.windows)}
  except ValueError as error:
    raise UsageError(f'--windows: {error}') from None
  try:
    canvas = parse_size(options.canvas)
  except ValueError as error:
    raise UsageError(f'--canvas={error}') from None
  try:
    slices = SliceSpec(canvas, options.plane, options.frame, windows)
  except ValueError as error:
    raise UsageError(f'--{error}') from None
  try:
    return ingest.Settings(
      slices,
      reference=tuple(map(Modality.parse, reference)),
      required=tuple(map(Modality.parse, options.modalities)),
      most_offset=options.most_offset,
      register='' if options.register == 'none' else options.register,
      check_units=options.check_units,
    )
  except ValueError as error:
    raise UsageError(f'--reference or --modalities: {error}') from None


def find_cases(options: VolumeOptions) -> Listing:
  """The cases of all --dataset under their --root, and the faults.

  Raises:
    UsageError: flags contradict each other.
    DatasetError: a root cannot be read or does not have the layout.
  """
  layouts, roots = options.dataset, options.root
  if options.shift and 'phantom' not in (layouts or ()):
    raise UsageError(
      f'--shift={options.shift}: changes the scanners of --dataset=phantom; '
      'leave it out.'
    )
  if not layouts:
    raise _without_dataset(Path(','.join(roots)))
  if len(layouts) == 1:
    roots = [','.join(roots)]  # a path may contain commas
  if len(layouts) != len(roots):
    raise UsageError(
      f'--dataset names {len(layouts)} layouts, but --root {len(roots)} paths.'
    )
  listings = [
    _find(layout, Path(root), options)
    for layout, root in zip(layouts, roots, strict=True)
  ]
  cases = [case for listing in listings for case in listing.cases]
  faults = [fault for listing in listings for fault in listing.faults]
  counts = collections.Counter(case.id for case in cases)
  for case_id, count in counts.items():
    if count > 1:
      raise UsageError(
        f'--root: case {case_id} is in {count} of the paths; remove one.'
      )
  return Listing(cases, faults)


def with_recognised_dataset(options: VolumeOptions) -> VolumeOptions:
  """The flags with the layout that the names have, which is printed.

  Raises:
    UsageError: they have no known one, or --root is not its folder.
  """
  root = Path(','.join(options.root))
  seen = recognise(root)
  if not seen or seen.root != root:
    raise _without_dataset(root)
  print(
    f'{root}: read with --dataset={seen.layout}, since it holds names such as '
    f'{seen.example}.',
    file=sys.stderr,
  )
  return dataclasses.replace(options, dataset=[seen.layout])


def region_of(options: VolumeOptions) -> Region | None:
  """The region of the flags; None = not given."""
  try:
    return Region.parse(options.region) if options.region else None
  except ValueError as error:
    raise UsageError(f'--region: {error}') from None


def _find(layout: str, root: Path, options: VolumeOptions) -> Listing:
  name = options.name or root.resolve().name.split('.')[0] or 'data'
  region = region_of(options)
  if layout in PUBLIC_DATASETS:
    return list_public(layout, root)
  if layout == 'phantom':
    cohorts.write_phantoms(
      root,
      subjects=options.subjects,
      seed=options.seed,
      shift=options.shift or '',
      workers=options.workers,
    )
    return Listing(cohorts.phantom_cases(root))
  if layout == 'csv':
    if root.is_dir():
      _refuse_other_layout(layout, root)
    return tables.list_table(root, dataset=name, region=region)
  if layout not in LAYOUTS:
    known = dict.fromkeys((*DATASETS, *PUBLIC_DATASETS))
    raise UsageError(
      f'--dataset {layout!r}: expected some of {", ".join(known)}.'
    )
  if region is None:
    raise UsageError(
      f'--dataset={layout} needs --region, one of {", ".join(Region)}.'
    )
  try:
    listing = LAYOUTS[layout](root, dataset=name, region=region)
  except DatasetError:
    _refuse_other_layout(layout, root)
    raise
  if not listing.cases:
    _refuse_other_layout(layout, root)
  return listing


def _refuse_other_layout(layout: str, root: Path) -> None:
  """Raises UsageError if the names below the root have another layout."""
  seen = recognise(root)
  if seen and (seen.layout, seen.root) != (layout, root):
    raise UsageError(
      f'{root}: holds no volume of --dataset={layout}, but names such as '
      f'{seen.example}; use {_flags(seen, root)}.'
    )


def _without_dataset(root: Path) -> UsageError:
  seen = recognise(root)
  if not seen:
    return UsageError(
      f'--dataset is required: {root} holds no names of a known layout, so '
      f'name one of {", ".join(DATASETS)} (docs/data.md).'
    )
  return UsageError(
    f'--dataset is required: {root} holds names such as {seen.example}, so '
    f'use {_flags(seen, root)}.'
  )


def _flags(seen: Recognised, root: Path) -> str:
  other = '' if seen.root == root else f' --root={seen.root}'
  return f'--dataset={seen.layout}{other}'
