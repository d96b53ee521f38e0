"""Checks volumes on disk and writes a report.

  python -m synermedgen_jax.check -i DIR --dataset=folder --region=brain
  python -m synermedgen_jax.check -i DIR --dataset=flat --region=pelvis \\
      -o REPORT

Inspects every subject as `prepare --check` does: header, unit, position,
alignment and usable slices. Writes REPORT/index.html, prints a summary, and
exits with status 1 if a subject has a problem. Without --dataset, the layout is
the one that the names of the files have, and is printed. With --reader, a model
reads which modality each volume shows.
"""

import sys
from pathlib import Path

from absl import flags

from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.config.volume_flags import (
  define_reader_flag,
  define_volume_flags,
)

_VOLUMES = define_volume_flags()
_READER = define_reader_flag()
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Folder for the report. Default: check-NAME in the current folder, where '
  'NAME is that of --root.',
  short_name='o',
)


def main() -> None:
  from synermedgen_jax.config.cases import with_recognised_dataset
  from synermedgen_jax.reporting.inspection import inspect_volumes

  options = _VOLUMES()
  import_modules(options.modules)
  if not options.dataset:
    options = with_recognised_dataset(options)
  root = Path(options.root[0])
  folder = Path(_OUTPUT.value or f'check-{root.resolve().stem}')
  if not inspect_volumes(folder, options, '--output', _READER.value):
    sys.exit(1)


if __name__ == '__main__':
  run_command(main, required=['root'])
