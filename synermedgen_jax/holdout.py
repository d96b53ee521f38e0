"""Compares evaluations of holdouts: other scanners, other data.

  python -m synermedgen_jax.holdout --runs=runs/holdout

Reads ROOT/HOLDOUT/SYSTEM/evaluation, which `evaluate --output` writes and
launch/holdout.sh makes for phantoms from other scanners or for public datasets
(docs/holdout.md). Writes a Markdown page with SSIM of each system on each
holdout, the accuracy of the tasks, 95 % intervals by bootstrap over subjects
and, if there is a holdout `none`, paired differences from it; a plot of the
differences; and a picture of one slice of every holdout. Text after the line
`<!-- notes -->` is kept when the page is rewritten.
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
  'Folder ROOT of the results, ROOT/HOLDOUT/SYSTEM/evaluation.',
  short_name='i',
)
_SYSTEMS = flags.DEFINE_list(
  'systems', [], 'Names of the systems, in this order. Default: all, by name.'
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Page to write. Default: ROOT/holdout.md.',
  short_name='o',
)
_RESAMPLES = flags.DEFINE_integer(
  'resamples', 2000, 'Number of bootstrap resamples.', lower_bound=1
)
_MODULES = define_modules_flag()


def main() -> None:
  from synermedgen_jax.reporting.holdout_page import write_page

  import_modules(_MODULES.value)
  root = local_path('runs', _RUNS.value)
  page = Path(_OUTPUT.value) if _OUTPUT.value else root / 'holdout.md'
  text = write_page(
    root, page, systems=_SYSTEMS.value, resamples=_RESAMPLES.value
  )
  print(f'{text}\n{page}')


if __name__ == '__main__':
  run_command(main, required=['runs'])
