"""Turns volumes on disk into a slice store.

  python -m synermedgen_jax.prepare --dataset=phantom --root=runs/phantoms \\
      --subjects=60 --store=runs/store
  python -m synermedgen_jax.prepare --dataset=folder --root=DIR \\
      --region=brain --store=STORE
  python -m synermedgen_jax.prepare --dataset=csv --root=TABLE.csv --store=STORE
  python -m synermedgen_jax.prepare --dataset=synthrad2023,brats \\
      --root=SYNTHRAD,BRATS --store=STORE
  python -m synermedgen_jax.prepare --dataset=brats --root=DIR --check=REPORT

`phantom` draws digital phantoms into --root first. `folder` reads
DIR/<subject>/<modality>.nii.gz, `csv` a table; the public datasets are read as
they are downloaded. docs/data.md has all of them.
Interrupted, the same command goes on where it stopped; on a finished store it
does nothing.
"""

import collections
import concurrent.futures
import sys
from pathlib import Path

from absl import flags
from tqdm import tqdm

from synermedgen_jax.config.command_line import UsageError, run_command
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.phantoms import cohorts
from synermedgen_jax.reporting.inspection_page import inspection_page, summary
from synermedgen_jax.slices import datasets, ingest, inspection
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import FRAMES, SliceSpec
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.slices.prepare_store import (
  PrepareSettings,
  prepare,
  processes,
)
from synermedgen_jax.slices.public_datasets import PUBLIC_DATASETS, find_cases
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.windows import FIXED_WINDOWS, parse_windows

_DATASET = flags.DEFINE_list(
  'dataset',
  None,
  f'Layouts of the input: phantom, folder, csv, {", ".join(PUBLIC_DATASETS)}, '
  'or one that a module registers.',
)
_ROOT = flags.DEFINE_list(
  'root',
  None,
  'For each of them, the folder of the volumes, or the table of csv.',
)
_STORE = flags.DEFINE_string('store', None, 'Where the store goes (or gs://).')
_NAME = flags.DEFINE_string(
  'name', None, "Name of the dataset; the root's own name by default."
)
_REGION = flags.DEFINE_string(
  'region',
  None,
  f'Body region of all subjects: {", ".join(Region)}, or one that a module '
  'registers.',
)
_MODULES = flags.DEFINE_list(
  'modules', [], 'Python modules that register datasets, modalities, regions.'
)
_PLANE = flags.DEFINE_enum(
  'plane', 'axial', list(PLANES), 'Plane of the slices.'
)
_FRAME = flags.DEFINE_enum(
  'frame',
  'volume',
  list(FRAMES),
  'What fills the canvas: the longer side of the volume, or that of the body '
  'in it.',
)
_CANVAS = flags.DEFINE_integer('canvas', 256, 'Pixels a side of a slice.')
_REFERENCE = flags.DEFINE_list(
  'reference',
  None,
  'Modalities by preference: the first that a subject has gives the grid onto '
  'which its others are resampled. Without it, the volumes of a subject must '
  'share one grid.',
)
_WINDOWS = flags.DEFINE_string(
  'windows',
  '',
  'Windows instead of the default ones, such as ct:-1000:2000,pet:0:20 (HU, '
  'SUV). MR without one takes the 99.5th percentile of each volume.',
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
_WORKERS = flags.DEFINE_integer('workers', 2, 'Processes.', lower_bound=1)
_MOST_OFFSET = flags.DEFINE_float(
  'most_offset',
  6.0,
  'Subjects whose volumes seem to lie further apart, in mm, are left out; 0 '
  'takes all.',
  lower_bound=0,
)
_CHECK = flags.DEFINE_string(
  'check',
  None,
  'Write no store: look at every volume, and put a report into this folder.',
)
_SKIP_BAD = flags.DEFINE_bool(
  'skip_bad', False, 'Leave out subjects that cannot be used, and say so.'
)


def _parse_modalities(names: list[str]) -> tuple[Modality, ...]:
  return tuple(Modality.parse(name) for name in names)


def _ingest_settings() -> ingest.Settings:
  reference = _REFERENCE.value
  if reference is None:
    # The phantoms' PET lies on a coarser grid than their CT.
    reference = ['ct', 't1'] if 'phantom' in _DATASET.value else []
  try:
    windows = {**FIXED_WINDOWS, **parse_windows(_WINDOWS.value)}
  except ValueError as error:
    raise UsageError(f'--windows: {error}') from None
  try:
    return ingest.Settings(
      SliceSpec(_CANVAS.value, _PLANE.value, _FRAME.value, windows),
      reference=_parse_modalities(reference),
      required=_parse_modalities(_MODALITIES.value),
      most_offset=_MOST_OFFSET.value,
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


def _find_cases() -> list[CaseFiles]:
  """The cases of all --dataset under their --root."""
  layouts, roots = _DATASET.value, _ROOT.value
  if len(layouts) != len(roots):
    raise UsageError(
      f'--dataset names {len(layouts)} layouts, --root {len(roots)} places.'
    )
  cases = [
    case
    for layout, root in zip(layouts, roots, strict=True)
    for case in _find(layout, Path(root))
  ]
  places = collections.Counter(case.id for case in cases)
  for case_id, count in places.items():
    if count > 1:
      raise UsageError(f'case {case_id} is in {count} of the --root; one only.')
  return cases


def _find(layout: str, root: Path) -> list[CaseFiles]:
  name = _NAME.value or root.resolve().name.split('.')[0]
  try:
    region = Region.parse(_REGION.value) if _REGION.value else None
  except ValueError as error:
    raise UsageError(f'--region: {error}') from None
  if layout in PUBLIC_DATASETS:
    return find_cases(layout, root)
  if layout == 'phantom':
    cohorts.write_phantoms(
      root,
      subjects=_SUBJECTS.value,
      seed=_SEED.value,
      workers=_WORKERS.value,
    )
    return cohorts.phantom_cases(root)
  if layout == 'csv':
    return datasets.csv_cases(root, dataset=name, region=region)
  if layout != 'folder':
    layouts = ('phantom', 'folder', 'csv', *PUBLIC_DATASETS)
    raise UsageError(
      f'--dataset {layout!r}: expected some of {", ".join(layouts)}.'
    )
  if region is None:
    raise UsageError('--dataset=folder needs --region.')
  return datasets.folder_cases(root, dataset=name, region=region)


def _check(folder: Path) -> None:
  """Looks at every case and writes FOLDER/index.html; exits 1 on problems."""
  settings, cases = _ingest_settings(), _find_cases()
  with processes(_WORKERS.value, _MODULES.value) as pool:
    jobs = [pool.submit(inspection.inspect, case, settings) for case in cases]
    for _ in tqdm(
      concurrent.futures.as_completed(jobs),
      total=len(jobs),
      desc='check',
      unit='case',
    ):
      pass
  facts = [job.result() for job in jobs]
  folder.mkdir(parents=True, exist_ok=True)
  page = folder / 'index.html'
  page.write_text(inspection_page(facts, settings.most_offset))
  print(summary(facts))
  print(page)
  if any(case.problems for case in facts):
    sys.exit(1)


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
  if not (_STORE.value or _CHECK.value):
    raise UsageError('--store or --check: say where the result goes.')
  import_modules(_MODULES.value)
  if _CHECK.value:
    _check(Path(_CHECK.value))
  else:
    settings = _settings()
    _summarise(prepare(_find_cases(), _STORE.value, settings))


if __name__ == '__main__':
  run_command(main, required=['dataset', 'root'])
