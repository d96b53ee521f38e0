"""The console script `synermedgen`: one subcommand per command module.

`synermedgen train --workdir=RUN ...` runs `python -m synermedgen_jax.main
--workdir=RUN ...`. Nothing else is imported, so `synermedgen --help` is quick.
"""

import ast
import difflib
import os
import runpy
import sys
from pathlib import Path

from synermedgen_jax import (
  EXIT_NO_READER,
  __version__,
  interrupt_ends_at_once,
)

# Subcommand -> module of the package, or the modules of its second words.
# First those of a job, in its order.
JOB = {
  'check': 'check',
  'prepare': 'prepare',
  'train': 'main',
  'evaluate': 'evaluate',
  'predict': 'predict',
  'app': 'app',
  'report': 'report',
  'export': {
    'bagel': 'export_bagel',
    'tests': 'export_tests',
    'weights': 'ship_weights',
  },
}
FURTHER = {
  'compare': 'compare',
  'holdout': 'holdout',
  'arena': 'arena',
  'score': 'score',
  'compile': 'compile',
  'import-bagel': 'import_bagel',
  'export-bagel': 'export_bagel',
  'export-tests': 'export_tests',
  'ship-weights': 'ship_weights',
  'pack': 'pack',
  'container': 'container',
  'translate': 'translate',
}
COMMANDS = JOB | FURTHER
EXAMPLE = """\
  synermedgen prepare -i DIR --dataset=folder --region=brain -o STORE
  synermedgen train --config=configs/small/stage2.py --config.store=STORE \\
      --config.init_from=weights/small --workdir=RUN
  synermedgen evaluate --workdir=RUN
  synermedgen predict --workdir=RUN -i mr.nii.gz --source=mr --target=ct \\
      --region=brain -o ct.nii.gz
  synermedgen report -i RUN"""


def main() -> None:
  """Runs the subcommand that the command line names."""
  name, *arguments = sys.argv[1:] or ['--help']
  if name in ('--help', '-h', 'help'):
    _print(_help())
    return
  if name == '--version':
    _print(f'synermedgen {__version__}')
    return
  command = name.replace('_', '-')
  module = COMMANDS.get(command)
  if isinstance(module, dict):
    second, *arguments = arguments or ['--help']
    if second in ('--help', '-h'):
      _print(_group_help(command, module))
      return
    command = name = f'{command} {second}'
    module = module.get(second)
  if module is None:
    sys.exit(_unknown(name))
  sys.argv = [f'synermedgen {command}', *arguments]
  interrupt_ends_at_once()
  # As `python -m` runs it: worker processes import it by its own name.
  runpy.run_module(
    f'synermedgen_jax.{module}', run_name='__main__', alter_sys=True
  )


def _unknown(name: str) -> str:
  """The error for an unknown name, with the nearest known one."""
  known = list(COMMANDS)
  if ' ' in name:
    group = name.split()[0]
    known = [f'{group} {second}' for second in COMMANDS[group]]
  near = difflib.get_close_matches(name, known, 1)
  if near:
    return f'Error: unknown command {name!r}; did you mean {near[0]}?'
  return f'Error: unknown command {name!r}: expected one of {", ".join(known)}.'


def _print(text: str) -> None:
  try:
    print(text, flush=True)
  except BrokenPipeError:  # as of `synermedgen --help | head -1`
    os._exit(EXIT_NO_READER)


def _help() -> str:
  return '\n'.join(
    [
      'SynerMedGen in JAX: understand medical images, synthesise modalities.',
      '',
      'Usage: synermedgen COMMAND [--flag=value ...]',
      '       synermedgen COMMAND --help',
      '',
      'The commands of a job, in its order:',
      *(_line(*row) for row in JOB.items()),
      '',
      'Further commands:',
      *(_line(*row) for row in FURTHER.items()),
      '',
      'A complete job:',
      EXAMPLE,
    ]
  )


def _group_help(group: str, modules: dict[str, str]) -> str:
  return '\n'.join(
    [
      f'Usage: synermedgen {group} {"|".join(modules)} [--flag=value ...]',
      '',
      *(f'  {word:<8} {_summary(name)}' for word, name in modules.items()),
    ]
  )


def _line(name: str, module: str | dict[str, str]) -> str:
  if isinstance(module, dict):
    return f'  {name:<13} Writes {", ".join(module)} for other programs.'
  return f'  {name:<13} {_summary(module)}'


def _summary(module: str) -> str:
  """The first line of the module's docstring, read without importing it."""
  source = Path(__file__).with_name(f'{module}.py')
  docstring = ast.get_docstring(ast.parse(source.read_text('utf-8')))
  return docstring.splitlines()[0]


if __name__ == '__main__':
  main()
