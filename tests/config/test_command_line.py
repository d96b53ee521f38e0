"""Flags, errors and signals of all commands."""

import subprocess
import sys

import pytest
from commands import ROOT

from synermedgen_jax.config.failures import describe

COMMAND = '''
"""Does what --do says.

More about it.
"""
import os
import sys
from absl import flags
from ml_collections import config_flags
from synermedgen_jax.config.command_line import UsageError, run_command
from synermedgen_jax.core.errors import naming
from synermedgen_jax.slices.workers import processes

_DO = flags.DEFINE_enum(
  'do',
  None,
  ['nothing', 'usage', 'file', 'bug', 'stop', 'memory', 'killed', 'name',
   'jax', 'disk'],
  'What happens.',
)
_COUNT = flags.DEFINE_integer(
  'count', 3, 'How often.', lower_bound=1, short_name='n'
)
_DRY = flags.DEFINE_bool('dry', False, 'Only look.')
_CONFIG = config_flags.DEFINE_config_file('config', None, 'A config.')


def main():
  if _DO.value == 'usage':
    raise UsageError('--do: should have been nothing.')
  if _DO.value == 'file':
    open('no/such/file')
  if _DO.value == 'bug':
    raise ValueError('inner')
  if _DO.value == 'stop':
    raise KeyboardInterrupt
  if _DO.value == 'memory':
    raise MemoryError('Unable to allocate 9 GiB')
  if _DO.value == 'killed':
    with processes(1) as pool:
      pool.submit(os._exit, 9).result()
  if _DO.value == 'name':
    print('µ →', os.listdir('names'))
    return
  if _DO.value == 'jax':
    import jax
    jax.devices()
  if _DO.value == 'disk':
    with naming('out.json'), open('/dev/full', 'w') as file:
      file.write('x')
  print(_COUNT.value, _CONFIG.value and _CONFIG.value.stage)


if __name__ == '__main__':
  run_command(main, required=['do'])
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('command')
  (folder / 'command.py').write_text(COMMAND)
  (folder / 'names').mkdir()
  (folder / 'names' / 'Köln').touch()
  (folder / 'configs').mkdir()
  (folder / 'configs' / 'mine.py').write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config(model="none"):\n'
    '  return ConfigDict({"stage": f"mine {model}", "steps": 1})\n'
  )
  (folder / 'configs' / 'plain.py').write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    '  return ConfigDict({"stage": "plain"})\n'
  )
  (folder / 'configs' / 'broken.py').write_text(
    'def get_config(kind):\n'
    '  return None.stage if kind == "attribute" else int("many")\n'
  )
  return folder


@pytest.fixture
def command(folder):
  def run(*arguments, **environment):
    return subprocess.run(
      [sys.executable, 'command.py', *arguments],
      cwd=folder,
      env={'PYTHONPATH': str(ROOT), 'PATH': '', **environment},
      capture_output=True,
      text=True,
      timeout=60,
    )

  return run


def test_a_good_command_line_runs_and_exits_with_0(command):
  done = command('--do=nothing', '-n', '5')
  assert (done.returncode, done.stdout, done.stderr) == (0, '5 None\n', '')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), '--do is required. See --help.'),
    (('--do=nothing', 'more'), "Unexpected argument 'more': flags begin"),
    (('--do=nothing', '--coumt=1'), "Unknown command line flag 'coumt'."),
    (('--do=nothing', '--count=x'), '--count=x: invalid literal for int()'),
    (('--do=nothing', '--count=0'), '--count=0: 0 is not a'),
    (('--do=dance',), '--do=dance: value should be one of'),
    (('--do=usage',), '--do: should have been nothing.'),
    (('--do=file',), "[Errno 2] No such file or directory: 'no/such/file'"),
    (
      ('--do=nothing', '--config=configs/mine.py', '--config.stepz=2'),
      "the config has no key 'stepz'",
    ),
    (
      ('--do=nothing', '--config=configs/mine.py', '--config.max_steps=2'),
      "the config has no key 'max_steps'; did you mean --config.steps (Length",
    ),
    (
      ('--do=nothing', '--config=configs/mine.py', '--config.stage.kind=x'),
      "the config has no key 'stage.kind'; did you mean --config.stage",
    ),
    (
      ('--do=nothing', '--config=configs/mine.py', '--config.colour=2'),
      "the config has no key 'colour'; docs/reference.md lists the keys.",
    ),
    (('--do=nothing', '--config=configs/none.py'), '--config: [Errno 2] No'),
    (
      ('--do=nothing', '--config=configs/none.py', '--config.steps=2'),
      '--config: [Errno 2] No',
    ),
    (
      ('--do=nothing', '--config=configs/plain.py:small'),
      '--config: this file takes no word after a colon',
    ),
  ],
)
def test_a_user_error_is_one_line_and_exits_with_1(command, arguments, message):
  done = command(*arguments)
  assert done.returncode == 1
  assert done.stdout == ''
  (line,) = done.stderr.splitlines()
  assert line.startswith('Error: ')
  assert message in line


def test_the_traceback_of_such_an_error_can_be_seen(command):
  done = command('--do=usage', '--verbosity=0')
  assert 'Traceback' in done.stderr
  assert done.stderr.splitlines()[-1].startswith('Error: --do: ')


def test_a_bug_keeps_its_traceback(command):
  done = command('--do=bug')
  assert done.returncode == 1
  assert 'Traceback' in done.stderr
  assert done.stderr.splitlines()[-1] == 'ValueError: inner'


@pytest.mark.parametrize(
  ('kind', 'reason'),
  [
    ('attribute', "AttributeError: 'NoneType' object"),
    ('value', 'ValueError: invalid literal for int()'),
  ],
)
def test_a_bug_in_a_config_keeps_its_traceback(command, kind, reason):
  done = command('--do=nothing', f'--config=configs/broken.py:{kind}')
  assert done.returncode == 1
  assert 'Traceback' in done.stderr
  assert 'broken.py", line 2' in done.stderr
  assert reason in done.stderr


def test_an_interrupt_is_one_line_and_exits_with_130(command):
  done = command('--do=stop')
  assert (done.returncode, done.stderr) == (130, 'Interrupted.\n')


@pytest.mark.parametrize(
  ('kind', 'environment', 'words'),
  [
    ('memory', {}, 'out of memory (Unable to allocate 9 GiB); use a machine'),
    ('killed', {}, 'a worker process ended unexpectedly, most likely'),
    ('jax', {'JAX_PLATFORMS': 'cuda'}, 'JAX_PLATFORMS=cuda: has no dev'),
    ('jax', {'JAX_PLATFORMS': 'abc'}, 'JAX_PLATFORMS=abc: has no device'),
    ('disk', {}, "[Errno 28] No space left on device: 'out.json'"),
  ],
)
def test_an_error_of_the_machine_is_one_line(command, kind, environment, words):
  done = command(f'--do={kind}', **environment)
  assert (done.returncode, done.stdout) == (1, '')
  (line,) = done.stderr.splitlines()
  assert line.startswith(f'Error: {words}')


@pytest.mark.parametrize(
  ('text', 'line'),
  [
    (
      'RESOURCE_EXHAUSTED: Error writing local file "s/a": Failed to write 9 '
      "bytes: No space left on device [os_error_code='28'] [source='a.cc:3']",
      'writing local file "s/a": Failed to write 9 bytes: No space left on '
      'device.',
    ),
    (
      'PERMISSION_DENIED: Failed to create directory: "s/x\0settings.json": '
      "Permission denied [os_error_code='13']",
      'Failed to create directory: "s/x/settings.json": Permission denied.',
    ),
    ('INVALID_ARGUMENT: Error parsing object member "driver"', None),
  ],
)
def test_an_error_of_the_storage_names_the_file(text, line):
  assert describe(ValueError(text)) == line


def test_a_reader_that_leaves_ends_the_command_silently(folder):
  done = subprocess.run(
    [
      'bash',
      '-c',
      f'{sys.executable} command.py --help | true; echo ${{PIPESTATUS[0]}}',
    ],
    cwd=folder,
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert (done.stdout, done.stderr) == ('141\n', '')


@pytest.mark.parametrize(
  'environment',
  [
    {'LC_ALL': 'C'},
    {'LC_ALL': 'POSIX', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'},
  ],
)
def test_any_character_is_printed_in_any_locale(command, environment):
  done = command('--do=name', **environment, PYTHONIOENCODING='utf-8')
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout == "µ → ['Köln']\n"


def test_an_interrupt_during_the_imports_is_one_line():
  code = (
    # A shell starts background jobs with SIGINT ignored.
    'import sys, signal; '
    'signal.signal(signal.SIGINT, signal.default_int_handler); '
    "sys.argv = ['-m']; import synermedgen_jax; "
    'signal.raise_signal(signal.SIGINT); print(1)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert (done.returncode, done.stdout) == (130, '')
  assert done.stderr == 'Interrupted.\n'


def test_help_shows_the_docstring_and_every_flag(command):
  done = command('--do=dance', '--help')
  assert (done.returncode, done.stderr) == (0, '')
  text, _, shown = done.stdout.partition('\nFlags:\n')
  assert text == 'Does what --do says.\n\nMore about it.\n'
  assert shown.splitlines() == [
    '  --do',
    '      <nothing|usage|file|bug|stop|memory|killed|name|jax|disk>:'
    ' What happens.',
    '      Required.',
    '  --count, -n',
    '      How often. Default: 3.',
    '  --[no]dry',
    '      Only look. Default: false.',
    '  --config',
    '      A config.',
  ]


@pytest.mark.parametrize(
  'flag',
  [
    ('--config=configs/mine.py:small',),
    ('--config', 'configs/mine.py:small'),
  ],
)
def test_a_config_of_the_current_folder_comes_first(command, flag):
  assert command('--do=nothing', *flag).stdout == '3 mine small\n'
