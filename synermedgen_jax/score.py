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

from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core.choices import CROPS, SPLITS, VOLUME_SCORES
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import routes_named

_STORE = flags.DEFINE_string(
  'store', None, 'Folder of the slice store whose sources were exported.'
)
_OUTPUTS = flags.DEFINE_string(
  'outputs',
  None,
  'Folder of outputs with exported names, or a JSON Lines file with rows '
  'route, case, slice, file and optionally window, range, crop.',
  short_name='i',
)
_NAME = flags.DEFINE_string('name', None, 'Name of the system in the results.')
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder for the results; not that of a run.',
  short_name='o',
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
  f'{", ".join(VOLUME_SCORES)}. They need --slices=0 and no '
  '--partial. Default: none.',
)
_MODULES = define_modules_flag()


def main() -> None:
  from etils.epath import Path

  from synermedgen_jax.evaluation.external_job import ScoreJob, score_settings

  import_modules(_MODULES.value)
  try:
    routes_named(_ROUTES.value)
  except UserError as error:
    raise UsageError(f'--routes: {error}') from None
  settings = score_settings(
    local_path('outputs', _OUTPUTS.value),
    name=_NAME.value,
    routes=tuple(_ROUTES.value),
    slices=_SLICES.value,
    crop=_CROP.value or '',
    partial=_PARTIAL.value,
    force=_FORCE.value,
    score=tuple(_SCORE.value),
  )
  ScoreJob(
    Path(_WORKDIR.value), _STORE.value, _SPLIT.value, tuple(_MODULES.value)
  ).run(settings)


if __name__ == '__main__':
  run_command(main, required=['store', 'outputs', 'name', 'workdir'])
