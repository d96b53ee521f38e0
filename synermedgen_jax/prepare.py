"""Turns volumes on disk into a slice store.

  python -m synermedgen_jax.prepare --dataset=phantom --root=runs/phantoms \\
      --subjects=60 --store=runs/store
  python -m synermedgen_jax.prepare --dataset=folder --root=DIR \\
      --region=brain --store=STORE
  python -m synermedgen_jax.prepare --dataset=csv --root=TABLE.csv --store=STORE
  python -m synermedgen_jax.prepare --dataset=synthrad2023,brats \\
      --root=SYNTHRAD,BRATS --store=STORE
  python -m synermedgen_jax.prepare --dataset=brats --root=DIR --check=REPORT

`phantom` first writes digital phantoms into --root. `folder` reads
DIR/<subject>/<modality>.nii.gz, and `csv` reads a table. Public datasets are
read in their downloaded layout. docs/data.md describes all layouts.

After an interruption, the same command resumes where it stopped. On a finished
store it changes nothing.
"""

import collections
import concurrent.futures
import os
import sys
from pathlib import Path

from absl import flags
from tqdm import tqdm

from synermedgen_jax.config.command_line import UsageError, run_command
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core.errors import naming
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices import datasets, ingest, inspection
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import FRAMES, SliceSpec
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.slices.prepare_store import PrepareSettings, prepare
from synermedgen_jax.slices.public_datasets import PUBLIC_DATASETS, find_cases
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.windows import FIXED_WINDOWS, parse_windows
from synermedgen_jax.slices.workers import processes

_DATASET = flags.DEFINE_list(
  'dataset',
  None,
  'Layouts of the input, comma-separated: phantom, folder, csv, '
  f'{", ".join(PUBLIC_DATASETS)}, or a layout that one of --modules registers.',
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
  'Name of the dataset, for folder and csv; by default the name of --root.',
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
_CANVAS = flags.DEFINE_integer(
  'canvas', 256, 'Pixels per side of a slice.', lower_bound=1
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
_CHECK = flags.DEFINE_string(
  'check',
  None,
  'Write no store: check every volume and write a report to this folder.',
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
    return ingest.Settings(
      SliceSpec(_CANVAS.value, _PLANE.value, _FRAME.value, windows),
      reference=_parse_modalities(reference),
      required=_parse_modalities(_MODALITIES.value),
      most_offset=_MOST_OFFSET.value,
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


def _find_cases() -> list[CaseFiles]:
  """The cases of all --dataset under their --root."""
  layouts, roots = _DATASET.value, _ROOT.value
  if len(layouts) != len(roots):
    raise UsageError(
      f'--dataset names {len(layouts)} layouts, but --root {len(roots)} paths.'
    )
  cases = [
    case
    for layout, root in zip(layouts, roots, strict=True)
    for case in _find(layout, Path(root))
  ]
  counts = collections.Counter(case.id for case in cases)
  for case_id, count in counts.items():
    if count > 1:
      raise UsageError(
        f'--root: case {case_id} is in {count} of the paths; remove one.'
      )
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
    # Workers import this module again, and need neither phantoms nor pages.
    from synermedgen_jax.phantoms import cohorts

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


def _make_folder(folder: Path) -> None:
  """Makes the folder of the report before hours of work."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except (FileExistsError, NotADirectoryError):
    raise UsageError(
      f'--check: {folder} is a file, or below one; name a folder.'
    ) from None
  if not os.access(folder, os.W_OK | os.X_OK):
    raise UsageError(f'--check: the folder {folder} cannot be written.')


def _check(folder: Path) -> None:
  """Checks every case and writes FOLDER/index.html; exits 1 on problems."""
  from synermedgen_jax.reporting.inspection_page import inspection_page, summary

  settings, cases = _ingest_settings(), _find_cases()
  _make_folder(folder)
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
  page = folder / 'index.html'
  with naming(page):
    page.write_text(inspection_page(facts, settings.most_offset), 'utf-8')
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
    raise UsageError('--store or --check: name the folder of the result.')
  import_modules(_MODULES.value)
  if _CHECK.value:
    _check(Path(_CHECK.value))
  else:
    settings = _settings()
    _summarise(prepare(_find_cases(), _STORE.value, settings))


if __name__ == '__main__':
  run_command(main, required=['dataset', 'root'])
