"""Commands that launch/gpu.sh calls, on a box and as a Slurm job.

There are no GPUs: Python, `srun` and `scontrol` write down how they are called.
"""

import signal
import subprocess

import pytest
from launch_fakes import FAKE, TRAINING, Stage, assert_refused, wait_for

MAIN = 'python -m synermedgen_jax.main'
LOCAL = (
  '--config=configs/stage1.py:bagel_7b',
  '--workdir=/shared/run',
  '--config.store=/shared/store',
)
TYPED = ' '.join(LOCAL)
NODE = {
  'SLURM_JOB_ID': '42',
  'SLURM_GPUS_ON_NODE': '4',
  'SLURM_NTASKS_PER_NODE': '1',
  'SLURM_CPUS_PER_TASK': '16',
}
SRUN = f'srun --kill-on-bad-exit=0 --cpus-per-task=16 {MAIN} --distributed'


@pytest.fixture
def box(tmp_path):
  """An environment that is set up, with a fake Python in it."""
  stage = Stage(tmp_path)
  (stage.root / 'requirements.txt').write_text('jax\n')
  stage.fake('srun', 'scontrol', '../repository/.venv/bin/python')
  stamp = stage.root / '.venv' / 'requirements.txt.installed'
  stamp.write_text('jax\n' * 2)
  return stage


def test_a_dry_run_on_a_box_prints_every_command_and_calls_none(box):
  done = box.run('launch/gpu.sh', '--dry_run', *LOCAL)
  assert done.stdout.splitlines() == [
    'source launch/setup.sh requirements.txt',
    'python -m pip install --quiet --disable-pip-version-check jax\\[cuda12\\]',
    'python -m synermedgen_jax.main --config=configs/stage1.py:bagel_7b'
    ' --workdir=/shared/run --config.store=/shared/store',
  ]
  assert box.calls() == []


def test_a_dry_run_under_slurm_prints_every_command_and_calls_none(box):
  done = box.run('launch/gpu.sh', '--dry_run', *LOCAL, **NODE)
  assert done.stdout.splitlines() == [
    'source launch/setup.sh requirements.txt',
    'python -m pip install --quiet --disable-pip-version-check jax\\[cuda12\\]',
    'env JAX_LOCAL_DEVICE_IDS=0\\,1\\,2\\,3 srun --kill-on-bad-exit=0'
    ' --cpus-per-task=16 python -m synermedgen_jax.main --distributed'
    ' --config=configs/stage1.py:bagel_7b --workdir=/shared/run'
    ' --config.store=/shared/store',
  ]
  assert box.calls() == []


def test_cuda_is_installed_if_it_is_missing(box):
  box.answers(jax_cuda12_plugin=['1', '0'])
  for _ in range(2):
    assert box.run('launch/gpu.sh', *LOCAL).returncode == 0
  assert box.calls('pip') == [
    'python -m pip install --quiet --disable-pip-version-check jax[cuda12]'
  ]


def test_training_on_a_box_is_started_again_while_it_ends_with_75(box):
  box.answers(**{'synermedgen_jax.main': ['75', '75', '0']})
  assert box.run('launch/gpu.sh', *LOCAL).returncode == 0
  assert box.calls('main') == [f'{MAIN} {TYPED}'] * 3


def test_another_status_on_a_box_stops_with_it_and_prints_a_line(box):
  box.answers(**{'synermedgen_jax.main': ['3']})
  done = box.run('launch/gpu.sh', *LOCAL)
  assert done.returncode == 3
  assert_refused(done, 'status 3')
  assert len(box.calls('main')) == 1


@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT])
def test_a_box_that_is_stopped_saves_and_does_not_start_again(box, sent):
  box.fake('../repository/.venv/bin/python', script=TRAINING)
  # Tests in the background of a shell ignore it, and would pass that on.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  running = subprocess.Popen(
    ['bash', str(box.root / 'launch/gpu.sh'), *LOCAL], env=box.env
  )
  try:
    wait_for(lambda: box.calls('main'))
    running.send_signal(sent)
    assert running.wait(timeout=10) == 75
  finally:
    signal.signal(signal.SIGINT, before)
    (box.fakes / 'end').write_text('0')
    running.wait(timeout=10)
  assert len(box.calls('main')) == 1


def test_a_slurm_job_trains_with_all_gpus_of_a_node_in_one_process(box):
  box.fake('srun', script=FAKE.replace('$*"', '$* $JAX_LOCAL_DEVICE_IDS"'))
  assert box.run('launch/gpu.sh', *LOCAL, **NODE).returncode == 0
  assert box.calls('main', 'srun') == [f'{SRUN} {TYPED} 0,1,2,3']
  assert box.calls('scontrol') == []


def test_one_process_per_gpu_is_left_to_jax(box):
  box.fake(
    'srun', script=FAKE.replace('$*"', '$* ${JAX_LOCAL_DEVICE_IDS-unset}"')
  )
  node = {**NODE, 'SLURM_NTASKS_PER_NODE': '4'}
  assert box.run('launch/gpu.sh', *LOCAL, **node).returncode == 0
  assert box.calls('srun') == [f'{SRUN} {TYPED} unset']


def test_a_slurm_job_out_of_time_goes_back_into_the_queue(box):
  box.answers(**{'synermedgen_jax.main': ['75']})
  assert box.run('launch/gpu.sh', *LOCAL, **NODE).returncode == 0
  assert box.calls()[-2:] == [f'{SRUN} {TYPED}', 'scontrol requeue 42']


def test_a_slurm_job_that_failed_is_not_requeued(box):
  box.answers(**{'synermedgen_jax.main': ['1']})
  done = box.run('launch/gpu.sh', *LOCAL, **NODE)
  assert_refused(done, 'status 1')
  assert box.calls('scontrol') == []


def test_a_slurm_job_that_was_cancelled_is_not_requeued(box):
  # scancel's SIGTERM goes to the script as well as to the processes.
  box.fake('srun', script='#!/usr/bin/env bash\nkill -TERM $PPID\nexit 75\n')
  done = box.run('launch/gpu.sh', *LOCAL, **NODE)
  assert done.returncode == 75
  assert box.calls('scontrol') == []


def test_the_copy_of_the_script_that_slurm_runs_finds_the_repository(box):
  copy = box.root / 'launch' / 'gpu.sh'
  spool = box.fakes / 'spool' / 'job42' / 'slurm_script'
  spool.parent.mkdir(parents=True)
  copy.rename(spool)
  environment = {**NODE, 'SLURM_SUBMIT_DIR': str(box.root)}
  script = f'../fakes/{spool.relative_to(box.fakes)}'
  assert box.run(script, *LOCAL, **environment).returncode == 0
  assert box.calls('srun') == [f'{SRUN} {TYPED}']
  elsewhere = {**NODE, 'SLURM_SUBMIT_DIR': str(box.home)}
  assert_refused(
    box.run(script, *LOCAL, **elsewhere), 'root folder of the repository'
  )


@pytest.mark.parametrize(
  ('arguments', 'env', 'message'),
  [
    ((), {}, '--config='),
    (('--workdir=run', '--config.store=store'), {}, '--config='),
    (('--dry_run', '--config=configs/stage1.py'), {}, '--workdir='),
    (LOCAL, {'SLURM_JOB_ID': '42'}, '--gpus-per-node='),
  ],
)
def test_gpu_names_the_option_that_is_missing(box, arguments, env, message):
  assert_refused(box.run('launch/gpu.sh', *arguments, **env), message)
  assert box.calls('main') == []
