"""Writes a report of a run: numbers, pictures, curves, settings.

  python -m synermedgen_jax.report --workdir=runs/demo/detail

Reads the results of training and `evaluate` in the workdir, and the training
curves of the stages that it started from. Writes WORKDIR/report/index.html, one
file with embedded pictures, and the pictures as PNG files. For a part without
results, the page shows the command that computes it. Prints the tables and the
paths of the files.
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
_MODULES = define_modules_flag()


def main() -> None:
  from synermedgen_jax.reporting.run_report import report, tables

  import_modules(_MODULES.value)
  workdir = local_path('workdir', _WORKDIR.value)
  output = Path(_OUTPUT.value) if _OUTPUT.value else workdir / 'report'
  *pictures, page = report(workdir, output)
  for table in tables(workdir):
    print(f'{table}\n')
  print(f'Pictures: {len(pictures)}\n{page}')


if __name__ == '__main__':
  run_command(main, required=['workdir'])
