"""The console script `synermedgen`: one subcommand per command module.

`synermedgen train --workdir=RUN ...` runs `python -m synermedgen_jax.main
--workdir=RUN ...`. Nothing else is imported, so `synermedgen --help` is quick.
"""

import ast
import os
import runpy
import sys
from pathlib import Path

from synermedgen_jax import (
  EXIT_NO_READER,
  __version__,
  interrupt_ends_at_once,
)

# Subcommand: module of the package.
COMMANDS = {
  'prepare': 'prepare',
  'train': 'main',
  'evaluate': 'evaluate',
  'export-tests': 'export_tests',
  'score': 'score',
  'predict': 'predict',
  'report': 'report',
  'compare': 'compare',
  'arena': 'arena',
  'compile': 'compile',
  'import-bagel': 'import_bagel',
  'export-bagel': 'export_bagel',
  'ship-weights': 'ship_weights',
  'pack': 'pack',
  'container': 'container',
}


def main() -> None:
  """Runs the subcommand that the command line names."""
  name, *arguments = sys.argv[1:] or ['--help']
  if name in ('--help', '-h', 'help'):
    _print(_help())
  elif name == '--version':
    _print(f'synermedgen {__version__}')
  elif (command := name.replace('_', '-')) in COMMANDS:
    sys.argv = [f'synermedgen {command}', *arguments]
    interrupt_ends_at_once()
    # As `python -m` runs it: worker processes import it by its own name.
    runpy.run_module(
      f'synermedgen_jax.{COMMANDS[command]}',
      run_name='__main__',
      alter_sys=True,
    )
  else:
    known = ', '.join(COMMANDS)
    sys.exit(f'Error: unknown command {name!r}: expected one of {known}.')


def _print(text: str) -> None:
  try:
    print(text, flush=True)
  except BrokenPipeError:  # as of `synermedgen --help | head -1`
    os._exit(EXIT_NO_READER)


def _help() -> str:
  lines = [f'  {name:<13} {_summary(name)}' for name in COMMANDS]
  return '\n'.join(
    [
      'SynerMedGen in JAX: understand medical images, synthesise modalities.',
      '',
      'Usage: synermedgen COMMAND [--flag=value ...]',
      '       synermedgen COMMAND --help',
      '',
      *lines,
    ]
  )


def _summary(command: str) -> str:
  """The first line of the module's docstring, read without importing it."""
  source = Path(__file__).with_name(f'{COMMANDS[command]}.py')
  docstring = ast.get_docstring(ast.parse(source.read_text('utf-8')))
  return docstring.splitlines()[0]


if __name__ == '__main__':
  main()
