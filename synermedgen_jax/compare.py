"""Compares evaluated runs, arms x seeds, with bootstrap intervals.

  python -m synermedgen_jax.compare --runs=runs/ablations/dropout \\
      --study=projects/ablations/study.json

Reads ROOT/SEED/ARM/evaluation/subjects.json, which `evaluate` writes. Writes a
Markdown page and a PNG plot with the mean SSIM and accuracy of each arm, the
scores of volumes that --score added to its evaluation, 95 % intervals by
bootstrap over subjects, paired differences from the reference arm, baselines,
and published figures. Arms without an evaluation are listed as not run. Text
after the line `<!-- notes -->` is kept when the page is rewritten.
"""

from pathlib import Path

from absl import flags

from synermedgen_jax.config.command_line import (
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import import_modules

_RUNS = flags.DEFINE_string(
  'runs',
  None,
  'Folder ROOT of the workdirs ROOT/SEED/ARM.',
  short_name='i',
)
_STUDY = flags.DEFINE_string(
  'study',
  None,
  'JSON file with the titles and order of the arms, the reference arm and '
  'published figures. Default: all workdirs in alphabetical order.',
)
_ARMS = flags.DEFINE_list(
  'arms', [], 'Names of the arms to compare, in this order. Default: all.'
)
_REFERENCE = flags.DEFINE_string(
  'reference',
  None,
  'Name of the arm that differences are taken from. Default: that of --study.',
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Page to write. Default: ROOT/comparison.md.',
  short_name='o',
)
_PLOT = flags.DEFINE_string(
  'plot', None, 'Plot to write. Default: the path of the page with suffix .png.'
)
_RESAMPLES = flags.DEFINE_integer(
  'resamples', 2000, 'Number of bootstrap resamples.', lower_bound=1
)
_MODULES = define_modules_flag()


def main() -> None:
  from synermedgen_jax.reporting.run_comparison import compare_runs

  import_modules(_MODULES.value)
  root = local_path('runs', _RUNS.value)
  page = Path(_OUTPUT.value) if _OUTPUT.value else root / 'comparison.md'
  plot = Path(_PLOT.value) if _PLOT.value else page.with_suffix('.png')
  text = compare_runs(
    root,
    page,
    plot,
    study_file=Path(_STUDY.value) if _STUDY.value else None,
    arms=_ARMS.value,
    reference=_REFERENCE.value or '',
    resamples=_RESAMPLES.value,
  )
  print(f'{text}\n{plot}\n{page}')


if __name__ == '__main__':
  run_command(main, required=['runs'])
