"""Flags, errors and signals of all commands."""

import subprocess
import sys

import pytest
from commands import ROOT

COMMAND = '''
"""Does what --do says.

More about it.
"""
import sys
from absl import flags
from ml_collections import config_flags
from synermedgen_jax.config.command_line import UsageError, run_command

_DO = flags.DEFINE_enum('do', None, ['nothing', 'usage', 'file', 'bug', 'stop'],
                        'What happens.')
_COUNT = flags.DEFINE_integer('count', 3, 'How often.', lower_bound=1)
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
  print(_COUNT.value, _CONFIG.value and _CONFIG.value.stage)


if __name__ == '__main__':
  run_command(main, required=['do'])
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('command')
  (folder / 'command.py').write_text(COMMAND)
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
  def run(*arguments):
    return subprocess.run(
      [sys.executable, 'command.py', *arguments],
      cwd=folder,
      env={'PYTHONPATH': str(ROOT), 'PATH': ''},
      capture_output=True,
      text=True,
      timeout=60,
    )

  return run


def test_a_good_command_line_runs_and_exits_with_0(command):
  done = command('--do=nothing', '--count=5')
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


def test_help_shows_the_docstring_and_every_flag(command):
  done = command('--do=dance', '--help')
  assert (done.returncode, done.stderr) == (0, '')
  text, _, shown = done.stdout.partition('\nFlags:\n')
  assert text == 'Does what --do says.\n\nMore about it.\n'
  assert shown.splitlines() == [
    '  --do',
    '      <nothing|usage|file|bug|stop>: What happens. Required.',
    '  --count',
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
