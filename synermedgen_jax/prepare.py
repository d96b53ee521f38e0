"""Turns volumes on disk into a slice store.

  python -m synermedgen_jax.prepare --dataset=phantom --root=runs/phantoms \\
      --subjects=60 --store=runs/store
  python -m synermedgen_jax.prepare --dataset=folder --root=DIR \\
      --region=brain --store=STORE
  python -m synermedgen_jax.prepare --dataset=csv --root=TABLE.csv --store=STORE
  python -m synermedgen_jax.prepare --dataset=synthrad2023,brats \\
      --root=SYNTHRAD,BRATS --store=STORE
  python -m synermedgen_jax.prepare --dataset=brats --root=DIR --check=REPORT
  python -m synermedgen_jax.prepare --root=DIR --draft=TABLE.csv

`phantom` first writes digital phantoms into --root. `folder` reads
DIR/<subject>/<modality>.nii.gz, `flat` DIR/<subject>_<modality>.nii.gz,
`nnunet` imagesTr and dataset.json, `bids` sub-*/anat, and `csv` a table. Public
datasets are read in their downloaded layout. docs/data.md describes all
layouts; for another one, --draft writes a table to complete.

After an interruption, the same command resumes where it stopped. On a finished
store it changes nothing. With --part=K/N, N commands on any number of machines
fill one store.
"""

import collections
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from synermedgen_jax.config.command_line import UsageError, run_command
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core.errors import naming
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.core.size import parse_size
from synermedgen_jax.slices import drafts, ingest, inspection, tables
from synermedgen_jax.slices.datasets import Fault, Listing
from synermedgen_jax.slices.framing import FRAMES, SliceSpec
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.slices.layouts import LAYOUTS
from synermedgen_jax.slices.prepare_store import (
  Part,
  PrepareSettings,
  person_of,
  prepare_part,
)
from synermedgen_jax.slices.public_datasets import PUBLIC_DATASETS, list_public
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.store_files import check_folder
from synermedgen_jax.slices.windows import FIXED_WINDOWS, parse_windows
from synermedgen_jax.slices.workers import run_jobs

_LISTED = 10  # cases that a message names

_DATASET = flags.DEFINE_list(
  'dataset',
  None,
  f'Layouts of the input, comma-separated: phantom, csv, {", ".join(LAYOUTS)}, '
  f'{", ".join(PUBLIC_DATASETS)}, or a layout that one of --modules registers. '
  'Required, except with --draft.',
)
_ROOT = flags.DEFINE_list(
  'root',
  None,
  'Folder of the volumes of each --dataset, comma-separated; for csv, the '
  'table.',
)
_STORE = flags.DEFINE_string(
  'store', None, 'Folder of the store, or an address such as gs://BUCKET/STORE.'
)
_NAME = flags.DEFINE_string(
  'name',
  None,
  'Name of the dataset; by default the name of --root. Public datasets have '
  'their own names.',
)
_REGION = flags.DEFINE_string(
  'region',
  None,
  f'Body region of all subjects: {", ".join(Region)}, or a region that one of '
  '--modules registers.',
)
_MODULES = flags.DEFINE_list(
  'modules',
  [],
  'Python modules to import first, which register datasets, modalities or '
  'regions.',
)
_PLANE = flags.DEFINE_enum(
  'plane', 'axial', list(PLANES), 'Plane of the slices.'
)
_FRAME = flags.DEFINE_enum(
  'frame',
  'volume',
  list(FRAMES),
  'Content that fills the canvas: the field of view of the volume, or the '
  'body.',
)
_CANVAS = flags.DEFINE_string(
  'canvas',
  '256',
  'Height and width of a slice in pixels, such as 400x256; one number for a '
  'square.',
)
_REFERENCE = flags.DEFINE_list(
  'reference',
  None,
  'Modalities in order of preference: the first that a subject has defines the '
  'grid onto which its other volumes are resampled. By default, the volumes of '
  'a subject must share one grid, except in phantoms and public datasets.',
)
_WINDOWS = flags.DEFINE_string(
  'windows',
  '',
  'Intensity windows that replace the defaults, such as ct:-1000:2000,pet:0:20 '
  '(HU, SUV). By default, the window of an MR ends at its 99.5th percentile.',
)
_MODALITIES = flags.DEFINE_list(
  'modalities', [], 'Modalities that every subject must have.'
)
_VAL = flags.DEFINE_float('val', 0.1, 'Share of subjects for validation.')
_TEST = flags.DEFINE_float('test', 0.15, 'Share of subjects for testing.')
_HOLDOUT = flags.DEFINE_bool(
  'holdout', False, 'All subjects go to the split `holdout`.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of phantoms and splits.')
_SUBJECTS = flags.DEFINE_integer(
  'subjects', 30, 'Phantom subjects per cohort.', lower_bound=1
)
_WORKERS = flags.DEFINE_integer(
  'workers', 2, 'Number of processes.', lower_bound=1
)
_MOST_OFFSET = flags.DEFINE_float(
  'most_offset',
  6.0,
  'Largest estimated shift between the volumes of a subject, in mm. Subjects '
  'beyond it are skipped; 0 accepts all.',
  lower_bound=0,
)
_CHECK_UNITS = flags.DEFINE_bool(
  'check_units',
  True,
  'Refuse volumes whose values are not in HU (CT, CBCT) or SUV (PET), or are '
  'not those of an MR.',
)
_REGISTER = flags.DEFINE_enum(
  'register',
  'none',
  ['none', 'rigid'],
  'Correction of volumes that are off by more than --most_offset: rigid '
  'registration to the reference. The manifest records the matrix.',
)
_CHECK = flags.DEFINE_string(
  'check',
  None,
  'Write no store: check every volume and write a report to this folder.',
)
_DRAFT = flags.DEFINE_string(
  'draft',
  None,
  'Write no store: write a table of the volumes below --root to this new file, '
  'to be completed and read with --dataset=csv.',
)
_PART = flags.DEFINE_string(
  'part',
  '1/1',
  'Share of the subjects that this command writes: K/N is the Kth of N. The '
  'part that finds nothing missing finishes the store.',
)
_SKIP_BAD = flags.DEFINE_bool(
  'skip_bad',
  False,
  'Skip subjects that cannot be used, with a line on stderr.',
)


def _parse_modalities(names: list[str]) -> tuple[Modality, ...]:
  return tuple(Modality.parse(name) for name in names)


def _ingest_settings() -> ingest.Settings:
  reference = _REFERENCE.value
  if reference is None:
    # The phantoms' PET has a coarser grid than their CT.
    reference = ['ct', 't1'] if 'phantom' in _DATASET.value else []
  try:
    windows = {**FIXED_WINDOWS, **parse_windows(_WINDOWS.value)}
  except ValueError as error:
    raise UsageError(f'--windows: {error}') from None
  try:
    canvas = parse_size(_CANVAS.value)
  except ValueError as error:
    raise UsageError(f'--canvas={error}') from None
  try:
    slices = SliceSpec(canvas, _PLANE.value, _FRAME.value, windows)
  except ValueError as error:
    raise UsageError(f'--{error}') from None
  try:
    return ingest.Settings(
      slices,
      reference=_parse_modalities(reference),
      required=_parse_modalities(_MODALITIES.value),
      most_offset=_MOST_OFFSET.value,
      register='' if _REGISTER.value == 'none' else _REGISTER.value,
      check_units=_CHECK_UNITS.value,
    )
  except ValueError as error:
    raise UsageError(f'--reference or --modalities: {error}') from None


def _settings() -> PrepareSettings:
  return PrepareSettings(
    _ingest_settings(),
    dataset=','.join(_DATASET.value),
    val=_VAL.value,
    test=_TEST.value,
    holdout=_HOLDOUT.value,
    seed=_SEED.value,
    workers=_WORKERS.value,
    skip_bad=_SKIP_BAD.value,
    modules=tuple(_MODULES.value),
  )


def _find_cases() -> Listing:
  """The cases of all --dataset under their --root, and the faults."""
  layouts, roots = _DATASET.value, _ROOT.value
  if len(layouts) == 1:
    roots = [','.join(roots)]  # a path may contain commas
  if len(layouts) != len(roots):
    raise UsageError(
      f'--dataset names {len(layouts)} layouts, but --root {len(roots)} paths.'
    )
  listings = [
    _find(layout, Path(root))
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


def _region() -> Region | None:
  try:
    return Region.parse(_REGION.value) if _REGION.value else None
  except ValueError as error:
    raise UsageError(f'--region: {error}') from None


def _find(layout: str, root: Path) -> Listing:
  name = _NAME.value or root.resolve().name.split('.')[0] or 'data'
  region = _region()
  if layout in PUBLIC_DATASETS:
    return list_public(layout, root)
  if layout == 'phantom':
    # Workers import this module again, and need neither phantoms nor pages.
    from synermedgen_jax.phantoms import cohorts

    cohorts.write_phantoms(
      root,
      subjects=_SUBJECTS.value,
      seed=_SEED.value,
      workers=_WORKERS.value,
    )
    return Listing(cohorts.phantom_cases(root))
  if layout == 'csv':
    return tables.list_table(root, dataset=name, region=region)
  if layout not in LAYOUTS:
    layouts = ('phantom', 'csv', *LAYOUTS, *PUBLIC_DATASETS)
    raise UsageError(
      f'--dataset {layout!r}: expected some of {", ".join(layouts)}.'
    )
  if region is None:
    raise UsageError(f'--dataset={layout} needs --region.')
  return LAYOUTS[layout](root, dataset=name, region=region)


def _draft(table: Path) -> None:
  """Writes a table of all volumes below --root."""
  root = Path(','.join(_ROOT.value))
  draft = drafts.write_draft(root, table, _region())
  print(
    f'{table}: {len(draft.rows)} volumes, {draft.incomplete} without a subject '
    'or a modality. Complete or delete these lines, then run prepare with '
    f'--dataset=csv --root={table}.'
  )


def _check(folder: Path) -> None:
  """Checks every case and writes FOLDER/index.html; exits 1 on problems."""
  from synermedgen_jax.reporting.inspection_page import inspection_page, summary

  check_folder(folder, '--check')
  settings, listing = _ingest_settings(), _find_cases()
  folder.mkdir(parents=True, exist_ok=True)
  jobs = [(case.id, (case, settings)) for case in listing.cases]
  workers = max(min(_WORKERS.value, len(jobs)), 1)
  with contextlib.closing(
    run_jobs(inspection.inspect, jobs, workers, _MODULES.value)
  ) as results:
    by_id = dict(tqdm(results, total=len(jobs), desc='check', unit='case'))
  facts = inspection.with_shared_volumes(
    [by_id[case.id] for case in listing.cases],
    {case.id: person_of(case) for case in listing.cases},
  )
  facts += inspection.layout_faults(listing.faults)
  page = folder / 'index.html'
  with naming(page):
    page.write_text(inspection_page(facts, settings.most_offset), 'utf-8')
  print(summary(facts))
  if advice := inspection.canvas_advice(facts, settings.slices):
    print(advice)
  print(page)
  if any(case.problems for case in facts):
    sys.exit(1)


def _prepare(store: str) -> None:
  """Writes the cases of --part, and the store if none is missing."""
  check_folder(store, '--store')
  settings, listing = _settings(), _find_cases()
  try:
    part = Part.parse(_PART.value)
  except ValueError as error:
    raise UsageError(f'--part: {error}') from None
  cases = listing.cases if _SKIP_BAD.value else listing.all_cases()
  _print_skipped(listing.faults)
  missing = prepare_part(cases, store, settings, part)
  if not missing:
    _summarise(SliceStore.open(store))
    return
  ids = [case.id for case in cases]
  parts = [Part(k, part.count) for k in range(1, part.count + 1)]
  unwritten = [p for p in parts if not set(missing).isdisjoint(p.of(ids))]
  print(
    f'Part {part} of {store} is written. {len(missing)} of {len(cases)} cases '
    f'are missing, of the parts {", ".join(map(str, unwritten))}: '
    f'{", ".join(missing[:_LISTED])}{", ..." if missing[_LISTED:] else ""}'
  )


def _print_skipped(faults: Sequence[Fault]) -> None:
  for fault in faults:
    name = f'{fault.case}: ' if fault.case else ''
    print(f'Skipped {name}{fault.problem}', file=sys.stderr)


def _summarise(store: SliceStore) -> None:
  counts = collections.Counter((c.dataset, c.split) for c in store.cases)
  print(f'Store {store.path}: {len(store.cases)} cases, finished.')
  for (dataset, split), count in sorted(counts.items()):
    slices = sum(
      len(c.usable)
      for c in store.cases
      if (c.dataset, c.split) == (dataset, split)
    )
    print(f'  {dataset:<12} {split:<8} {count:4} subjects {slices:6} slices')


def main() -> None:
  import_modules(_MODULES.value)
  if _DRAFT.value:
    _draft(Path(_DRAFT.value))
    return
  if _DATASET.value is None:
    raise UsageError('--dataset is required. See --help.')
  if _CHECK.value:
    _check(Path(_CHECK.value))
  elif _STORE.value:
    _prepare(_STORE.value)
  else:
    raise UsageError('--store or --check: name the folder of the result.')


if __name__ == '__main__':
  run_command(main, required=['root'])
