"""Measures a trained stage on held-out subjects.

  python -m synermedgen_jax.evaluate --workdir=runs/demo/stage2
  python -m synermedgen_jax.evaluate --workdir=runs/demo/stage1 \\
      --parts=understanding,synthesis
  python -m synermedgen_jax.evaluate --workdir=runs/base \\
      --config=configs/small/stage2.py --config.init_from=weights/small \\
      --config.store=runs/demo/store

Asks the three understanding tasks and, for stages that train synthesis, runs
every route beside its baselines; --parts asks a Stage I to synthesise, too
(zero-shot). --config measures the weights in `config.init_from` without a run,
and WORKDIR only takes the results. --points, --shift, --text_scale,
--image_scale, --interval and --renorm change how the run's config samples.

Writes WORKDIR/evaluation/metrics.json with the definition of every number,
subjects.json (the same per subject, for intervals) and the arrays of a few
slices for `report`, and prints both tables.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from synermedgen_jax.config.command_line import UsageError, run_command
from synermedgen_jax.config.modules import check_imported, import_modules
from synermedgen_jax.evaluation import metrics, routes, subjects, understanding
from synermedgen_jax.evaluation.measure import (
  MeasureError,
  Measurements,
  MeasureSettings,
  measure,
  subject_of,
)
from synermedgen_jax.inference.sampling_flags import define_sampling_flags
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.splits import SPLITS
from synermedgen_jax.slices.store import Case, SliceStore

_WORKDIR = flags.DEFINE_string('workdir', None, 'A stage that was trained.')
_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Instead of a run: measure what config.init_from holds.'
)
_MODULES = flags.DEFINE_list(
  'modules', [], 'Python modules that register what the run was trained with.'
)
_STORE = flags.DEFINE_string(
  'store', None, 'Slice store; the one it was trained on by default.'
)
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Which subjects.')
_PARTS = flags.DEFINE_list(
  'parts', None, 'understanding, synthesis; by default what the stage trained.'
)
_QUESTIONS = flags.DEFINE_integer(
  'questions', 256, 'Questions per task.', lower_bound=1
)
_SLICES = flags.DEFINE_integer(
  'slices', 0, 'Slices per case, evenly spread; 0 = all.', lower_bound=0
)
_ROUTES = flags.DEFINE_list('routes', [], 'Keep these routes; empty = all.')
_SAMPLING = define_sampling_flags()
_SYNTHESISER = flags.DEFINE_string(
  'synthesiser',
  '',
  "Registered model to score; by default the run's own. Its results replace "
  'those of the run in WORKDIR/evaluation.',
)
_SYNTHRAD2023 = flags.DEFINE_bool(
  'synthrad2023',
  False,
  'Score synthetic CTs with the formulas of the SynthRAD2023 challenge, too; '
  'needs --slices=0.',
)
_BATCH = flags.DEFINE_integer(
  'batch_size', 16, 'Rows at a time.', lower_bound=1
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Random seed of question sampling and diffusion noise.'
)


def _settings() -> MeasureSettings:
  try:
    return MeasureSettings(
      parts=tuple(_PARTS.value or ()),
      questions=_QUESTIONS.value,
      slices=_SLICES.value,
      routes=tuple(_ROUTES.value),
      batch_size=_BATCH.value,
      seed=_SEED.value,
      synthesiser=_SYNTHESISER.value,
      synthrad2023=_SYNTHRAD2023.value,
    )
  except MeasureError as error:
    raise UsageError(f'--{error}') from None


def _with_sampling(
  settings: MeasureSettings, trained: Trained
) -> MeasureSettings:
  """The settings with the run's sampling, changed as the flags say."""
  if not trained.config['sampling']:
    return settings
  return dataclasses.replace(settings, sampling=_SAMPLING(trained.sampling))


def _held_out(trained: Trained) -> tuple[SliceStore, tuple[Case, ...]]:
  """The store, and its cases of the split that is measured."""
  path = _STORE.value or trained.config['store']
  if not path:
    raise UsageError(
      f'--store: {_WORKDIR.value} was trained on none; name one.'
    )
  store = SliceStore.open(path)
  cases = store.split(_SPLIT.value)
  if not cases:
    raise UsageError(
      f'{store.path}: has no subject in split {_SPLIT.value!r}; '
      'choose another --split.'
    )
  return store, cases


def _write(
  workdir: Path,
  trained: Trained,
  store: SliceStore,
  cases: tuple[Case, ...],
  found: Measurements,
) -> None:
  """Writes WORKDIR/evaluation and prints the tables; metrics.json is last."""
  out = workdir / 'evaluation'
  result = {
    'split': _SPLIT.value,
    'store': store.path,
    'subjects': sorted({c.id for c in cases}),
    'definition': {},
  }
  by_subject = {
    'version': subjects.VERSION,
    'settings': {
      'split': _SPLIT.value,
      'slices': _SLICES.value,
      'questions': _QUESTIONS.value,
      'seed': _SEED.value,
      'neighbours': trained.config['neighbours'],
    },
    'subjects': {subject_of(case): case.dataset for case in cases},
  }
  if answered := found.understanding:
    result |= answered.scores
    result['definition']['understanding'] = understanding.definitions(
      answered.scores['understanding']
    )
    by_subject['understanding'] = answered.by_subject
    _write_npz(out / 'understanding.npz', {'images': answered.images})
    _write_json(out / 'understanding.json', answered.pictured)
    print('\n' + understanding.understanding_table(answered.scores))
  if synthesised := found.synthesis:
    result |= synthesised.scores
    result['sampling'] = synthesised.sampling
    result['slices'] = _SLICES.value or 'all usable'
    result['definition']['synthesis'] = metrics.definitions()
    if synthesised.synthrad2023:
      result['synthrad2023'] = synthesised.synthrad2023
      result['definition']['synthrad2023'] = metrics.SYNTHRAD2023
    by_subject['synthesis'] = synthesised.by_subject
    for route, arrays in synthesised.panels.items():
      _write_npz(out / 'panels' / f'{route}.npz', arrays)
    print('\n' + routes.route_table(result))
    for route, score in synthesised.synthrad2023.items():
      print(
        f'{route} by SynthRAD2023: MAE {score["mae"]:.1f} HU, PSNR '
        f'{score["psnr"]:.2f} dB, SSIM {score["ssim"]:.4f}'
      )
  _write_json(workdir / subjects.FILE, by_subject)
  _write_json(out / 'metrics.json', result)
  print(f'\nMetrics: {out / "metrics.json"}')


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.partial.npz')
  np.savez(partial, **arrays)
  os.replace(partial, path)


def _write_json(path: Path, value) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.partial')
  partial.write_text(json.dumps(value, indent=2) + '\n')
  os.replace(partial, path)


def main() -> None:
  config = _CONFIG.value
  import_modules((*_MODULES.value, *(config.modules if config else ())))
  settings = _settings()
  trained = (
    Trained.from_config(config) if config else Trained.load(_WORKDIR.value)
  )
  check_imported(trained.config.get('modules', ()), _WORKDIR.value)
  settings = _with_sampling(settings, trained)
  store, cases = _held_out(trained)
  found = measure(trained, store, cases, settings)
  _write(Path(_WORKDIR.value), trained, store, cases, found)


if __name__ == '__main__':
  run_command(main, required=['workdir'])
