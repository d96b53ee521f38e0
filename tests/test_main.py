"""The train command: its messages and exit statuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import commands
import nano
import pytest
from commands import assert_refused

from synermedgen_jax.training import loop

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('nano_preset')


def main(*arguments):
  return commands.run('main', *arguments)


def config_flag(name='stage1'):
  return f'--config={nano.CONFIGS / f"{name}.py"}'


# Case -> (flags, start of the error line).
WRONG = {
  'key': (
    [config_flag(), '--config.no_such_key=1'],
    "Error: the config has no key 'no_such_key'; docs/reference.md lists the "
    'keys.',
  ),
  'file': (
    ['--config=configs/stage3.py'],
    'Error: --config: ',
  ),
  'value': (
    [config_flag(), '--config.from_scratch', '--config.store=nowhere'],
    'Error: config.store: nowhere: holds no slice store; make one with python '
    '-m synermedgen_jax.prepare.',
  ),
}


@pytest.fixture(scope='module')
def refusals(tmp_path_factory):
  """Results of all wrong command lines, run in parallel processes."""
  workdir = tmp_path_factory.mktemp('wrong') / 'run'
  processes = {
    kind: subprocess.Popen(
      [
        *(sys.executable, '-m', 'synermedgen_jax.main'),
        *arguments,
        f'--workdir={workdir}',
      ],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    )
    for kind, (arguments, _) in WRONG.items()
  }
  done = {kind: p.communicate(timeout=600) for kind, p in processes.items()}
  assert not workdir.exists()
  return {kind: (processes[kind].returncode, *done[kind]) for kind in done}


@pytest.mark.parametrize('kind', WRONG)
def test_a_process_ends_with_one_line_and_no_traceback(refusals, kind):
  code, out, err = refusals[kind]
  assert code == 1
  assert out == ''
  assert len(err.splitlines()) == 1, err
  assert err.startswith(WRONG[kind][1])


def test_a_missing_config_file_is_named(refusals):
  assert 'configs/stage3.py' in refusals['file'][2]


def test_a_value_of_another_type_is_refused_with_a_hint_at_help(tmp_path):
  result = main(config_flag(), '--config.steps=many', f'--workdir={tmp_path}')
  assert_refused(result, '--config.steps=many: invalid literal', 'See --help.')


def test_an_unknown_preset_is_refused(store_path, tmp_path):
  result = main(
    config_flag(),
    '--config.model=huge',
    '--config.from_scratch',
    f'--config.store={store_path}',
    f'--workdir={tmp_path}',
  )
  assert_refused(
    result, "config.model: Unknown preset 'huge'", 'tiny, small, desk, base_1b'
  )


def test_an_example_that_no_row_holds_is_refused(store_path, tmp_path):
  result = main(
    config_flag(),
    '--config.model=nano',
    '--config.from_scratch',
    f'--config.store={store_path}',
    '--config.image.vit_size=16,16',
    '--config.image.vae_size=16,16',
    '--config.capacity.und=20',
    f'--workdir={tmp_path}',
  )
  assert_refused(result, 'config.capacity.und is 20, but an example of task')


def test_an_argument_without_dashes_is_refused(tmp_path):
  result = main(config_flag(), 'train', f'--workdir={tmp_path}')
  assert_refused(result, "Unexpected argument 'train': flags begin with --.")


@pytest.mark.parametrize('flag', ['config', 'workdir'])
def test_the_config_and_the_workdir_have_to_be_given(tmp_path, flag):
  given = {'config': config_flag(), 'workdir': f'--workdir={tmp_path}'}
  del given[flag]
  assert_refused(main(*given.values()), f'--{flag} is required')


def test_a_command_that_tests_check_leaves_nothing_for_others_to_run(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(sys, 'pycache_prefix', str(tmp_path))
  assert main('--help')[0] == 0
  assert not list(tmp_path.rglob('main.*'))


def flat(config, prefix='--config'):
  """Every key of a config as a flag."""
  for key, value in config.items():
    if isinstance(value, dict):
      yield from flat(value, f'{prefix}.{key}')
    else:
      yield f'{prefix}.{key}={value}'


def stage1_flags(runs, **values):
  """The flags with which `stage1` of the runs was trained."""
  small = nano.stage_config('stage1', runs).to_dict() | values
  default = nano.config_file('stage1').to_dict()
  changed = {k: v for k, v in small.items() if v != default[k]}
  return [config_flag(), *flat(changed)]


def test_the_same_command_again_does_nothing_more(nano_runs, tmp_path):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  flags = [*stage1_flags(nano_runs), f'--workdir={workdir}']
  config = json.loads((workdir / 'config.json').read_text())
  code, out, err = main(*flags)
  assert (code, err) == (0, '')
  assert out.startswith('Stage gau on 1 cpu device(s): ')
  assert json.loads((workdir / 'config.json').read_text()) == config
  for name in ('metrics.jsonl', 'checkpoints/2/params/manifest.ocdbt'):
    after, before = workdir / name, nano_runs / 'stage1' / name
    assert after.read_bytes() == before.read_bytes()
    assert after.stat().st_mtime_ns == before.stat().st_mtime_ns
  assert [p.name for p in (workdir / 'checkpoints').iterdir()] == ['2']


def test_a_preempted_run_has_its_own_exit_status(
  nano_runs, quick_compiles, tmp_path, monkeypatch
):
  to_devices = loop.to_devices

  def noticed(batch, sharding):
    os.kill(os.getpid(), signal.SIGTERM)
    return to_devices(batch, sharding)

  monkeypatch.setattr(loop, 'to_devices', noticed)
  workdir = tmp_path / 'stage1'
  code, _, err = main(*stage1_flags(nano_runs), f'--workdir={workdir}')
  assert code == 75
  assert f'{workdir}: stopped after step 1, which is saved.' in err
  assert 'Traceback' not in err


def test_more_steps_go_on_from_the_last_checkpoint(
  nano_runs, quick_compiles, tmp_path
):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  flags = stage1_flags(nano_runs, steps=3)
  code, _, err = main(*flags, f'--workdir={workdir}')
  assert code == 0, err
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [2, 3]
  written = json.loads((workdir / 'config.json').read_text())
  assert written['config']['steps'] == 3
