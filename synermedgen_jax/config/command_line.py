"""Runs a command: flags, --help, error lines and exit codes."""

import contextlib
import importlib.util
import os
import runpy
import select
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from synermedgen_jax import (
  EXIT_INTERRUPTED,
  EXIT_NO_READER,
  interrupt_raises,
)
from synermedgen_jax.config.failures import describe
from synermedgen_jax.core.errors import UserError

_HELP = {'--help', '-help', '--helpshort', '-helpshort', '-h', '-?'}


flags.disclaim_key_flags()  # they belong to the command that defines them


class UsageError(UserError):
  """Flags that contradict each other or the data; one line names the flag."""


def define_modules_flag() -> flags.FlagHolder[list[str]]:
  """Defines --modules, for commands that read runs of a project."""
  return flags.DEFINE_list(
    'modules',
    [],
    'Python modules to import, which register the tasks, objectives, '
    'modalities and metrics of the run. Default: none.',
  )


def local_path(flag: str, value: str) -> Path:
  """The path of a flag; refuses an address such as gs://BUCKET/RUN.

  Raises:
    UsageError: the value is an address.
  """
  if '://' in value:
    raise UsageError(
      f'--{flag} {value}: this command reads and writes local folders only; '
      'copy the files first.'
    )
  return Path(value)


def run_command(
  command: Callable[[], None],
  *,
  required: Sequence[str] = (),
  unless: str = '',
  more: Callable[[], str] = str,
) -> None:
  """Parses the flags of `__main__`, runs `command`, and exits.

  Exit codes: 0; 1 after one line `Error: ...` for an error of the user or of
  the machine (`failures.describe`), whose traceback --verbosity=0 shows; 130
  after Ctrl-C; 141 if the reader of the output has left, such as `head`. Any
  other exception is a bug and keeps its traceback. `--help` prints the
  docstring and the flags of the module.

  Args:
    command: reads its flags by itself.
    required: names of the flags that must be given.
    unless: name of a switch with which none of them is required.
    more: returns a text that ends `--help`.
  """

  def main(argv: list[str]) -> None:
    del argv  # `_parse` refuses arguments that are not flags
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)  # Orbax logs every file
    try:
      command()
    finally:
      sys.stdout.flush()  # a reader that has left is noticed here at the latest

  def parse(argv: list[str]) -> list[str]:
    if not _HELP.isdisjoint(argv[1:]):
      print(_help(required, more()), flush=True)
      sys.exit(0)
    rest = _parse(argv)
    if not (unless and flags.FLAGS[unless].value):
      _check_required(required)
    return rest

  _use_utf8()
  interrupt_raises()
  try:
    app.run(main, flags_parser=parse)
  except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next one ends at once
    print('Interrupted.', file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)
  except Exception as error:
    if isinstance(error, BrokenPipeError) and _without_reader():
      sys.exit(EXIT_NO_READER)
    message = describe(error)
    if message is None:
      raise
    logging.info('Traceback of the error below.', exc_info=True)
    sys.exit(f'Error: {message}')


def error_text(error: Exception) -> str:
  """One line for an error that is no bug; else the traceback."""
  message = describe(error)
  if message is None:
    return ''.join(traceback.format_exception(error))
  return f'Error: {message}'


def _use_utf8() -> None:
  """Starts the command again in Python's UTF-8 mode if the locale is another.

  Names of files would otherwise reach the libraries in two encodings. Names
  that are not UTF-8 are printed with escapes.
  """
  if sys.getfilesystemencoding().lower() != 'utf-8':
    os.environ['PYTHONUTF8'] = '1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='backslashreplace')


def _without_reader() -> bool:
  """Whether nobody reads stdout or stderr any more; closes these."""
  left = False
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # a stream without a descriptor
      poll = select.poll()
      poll.register(stream.fileno(), 0)
      if poll.poll(0):
        left = True
        # The interpreter flushes its streams at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
  return left


def _check_required(required: Sequence[str]) -> None:
  missing = [f for f in required if flags.FLAGS[f].value is None]
  if missing:
    names = ', '.join(f'--{name}' for name in missing)
    verb = 'are' if missing[1:] else 'is'
    raise UsageError(f'{names} {verb} required. See --help.')


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses the command line; raises `UsageError` if it is wrong."""
  try:
    rest = flags.FLAGS(_with_installed_config(argv))
    config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else None
    if config is not None:
      config.get('stage')  # its file is read at the first use
  except flags.Error as error:
    raise _flag_error(error) from None
  except (AttributeError, KeyError, OSError, TypeError) as error:
    raise _config_error(error, argv) from None
  if len(rest) > 1:
    raise UsageError(f'Unexpected argument {rest[1]!r}: flags begin with --.')
  return rest


def _flag_error(error: flags.Error) -> Exception:
  """Says which flag is wrong; a bug within a config file stays `error`."""
  message = str(error)
  if 'get_config() takes 0 positional arguments' in message:
    return UsageError(
      '--config: this file takes no word after a colon; --config.model names '
      'another model.'
    )
  if 'Error whilst parsing config file' in message:  # with its traceback
    return error
  message = ' '.join(message.split()).removesuffix('.')
  return UsageError(f'{message}. See --help.')


def _config_error(error: Exception, argv: Sequence[str]) -> Exception:
  """Says what is wrong with --config; a bug within its file stays `error`."""
  if isinstance(error, OSError):
    return UsageError(f'--config: {str(error).splitlines()[-1].strip()}')
  from synermedgen_jax.config.keys import leaves, suggestion

  given = [a.partition('=') for a in argv]
  config = next((v for f, _, v in given if f in ('--config', '-config')), '')
  try:
    keys = _keys_of_file(config)
  except Exception:  # it is the config file that raised the error
    return error
  known = {name for name, _ in leaves(keys)}
  for flag, _, _ in given:
    _, mark, name = flag.removeprefix('-').partition('-config.')
    # Groups such as `tasks` accept further keys.
    if mark and name not in known and not _is_group(keys, name):
      hint = suggestion(name, keys)
      end = f'; {hint}' if hint else '; docs/reference.md lists the keys.'
      return UsageError(f'the config has no key {name!r}{end}')
  return error


def _keys_of_file(config: str) -> Mapping[str, Any]:
  """The values of `--config=FILE[:WORD]`, without those of other flags."""
  path, colon, word = _installed_config(config).partition(':')
  values = runpy.run_path(path)['get_config'](*([word] if colon else []))
  return values.to_dict()


def _is_group(keys: Mapping[str, Any], name: str) -> bool:
  for part in name.split('.'):
    if not isinstance(keys, Mapping) or part not in keys:
      return False
    keys = keys[part]
  return True


def _with_installed_config(argv: Sequence[str]) -> list[str]:
  """The arguments, with the config file to read in place of --config's."""
  argv = list(argv)
  for i, argument in enumerate(argv):
    flag, equals, value = argument.partition('=')
    if flag not in ('--config', '-config'):
      continue
    if equals:
      argv[i] = f'{flag}={_installed_config(value)}'
    elif i + 1 < len(argv):
      argv[i + 1] = _installed_config(argv[i + 1])
  return argv


def _installed_config(config: str) -> str:
  """`configs/NAME.py[:MODEL]` of the package, unless there is such a file."""
  path, colon, model = config.partition(':')
  folder, _, name = path.partition('/')
  if folder == 'configs' and not os.path.exists(path):
    package = importlib.util.find_spec('synermedgen_jax.configs')
    if package is not None:
      installed = Path(package.origin).parent / name
      if installed.is_file():
        return f'{installed}{colon}{model}'
  return config


def _help(required: Sequence[str], more: str) -> str:
  """The docstring of the module that runs, its flags, and a text."""
  text = (sys.modules['__main__'].__doc__ or '').strip()
  own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
  lines = [text, '', 'Flags:', *_describe(own, required)]
  return '\n'.join([*lines, '', more] if more else lines)


def _describe(own: Iterable[flags.Flag], required: Sequence[str]):
  for flag in own:
    short = f', -{flag.short_name}' if flag.short_name else ''
    yield f'  --{"[no]" if flag.boolean else ""}{flag.name}{short}'
    text = flag.help
    if flag.name in required:
      text += ' Required.'
    elif flag.default not in (None, '', []):
      default = flag.default_as_str.strip("'")
      text += f' Default: {default}.'
    yield textwrap.fill(
      text, 80, initial_indent=6 * ' ', subsequent_indent=6 * ' '
    )
