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
--shift, --slab, --draws, --grain, --withheld, --text_scale, --image_scale,
--interval and --renorm override the sampling of the run's config. With
--describe_first, the model writes a text about each source slice before it
synthesises. --adherence adds scores of drift, control, direction and use of
conditions.

Writes WORKDIR/evaluation/, or OUTPUT/evaluation/ with --output:

* metrics.json: means per task and route, of the model and the baselines, in the
  body mask and over the full frame; intervals over subjects and wins; sampling;
  the definition of every number; metrics that were left out, since the slices
  are not adjacent;
* subjects.json: the same scores per subject, in the body mask, and every answer
  (`evaluation/subjects.py`);
* understanding.json and understanding.npz: texts and images of a few questions;
* panels/ROUTE.npz: sources, synthesis, truth and mask of three slices;
* volumes/ROUTE/KIND.npz: those of all slices of the worst, median and best
  subject (`evaluation/volume_files.py`), with --slices=0 or --volumes;
* uncertainty.json: with --intervals, the factor, coverage and width of the
  90 % interval of every route, which `predict --intervals` then writes.

`report` and `compare` read them. Prints a table of tasks and one of routes.

  python -m synermedgen_jax.evaluate --workdir=RUN/stage1 \\
      --questions_file=QUESTIONS.jsonl --images=IMAGES

With --questions_file, only the questions of that file are asked, without a
store: those of SynerMedGen's release, of a reference image and four options
(`interop/choice_jsonl.py`). Prints accuracy per pair of modalities and a
confusion table; WORKDIR/evaluation/questions/ gets them as metrics.json, and
every answer as answers.json.
"""

from absl import flags
from ml_collections import config_flags

from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core.choices import ADHERENCE, SPLITS, VOLUME_SCORES
from synermedgen_jax.inference.sampling_flags import define_sampling_flags

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of a trained stage; results are written into it.'
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Folder in the place of WORKDIR for the results, such as those of a holdout.',
  short_name='o',
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
  f'{", ".join(VOLUME_SCORES)}. They need --slices=0. Default: '
  'none.',
)
_ADHERENCE = flags.DEFINE_list(
  'adherence',
  [],
  'Scores of adherence to add (docs/adherence.md): '
  f'{", ".join(ADHERENCE)}. Default: none.',
)
_VOLUMES = flags.DEFINE_bool(
  'volumes',
  False,
  'With --slices above 0, synthesise all slices of the worst, median and best '
  'subject of every route afterwards and write their volumes. --slices=0 '
  'writes them always.',
)
_INTERVALS = flags.DEFINE_bool(
  'intervals',
  False,
  'Calibrate intervals of the synthesised values on the validation subjects of '
  'the store, and measure how many voxels of the --split they cover. Every '
  'slice of both splits is synthesised --interval_draws times.',
)
_INTERVAL_DRAWS = flags.DEFINE_integer(
  'interval_draws',
  8,
  'Number of draws whose deviation gives the width of an interval.',
  lower_bound=2,
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
  *(_SYNTHESISER, _SCORE, _ADHERENCE, _VOLUMES, _SEED),
  *(_INTERVALS, _INTERVAL_DRAWS),
)


def _check_questions_file() -> None:
  """Refuses flags that have no effect with, or without, --questions_file."""
  if not _QUESTIONS_FILE.value:
    if _IMAGES.value:
      raise UsageError('--images: has no effect without --questions_file.')
    return
  _SAMPLING.refuse('--questions_file synthesises no slice')
  if given := [f'--{flag.name}' for flag in _OF_STORE if flag.present]:
    raise UsageError(
      f'{", ".join(given)}: not for --questions_file, which asks all questions '
      'of the file and reads no store; leave out one or the other.'
    )


def main() -> None:
  from etils.epath import Path

  from synermedgen_jax.evaluation import job
  from synermedgen_jax.interop.choice_jsonl import read_choices

  if _INTERVAL_DRAWS.present and not _INTERVALS.value:
    raise UsageError('--interval_draws: has no effect without --intervals.')
  config = _CONFIG.value
  output = Path(_OUTPUT.value or _WORKDIR.value)
  import_modules((*_MODULES.value, *(config.modules if config else ())))
  settings = job.measure_settings(
    parts=tuple(_PARTS.value or ()),
    questions=_QUESTIONS.value,
    slices=_SLICES.value,
    routes=tuple(_ROUTES.value),
    batch_size=_BATCH.value,
    seed=_SEED.value,
    synthesiser=_SYNTHESISER.value,
    score=tuple(_SCORE.value),
    adherence=tuple(_ADHERENCE.value),
    interval_draws=_INTERVAL_DRAWS.value if _INTERVALS.value else 0,
  )
  _check_questions_file()
  if file := _QUESTIONS_FILE.value:
    questions = read_choices(
      local_path('questions_file', file),
      local_path('images', _IMAGES.value) if _IMAGES.value else None,
    )
    trained = job.load(_WORKDIR.value, config)
    job.ask(trained, questions, output, file=file, batch_size=_BATCH.value)
    return
  job.Job(
    output,
    store=_STORE.value or '',
    split=_SPLIT.value,
    settings=settings,
    sampling=_SAMPLING,
    asks=_QUESTIONS.present,
    volumes=_VOLUMES.value,
    reports=not _OUTPUT.value,
  ).run(job.load(_WORKDIR.value, config))


if __name__ == '__main__':
  run_command(main, required=['workdir'])
