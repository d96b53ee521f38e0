"""launch/tpu_worker.sh, on a worker whose Python only waits for its end."""

import os
import shlex
import shutil
import signal
import subprocess

import pytest
from launch_fakes import (
  ROOT,
  TRAINING,
  UNPACK,
  Stage,
  assert_refused,
  wait_for,
)


class Worker(Stage):
  def __init__(self, path):
    super().__init__(path)
    self.fake('sleep', script='#!/bin/sh\nexec /bin/sleep 0.02\n')
    self.work = self.home / 'synermedgen'
    shutil.copytree(ROOT / 'launch', self.work / 'code/launch')
    python = self.work / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(TRAINING)
    python.chmod(0o755)

  def ssh(self, command):
    return subprocess.run(
      ['bash', '-c', command],
      cwd=self.home,
      env=self.env,
      capture_output=True,  # as ssh does, it waits for who holds them
      text=True,
      timeout=30,
    )

  def worker(self, *words):
    script = 'synermedgen/code/launch/tpu_worker.sh'
    return self.ssh(shlex.join(['bash', script, *words]))

  def signal(self, *signals):
    """Sends signals to training and to the shell that waits for it.

    The shell comes first: killed after training, it could write its status.
    """
    for pid in reversed((self.fakes / 'pids').read_text().split()):
      for number in signals:
        os.kill(int(pid), number)

  def end_training(self, status):
    (self.fakes / 'end').write_text(status)


@pytest.fixture
def worker(tmp_path):
  created = Worker(tmp_path)
  yield created
  created.end_training('0')
  created.ssh('flock synermedgen/lock true')


def test_training_outlives_the_connection_that_started_it(worker):
  assert worker.worker('start', '--workdir=gs://b/run').returncode == 0
  wait_for(worker.calls)
  assert worker.calls() == [
    f'{worker.work}/code -u -m synermedgen_jax.main --distributed'
    ' --workdir=gs://b/run'
  ]
  assert not (worker.work / 'status').exists()


@pytest.mark.parametrize('status', ['0', '75', '1'])
def test_follow_ends_with_the_status_of_training(worker, status):
  worker.worker('start', '--workdir=gs://b/run')
  worker.end_training(status)
  assert worker.worker('follow').returncode == int(status)


def test_follow_waits_for_the_end_of_training(worker):
  worker.worker('start', '--workdir=gs://b/run')
  following = subprocess.Popen(
    ['bash', worker.work / 'code/launch/tpu_worker.sh', 'follow'],
    env=worker.env,
    stdout=subprocess.DEVNULL,
  )
  with pytest.raises(subprocess.TimeoutExpired):
    following.wait(timeout=0.3)
  worker.end_training('0')
  assert following.wait(timeout=10) == 0


def test_processes_that_outlive_training_do_not_count_as_training(worker):
  python = worker.work / '.venv/bin/python'
  python.write_text('#!/bin/sh\n/bin/sleep 60 &\necho $! > "$FAKES/left"\n')
  worker.worker('start', '--workdir=gs://b/run')
  try:
    assert worker.worker('follow').returncode == 0
  finally:
    os.kill(int((worker.fakes / 'left').read_text()), signal.SIGKILL)


def test_a_second_start_finds_the_training_that_goes_on(worker):
  worker.worker('start', '--workdir=gs://b/run')
  wait_for(worker.calls)
  assert worker.worker('start', '--workdir=gs://b/run').returncode == 0
  worker.end_training('0')
  worker.worker('follow')
  assert len(worker.calls()) == 1


def test_training_with_other_options_is_not_taken_for_this_one(worker):
  worker.worker('start', '--workdir=gs://b/run')
  wait_for(worker.calls)
  done = worker.worker('start', '--workdir=gs://b/other')
  assert_refused(done, 'other options', '--workdir=gs://b/run')


def test_training_that_has_ended_is_started_again(worker):
  worker.end_training('75')
  for _ in range(2):
    worker.worker('start', '--workdir=gs://b/run')
    assert worker.worker('follow').returncode == 75
  assert len(worker.calls()) == 2


def test_a_worker_that_went_down_without_a_word_is_to_be_started_again(worker):
  worker.end_training('0')
  worker.worker('start', '--workdir=gs://b/run')
  worker.worker('follow')
  (worker.fakes / 'end').unlink()
  worker.worker('start', '--workdir=gs://b/run')
  wait_for(lambda: len(worker.calls()) == 2)
  worker.signal(signal.SIGKILL)
  assert worker.worker('follow').returncode == 75


def test_a_shutdown_of_the_worker_leaves_training_the_time_to_save(worker):
  worker.worker('start', '--workdir=gs://b/run')
  wait_for(worker.calls)
  worker.signal(signal.SIGHUP, signal.SIGTERM)  # as systemd ends a session
  assert worker.worker('follow').returncode == 75
  assert (worker.work / 'status').read_text() == '75\n'


def test_new_code_comes_to_a_worker_unless_training_goes_on(worker):
  worker.fake('python3')
  new = worker.home / 'new'
  shutil.copytree(ROOT / 'launch', new / 'launch')
  (new / 'requirements.txt').write_text('')
  worker.ssh('tar -czf synermedgen.tar.gz -C new .')
  (worker.work / 'code' / 'old.py').write_text('')

  worker.worker('start', '--workdir=gs://b/run')
  assert worker.ssh(UNPACK).returncode == 0
  assert (worker.work / 'code' / 'old.py').exists()

  worker.end_training('0')
  worker.worker('follow')
  assert worker.ssh(UNPACK).returncode == 0
  assert not (worker.work / 'code' / 'old.py').exists()
  assert worker.calls('python3') == [
    'python3 -m pip install --quiet --user uv',
    'python3 -m uv pip install --quiet --python .venv/bin/python'
    ' -r code/requirements.txt jax[tpu] gcsfs',
  ]
