"""Scores outputs that another program made for held-out sources.

  python -m synermedgen_jax.score --store=runs/demo/store \\
      --outputs=healthgpt/images --name=HealthGPT --workdir=runs/all/0/healthgpt

Reads NIfTI or MetaImage volumes on any grid, or PNG, JPEG or NPY slices, with
the names that `export_tests` gives, or as a table lists them
(--outputs=FILE.jsonl). Undoes colour, crop, size, 8-bit levels and another
grid, and prints how many files each of these steps concerns. Refuses missing
slices, turned, mirrored or cropped images and values in a wrong unit. See
docs/external.md.

Writes WORKDIR/evaluation/ as `evaluate` does, for `report` and `compare`; its
metrics.json has the steps under `outputs`.
"""

import json
from collections.abc import Iterator

from absl import flags
from etils.epath import Path

from synermedgen_jax import __version__
from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import routes_named
from synermedgen_jax.evaluation import volume_scores
from synermedgen_jax.evaluation.external import Scored, ScoreSettings, score
from synermedgen_jax.evaluation.output_files import CROPS, OutputError
from synermedgen_jax.evaluation.results import (
  EXTERNAL,
  Measurements,
  write_results,
)
from synermedgen_jax.evaluation.routes import route_table
from synermedgen_jax.slices.splits import SPLITS
from synermedgen_jax.slices.store import SliceStore

_STORE = flags.DEFINE_string(
  'store', None, 'Folder of the slice store whose sources were exported.'
)
_OUTPUTS = flags.DEFINE_string(
  'outputs',
  None,
  'Folder of outputs with exported names, or a JSON Lines file with rows '
  'route, case, slice, file and optionally window, range, crop.',
)
_NAME = flags.DEFINE_string('name', None, 'Name of the system in the results.')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder for the results; not that of a run.'
)
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Split of the subjects.')
_ROUTES = flags.DEFINE_list(
  'routes',
  [],
  'Names of the routes to score, with one source or several as in '
  'brats_t1+t2_to_flair. Default: all with one source.',
)
_SLICES = flags.DEFINE_integer(
  'slices',
  0,
  'Slices per case, evenly spaced, as exported; 0 = all usable ones, which '
  'the metrics ssim_3d and roughness_z need.',
  lower_bound=0,
)
_CROP = flags.DEFINE_enum(
  'crop',
  None,
  CROPS,
  'Pictures were cropped to their non-black box: pad them by the box of the '
  'source or of the target.',
)
_PARTIAL = flags.DEFINE_bool(
  'partial', False, 'Score the slices that have an output, and count them.'
)
_FORCE = flags.DEFINE_bool(
  'force',
  False,
  'Accept values that appear to be in another unit, and images that appear '
  'turned, mirrored, cropped or padded.',
)
_SCORE = flags.DEFINE_list(
  'score',
  [],
  'Scores of whole volumes to add: '
  f'{", ".join(volume_scores.VOLUME_SCORES)}. They need --slices=0 and no '
  '--partial. Default: none.',
)
_MODULES = define_modules_flag()


def _settings() -> ScoreSettings:
  try:
    routes_named(_ROUTES.value)
  except UserError as error:
    raise UsageError(f'--routes: {error}') from None
  outputs = local_path('outputs', _OUTPUTS.value)
  try:
    return ScoreSettings(
      outputs,
      name=_NAME.value,
      routes=tuple(_ROUTES.value),
      slices=_SLICES.value,
      crop=_CROP.value or '',
      partial=_PARTIAL.value,
      force=_FORCE.value,
      score=tuple(_SCORE.value),
    )
  except OutputError as error:
    raise UsageError(f'--{error}') from None


def _check_workdir(workdir: Path) -> None:
  """Refuses a folder with files, unless they are results of `score`.

  A system that is trained per pair has its config.json in folders of routes.
  """
  if not workdir.exists() or (workdir.is_dir() and not any(workdir.iterdir())):
    return
  try:
    record = json.loads((workdir / 'config.json').read_bytes())
    stage = record['config']['stage']
  except (OSError, ValueError, KeyError, TypeError):
    stage = ''  # no file of `score`
  if stage != EXTERNAL:
    raise UsageError(
      f'--workdir: {workdir} holds other files than results of score; name '
      f'another folder for the results of {_NAME.value}.'
    )


def _write(workdir: Path, store: SliceStore, cases, scored: Scored) -> None:
  """Writes the results and prints them."""
  config = {
    'stage': EXTERNAL,
    'init_from': '',
    'system': _NAME.value,
    'modules': _MODULES.value,
  }
  versions = {'synermedgen-jax': __version__}
  # First, so that the folder of an interrupted command is accepted again.
  files.write_json(
    workdir / 'config.json', {'config': config, 'versions': versions}
  )
  result = write_results(
    workdir,
    store,
    cases,
    Measurements(None, scored.synthesis),
    {'split': _SPLIT.value, 'slices': scored.slices},
    outputs=scored.record,
  )
  print('\n' + route_table(result))
  for line in volume_scores.lines(scored.synthesis.volume_scores):
    print(line)
  print('\n' + '\n'.join(_lines(scored)))
  print(f'\nMetrics: {workdir / "evaluation" / "metrics.json"}')


def _lines(scored: Scored) -> Iterator[str]:
  """What was scored, and what was undone before it."""
  record = scored.record
  yield f'{record["name"]}: {record["slices"]} of {record["of"]} slices scored.'
  steps = [f'{k} {v}' for k, v in record['steps'].items() if v]
  yield f'Read: {", ".join(steps)}.'
  if record['crop']:
    yield f'Crops undone by the box of the {record["crop"]}.'
  if record['force']:
    forced = record['steps']['forced']
    yield f'Scored with --force: {forced} refusals overridden.'


def main() -> None:
  import_modules(_MODULES.value)
  settings = _settings()
  workdir = Path(_WORKDIR.value)
  _check_workdir(workdir)
  store = SliceStore.open(_STORE.value)
  cases = store.split(_SPLIT.value)
  _write(workdir, store, cases, score(store, cases, settings))


if __name__ == '__main__':
  run_command(main, required=['store', 'outputs', 'name', 'workdir'])
