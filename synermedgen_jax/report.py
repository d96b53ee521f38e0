"""Writes a report of a run: numbers, pictures, curves, settings.

  python -m synermedgen_jax.report --workdir=runs/demo/detail

Reads the results of training and `evaluate` in the workdir, and the training
curves of the stages that it started from. Writes WORKDIR/report/index.html, one
file with a viewer of volumes that needs no network, the scores of subjects as
CSV, and the pictures as PNG files. For a part without results, the page shows
the command that computes it. Prints the tables and the path of the page.
"""

from pathlib import Path

from absl import flags

from synermedgen_jax.config.command_line import (
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import import_modules

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of a trained stage.', short_name='i'
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Folder for the report. Default: WORKDIR/report.',
  short_name='o',
)
_MEGABYTES = flags.DEFINE_float(
  'megabytes',
  40,
  'Size limit of the page in MB. The viewer gets worst cases first, then '
  'median and best ones, as long as the page stays below the limit.',
  lower_bound=0,
)
_MODULES = define_modules_flag()


def main() -> None:
  from synermedgen_jax.reporting.run_report import report, tables

  import_modules(_MODULES.value)
  workdir = local_path('workdir', _WORKDIR.value)
  output = Path(_OUTPUT.value) if _OUTPUT.value else workdir / 'report'
  *others, page = report(workdir, output, _MEGABYTES.value)
  for table in tables(workdir):
    print(f'{table}\n')
  pictures = sum(path.suffix == '.png' for path in others)
  print(f'Pictures: {pictures}\n{page}')


if __name__ == '__main__':
  run_command(main, required=['workdir'])
