"""Measures a trained stage on held-out subjects.

  python -m synermedgen_jax.evaluate --workdir=runs/demo/detail
  python -m synermedgen_jax.evaluate --workdir=runs/demo/stage1 \\
      --parts=understanding,synthesis
  python -m synermedgen_jax.evaluate --workdir=runs/base \\
      --config=configs/small/stage2.py --config.init_from=weights/small \\
      --config.store=runs/demo/store

Asks questions of the understanding tasks and, if the stage trains synthesis,
synthesises every route and scores it and its baselines. --parts also measures
synthesis of a Stage I model (zero-shot). With --config, the weights in
`config.init_from` are measured and WORKDIR only receives the results. --points,
--shift, --slab, --draws, --grain, --text_scale, --image_scale, --interval and
--renorm override the sampling of the run's config. With --describe_first, the
model writes a text about each source slice before it synthesises.

Writes WORKDIR/evaluation/:

* metrics.json: means per task and route, of the model and the baselines, in the
  body mask and over the full frame; intervals over subjects and wins; sampling;
  the definition of every number; metrics that were left out, since the slices
  are not adjacent;
* subjects.json: the same scores per subject, in the body mask, and every answer
  (`evaluation/subjects.py`);
* understanding.json and understanding.npz: texts and images of a few questions;
* panels/ROUTE.npz: sources, synthesis, truth and mask of three slices;
* volumes/ROUTE/KIND.npz: those of all slices of the worst, median and best
  subject (`evaluation/volume_files.py`), with --slices=0 or --volumes.

`report` and `compare` read them. Prints a table of tasks and one of routes.

  python -m synermedgen_jax.evaluate --workdir=RUN/stage1 \\
      --questions_file=QUESTIONS.jsonl --images=IMAGES

With --questions_file, only the questions of that file are asked, without a
store: those of SynerMedGen's release, of a reference image and four options
(`interop/choice_jsonl.py`). Prints accuracy per pair of modalities and a
confusion table; WORKDIR/evaluation/questions/ gets them as metrics.json, and
every answer as answers.json.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

from absl import flags
from etils.epath import Path
from ml_collections import config_flags

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import check_imported, import_modules
from synermedgen_jax.evaluation import (
  choices,
  routes,
  understanding,
  volume_files,
  volume_scores,
)
from synermedgen_jax.evaluation.measure import (
  MeasureError,
  MeasureSettings,
  measure,
  measured_parts,
)
from synermedgen_jax.evaluation.results import Measurements, write_results
from synermedgen_jax.inference.sampling_flags import define_sampling_flags
from synermedgen_jax.inference.trained_system import load_system
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.interop.choice_jsonl import Choice, read_choices
from synermedgen_jax.slices.splits import SPLITS
from synermedgen_jax.slices.store import Case, SliceStore

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of a trained stage; results are written into it.'
)
_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'Config file. With it, the weights in config.init_from are measured instead '
  'of a checkpoint in WORKDIR.',
)
_MODULES = define_modules_flag()
_STORE = flags.DEFINE_string(
  'store', None, 'Folder of the slice store. Default: the store of the run.'
)
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Split of the subjects.')
_PARTS = flags.DEFINE_list(
  'parts',
  None,
  'Parts to measure: understanding, synthesis. Default: those that the stage '
  'trains.',
)
_QUESTIONS = flags.DEFINE_integer(
  'questions', 256, 'Maximum number of questions per task.', lower_bound=1
)
_QUESTIONS_FILE = flags.DEFINE_string(
  'questions_file',
  '',
  'JSONL file of questions with a reference image and four options, to ask '
  'instead of those of the tasks.',
)
_IMAGES = flags.DEFINE_string(
  'images',
  '',
  'Folder that the paths in --questions_file are relative to. Default: the '
  'folder of that file.',
)
_SLICES = flags.DEFINE_integer(
  'slices',
  0,
  'Slices per case, evenly spaced; 0 = all usable ones, which the metrics '
  'ssim_3d and roughness_z need.',
  lower_bound=0,
)
_ROUTES = flags.DEFINE_list(
  'routes',
  [],
  'Names of the routes to synthesise, with one source or several as in '
  'brats_t1+t2_to_flair. Default: all with one source.',
)
_SAMPLING = define_sampling_flags()
_SYNTHESISER = flags.DEFINE_string(
  'synthesiser',
  '',
  'Name of a registered model to score instead of the model of the run. Its '
  'results replace those of the run in WORKDIR/evaluation.',
)
_SCORE = flags.DEFINE_list(
  'score',
  [],
  'Scores of whole volumes to add: '
  f'{", ".join(volume_scores.VOLUME_SCORES)}. They need --slices=0. Default: '
  'none.',
)
_VOLUMES = flags.DEFINE_bool(
  'volumes',
  False,
  'With --slices above 0, synthesise all slices of the worst, median and best '
  'subject of every route afterwards and write their volumes. --slices=0 '
  'writes them always.',
)
_BATCH = flags.DEFINE_integer(
  'batch_size', 16, 'Questions or slices per batch.', lower_bound=1
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'Random seed of question sampling and diffusion noise.'
)


# Flags of questions and slices from a store.
_OF_STORE = (
  *(_STORE, _SPLIT, _PARTS, _QUESTIONS, _SLICES, _ROUTES),
  *(_SYNTHESISER, _SCORE, _VOLUMES, _SEED),
)


def _questions() -> list[Choice]:
  """The questions of --questions_file; [] without it."""
  if not _QUESTIONS_FILE.value:
    if _IMAGES.value:
      raise UsageError('--images: has no effect without --questions_file.')
    return []
  _SAMPLING.refuse('--questions_file synthesises no slice')
  if given := [f'--{flag.name}' for flag in _OF_STORE if flag.present]:
    raise UsageError(
      f'{", ".join(given)}: not for --questions_file, which asks all questions '
      'of the file and reads no store; leave out one or the other.'
    )
  return read_choices(
    local_path('questions_file', _QUESTIONS_FILE.value),
    local_path('images', _IMAGES.value) if _IMAGES.value else None,
  )


def _ask(trained: Trained, questions: Sequence[Choice]) -> None:
  """Asks the questions of a file, prints and writes the scores."""
  if trained.config['stage'] in SYSTEMS:
    raise UsageError(
      f'--questions_file: {trained.title} answers no questions; name a run of '
      'Stage I or of joint training.'
    )
  records = choices.ask(trained, questions, batch_size=_BATCH.value)
  scores = choices.score(records)
  path = choices.write(
    Path(_WORKDIR.value), _QUESTIONS_FILE.value, records, scores
  )
  print(f'\n{choices.table(scores)}\n\nMetrics: {path}')


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
      score=tuple(_SCORE.value),
    )
  except MeasureError as error:
    raise UsageError(f'--{error}') from None


def _with_sampling(
  settings: MeasureSettings, trained: Trained
) -> MeasureSettings:
  """Adds the sampling of the run, with the overrides of the flags.

  Refuses such flags where they have no effect.
  """
  stage = trained.config['stage']
  if stage in SYSTEMS:
    _SAMPLING.refuse(f'{trained.title} samples as it was trained')
  elif 'synthesis' not in measured_parts(trained, settings):
    _SAMPLING.refuse('no slice is synthesised')
  elif settings.synthesiser:
    _SAMPLING.refuse(f'{settings.synthesiser} synthesises in its own way')
  else:
    sampling = _SAMPLING.apply(trained.sampling)
    return dataclasses.replace(settings, sampling=sampling)
  return settings


def _check_questions(trained: Trained, settings: MeasureSettings) -> None:
  """Refuses --questions where none is asked."""
  if _QUESTIONS.present and 'understanding' not in measured_parts(
    trained, settings
  ):
    raise UsageError(
      '--questions: has no effect, since only synthesis is measured; leave it '
      'out.'
    )


def _volumes(
  trained: Trained, settings: MeasureSettings
) -> contextlib.AbstractContextManager[volume_files.VolumeFiles | None]:
  """Where volumes are collected; None if none are written."""
  if 'synthesis' not in measured_parts(trained, settings):
    if _VOLUMES.value:
      raise UsageError(
        '--volumes: has no effect, since no slice is synthesised; leave it out.'
      )
    return contextlib.nullcontext()
  if _SLICES.value and not _VOLUMES.value:
    return contextlib.nullcontext()
  return volume_files.collect_volumes(Path(_WORKDIR.value))


def _held_out(trained: Trained) -> tuple[SliceStore, tuple[Case, ...]]:
  """Returns the store and its cases of the split to measure."""
  path = _STORE.value or trained.config['store']
  if not path:
    raise UsageError(
      f'--store: {_WORKDIR.value} was trained without a store; name one.'
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
  measured: Measurements,
  volumes: volume_files.VolumeFiles | None,
) -> None:
  """Writes WORKDIR/evaluation and prints the tables."""
  settings = {
    'split': _SPLIT.value,
    'slices': _SLICES.value,
    'questions': _QUESTIONS.value,
    'seed': _SEED.value,
    'neighbours': trained.config.get('neighbours', 3),
    'steps': list(trained.steps),
  }
  result = write_results(
    workdir, store, cases, measured, settings, volumes=volumes
  )
  if answered := measured.understanding:
    print('\n' + understanding.understanding_table(answered.scores))
  if synthesised := measured.synthesis:
    print('\n' + routes.route_table(result))
    for line in volume_scores.lines(synthesised.volume_scores):
      print(line)
  print(f'\nMetrics: {workdir / "evaluation" / "metrics.json"}')


def main() -> None:
  config = _CONFIG.value
  import_modules((*_MODULES.value, *(config.modules if config else ())))
  settings = _settings()
  questions = _questions()
  if config:
    trained = Trained.from_config(config)
  else:
    trained = load_system(_WORKDIR.value) or Trained.load(_WORKDIR.value)
  check_imported(trained.config.get('modules', ()), _WORKDIR.value)
  if questions:
    _ask(trained, questions)
    return
  settings = _with_sampling(settings, trained)
  _check_questions(trained, settings)
  store, cases = _held_out(trained)
  with _volumes(trained, settings) as volumes:
    measured = measure(trained, store, cases, settings, volumes)
    _write(Path(_WORKDIR.value), trained, store, cases, measured, volumes)


if __name__ == '__main__':
  run_command(main, required=['workdir'])
