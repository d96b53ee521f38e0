"""projects/ablations/run.sh, the short form, with the model `nano`."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from launch_fakes import ROOT

# The nano store's slices are 16 pixels wide.
OPTIONS = (
  '--config.image.vit_size=16,16',
  '--config.image.vae_size=16,16',
  '--config.rows=2',
  '--config.streams=2',
  '--config.packing_bins=2',
  '--config.val_batches=1',
  '--config.warmup=0',
)


@pytest.fixture(scope='module')
def repository(tmp_path_factory):
  """The repository, with this Python as the environment that is installed."""
  root = tmp_path_factory.mktemp('ablations') / 'repository'
  root.mkdir()
  for name in ('synermedgen_jax', 'configs', 'requirements.txt'):
    (root / name).symlink_to(ROOT / name)
  # A script finds the repository by its own path, which a link would change.
  for name in ('launch', 'projects'):
    shutil.copytree(ROOT / name, root / name)
  python = root / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
  python.chmod(0o755)
  needed = (ROOT / 'requirements.txt').read_bytes()
  (root / '.venv' / 'requirements.txt.installed').write_bytes(2 * needed)
  return root


def run(repository, *arguments, **env):
  return subprocess.run(
    ['bash', 'projects/ablations/run.sh', *map(str, arguments)],
    cwd=repository,
    env={
      **os.environ,
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
      'AT_A_TIME': '1',
      **env,
    },
    capture_output=True,
    text=True,
    timeout=500,
  )


@pytest.fixture(scope='module')
def short(repository, nano_runs, shared_path):
  """The environment and the output of a first call."""
  env = {
    'BASE': str(nano_runs / 'autoencoder'),
    'MODEL': 'init_from',
    'STORE': str(nano_runs / 'store'),
    'JAX_COMPILATION_CACHE_DIR': str(shared_path / 'programs'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  done = run(repository, '--short', 'out', *OPTIONS, **env)
  logs = (repository / 'out').glob('seed*/*.log')
  assert done.returncode == 0, done.stderr + ''.join(
    log.read_text() for log in logs
  )
  return env, done.stdout


@pytest.mark.slow
def test_both_arms_are_in_the_page_and_the_plot(repository, short):
  out = repository / 'out'
  page = (out / 'ablations.md').read_text()
  for arm in ('Stage I alone, zero-shot', 'Stage I + II'):
    (row,) = re.findall(
      rf'^\| {re.escape(arm)} \| .* \| 1 \|$', page, re.MULTILINE
    )
    # Six numbers: three means of SSIM, three accuracies; the fake store has
    # no BraTS subject to test on.
    assert len(re.findall(r'\d+\.\d', row)) == 5
  assert '(4 of them scored)' in page
  assert (out / 'ablations.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.slow
def test_stage_2_began_with_stage_1(repository, short):
  text = (repository / 'out/seed0/stage2/config.json').read_text()
  assert '"init_from": "out/seed0/stage1"' in text


@pytest.mark.slow
def test_steps_of_all_arms_are_known_beforehand(repository, short):
  lines = (repository / 'out/steps.txt').read_text().splitlines()
  steps = {name: int(count) for name, count in map(str.split, lines)}
  assert steps['stage1'] == steps['stage1_vqa'] == steps['stage2'] == 2
  assert steps['stage2_only'] > 2


@pytest.mark.slow
def test_a_second_call_trains_and_evaluates_nothing(repository, short):
  env, _ = short
  stamps = sorted((repository / 'out/seed0').rglob('*.json*'))
  before = [path.stat().st_mtime_ns for path in stamps]
  done = run(repository, '--short', 'out', *OPTIONS, **env)
  assert done.returncode == 0, done.stderr
  assert [path.stat().st_mtime_ns for path in stamps] == before
  log = (repository / 'out/seed0/stage1.log').read_text()
  assert log.count('Reusing') == 4


def test_a_missing_base_is_refused(repository):
  done = run(repository, '--short', 'nothing', BASE='nowhere')
  assert done.returncode == 1
  assert done.stderr == (
    'Error: nowhere: no such folder; name the base with BASE=.\n'
  )


@pytest.mark.slow
def test_options_that_no_arm_can_have_are_refused(repository, short):
  env, _ = short
  done = run(
    repository, '--short', 'refused', *OPTIONS, '--config.rows=0', **env
  )
  assert done.returncode == 1
  *_, last = done.stderr.splitlines()
  assert last == 'Error: joint: config.rows 0: must be at least 1.'


@pytest.mark.slow
def test_a_failed_run_is_reported_with_its_log(repository, short):
  env, _ = short
  routes = "--config.routes=('whole_body_pet_to_ct',)"
  done = run(repository, '--short', 'failing', *OPTIONS, routes, **env)
  assert done.returncode == 1
  *_, last = done.stderr.splitlines()
  assert last.startswith(
    'Error: a run failed; failing/seed0/stage1.log: Error: config.routes: '
  )
  assert not (repository / 'failing/seed0/stage2').exists()
