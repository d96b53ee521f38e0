"""Runs commands of the package in this process, which is faster."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

from absl import app, flags

PACKAGE = 'synermedgen_jax'
ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def _own_flags():
  """Removes the flags of other commands, which can have the same names."""
  app.define_help_flags()  # shared by all commands
  before = {
    flag.name: (module, flag)
    for module, defined in flags.FLAGS.flags_by_module_dict().items()
    # Flags that a checked function defines are those of its wrapper.
    if module.startswith((PACKAGE, 'projects', 'jaxtyping'))
    for flag in defined
  }
  shorts = {flag.short_name for _, flag in before.values()} - {None}
  for name in [*before, *shorts]:
    delattr(flags.FLAGS, name)
  known = set(flags.FLAGS)
  try:
    yield
  finally:
    for name in set(flags.FLAGS) - known:
      delattr(flags.FLAGS, name)
    for name, (module, flag) in before.items():
      flags.FLAGS[name] = flag
      flags.FLAGS.register_flag_by_module(module, flag)


def run(command, *arguments):
  """Runs `python -m synermedgen_jax.COMMAND ARGUMENTS`.

  A command with a dot in its name is a module outside the package.

  Returns:
    The exit code, and the texts on stdout and stderr.
  """
  module = command if '.' in command else f'{PACKAGE}.{command}'
  argv = [command, *map(str, arguments)]
  out, err = io.StringIO(), io.StringIO()
  with (
    _own_flags(),
    mock.patch.object(sys, 'argv', argv),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    warnings.catch_warnings(),
  ):
    # A test may have imported the module already.
    warnings.filterwarnings('ignore', '.*found in sys.modules')
    try:
      runpy.run_module(module, run_name='__main__', alter_sys=True)
      code = 0
    except SystemExit as end:
      code = end.code or 0
  if isinstance(code, str):  # as the interpreter does
    return 1, out.getvalue(), f'{err.getvalue()}{code}\n'
  return code, out.getvalue(), err.getvalue()


def assert_refused(result, *phrases):
  """Asserts a non-zero exit and one `Error:` line with all phrases."""
  code, _, err = result
  assert code not in (0, None)
  lines = err.splitlines()
  assert len(lines) == 1, err
  assert lines[0].startswith('Error: ')
  for phrase in phrases:
    assert phrase in lines[0]


def printed(module, *options):
  """The lines that `python -m MODULE OPTIONS` prints, in its own process."""
  done = subprocess.run(
    [sys.executable, '-m', module, *options],
    cwd=ROOT,
    env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()
