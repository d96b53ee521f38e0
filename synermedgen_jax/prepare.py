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

`phantom` first writes digital phantoms into --root; with --shift, other ones
from other scanners, for a holdout (docs/holdout.md). `folder` reads
DIR/<subject>/<modality>.nii.gz, `flat` DIR/<subject>_<modality>.nii.gz,
`nnunet` imagesTr and dataset.json, `bids` sub-*/anat, and `csv` a table. Public
datasets are read in their downloaded layout. docs/data.md describes all
layouts; for another one, --draft writes a table to complete.

After an interruption, the same command resumes where it stopped. On a finished
store it changes nothing. With --part=K/N, N commands on any number of machines
fill one store.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from synermedgen_jax.config.command_line import UsageError, run_command
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.config.volume_flags import (
  OF_SLICES,
  VolumeOptions,
  define_reader_flag,
  define_volume_flags,
)

if TYPE_CHECKING:
  from synermedgen_jax.slices.ingest import Settings

_VOLUMES = define_volume_flags()
_READER = define_reader_flag()
_STORE = flags.DEFINE_string(
  'store',
  None,
  'Folder of the store, or an address such as gs://BUCKET/STORE.',
  short_name='o',
)
_VAL = flags.DEFINE_float('val', 0.1, 'Share of subjects for validation.')
_TEST = flags.DEFINE_float('test', 0.15, 'Share of subjects for testing.')
_HOLDOUT = flags.DEFINE_bool(
  'holdout', False, 'All subjects go to the split `holdout`.'
)
_LIKE = flags.DEFINE_string(
  'like',
  None,
  'Workdir of a trained run, whose canvas, plane, frame and windows the slices '
  'get, such as those of a holdout. Default: those of the flags.',
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


def _draft(table: Path) -> None:
  """Writes a table of all volumes below --root."""
  from synermedgen_jax.config.cases import region_of
  from synermedgen_jax.slices.drafts import write_draft

  options = _VOLUMES()
  draft = write_draft(Path(','.join(options.root)), table, region_of(options))
  print(
    f'{len(draft.rows)} volumes, {draft.incomplete} without a subject or a '
    'modality. Complete or delete these lines, then run prepare with '
    f'--dataset=csv --root={table}.\n{table}'
  )


def _ingest_settings(options: VolumeOptions) -> Settings:
  """The settings of the flags, with the slices of the run in --like."""
  from synermedgen_jax.config.cases import ingest_settings

  settings = ingest_settings(options)
  if not _LIKE.value:
    return settings
  from synermedgen_jax.inference.workdir import RunRecord

  own = [f'--{n}' for n in OF_SLICES if flags.FLAGS[n].present]
  if own:
    raise UsageError(
      f'{", ".join(own)}: --like={_LIKE.value} has its own; leave out one or '
      'the other.'
    )
  slices = RunRecord.load(_LIKE.value).slices
  return dataclasses.replace(settings, slices=slices)


def _prepare(store: str) -> None:
  """Writes the cases of --part, and the store if none is missing."""
  from synermedgen_jax.config.cases import find_cases
  from synermedgen_jax.slices import prepare_store
  from synermedgen_jax.slices.store_files import check_folder

  check_folder(store, '--store')
  options = _VOLUMES()
  if options.shift and not _HOLDOUT.value:
    raise UsageError(
      f'--shift={options.shift}: makes phantoms to test on; add --holdout.'
    )
  settings = prepare_store.PrepareSettings(
    _ingest_settings(options),
    dataset=','.join(options.dataset or ()),
    shift=options.shift or '',
    val=_VAL.value,
    test=_TEST.value,
    holdout=_HOLDOUT.value,
    seed=options.seed,
    workers=options.workers,
    skip_bad=_SKIP_BAD.value,
    modules=tuple(options.modules),
  )
  listing = find_cases(options)
  try:
    part = prepare_store.Part.parse(_PART.value)
  except ValueError as error:
    raise UsageError(f'--part: {error}') from None
  cases = listing.cases if _SKIP_BAD.value else listing.all_cases()
  for fault in listing.faults:
    name = f'{fault.case}: ' if fault.case else ''
    print(f'Skipped {name}{fault.problem}', file=sys.stderr)
  missing = prepare_store.prepare_part(cases, store, settings, part)
  print(prepare_store.summary(store, [c.id for c in cases], part, missing))


def main() -> None:
  import_modules(_VOLUMES().modules)
  if _READER.value and not _CHECK.value:
    raise UsageError('--reader: has no effect without --check.')
  if _LIKE.value and (_CHECK.value or _DRAFT.value):
    raise UsageError('--like: has an effect on --store alone; leave it out.')
  if _DRAFT.value:
    _draft(Path(_DRAFT.value))
  elif _CHECK.value:
    from synermedgen_jax.reporting.inspection import inspect_volumes

    folder = Path(_CHECK.value)
    if not inspect_volumes(folder, _VOLUMES(), '--check', _READER.value):
      sys.exit(1)
  elif _STORE.value:
    _prepare(_STORE.value)
  else:
    raise UsageError('--store or --check: name the folder of the result.')


if __name__ == '__main__':
  run_command(main, required=['root'])
