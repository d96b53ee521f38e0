"""One thread runs jobs in order; they can be stopped, and errors are lines."""

import threading

import pytest
from serving_fakes import eventually

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.serving.jobs import Jobs, QueueError


@pytest.fixture
def jobs():
  queue = Jobs()
  yield queue
  queue.close()


@pytest.fixture
def gate():
  event = threading.Event()
  yield event
  event.set()


def state(jobs, job):
  return jobs.states(job.owner)[job.id]


def finished(jobs, job):
  """The state of a job that has ended."""
  ends = ('done', 'failed', 'stopped')
  eventually(lambda: state(jobs, job)['state'] in ends)
  return state(jobs, job)


def held(gate):
  """Work that waits for the gate, then reports two slices."""

  def run(job):
    job.total = 2
    assert gate.wait(20)
    job.advance(1)
    job.advance(1)
    return {'thread': threading.current_thread().name}

  return run


def test_jobs_run_one_after_the_other_in_one_thread(jobs, gate):
  first, second, third = (
    jobs.submit(owner, 'translate', held(gate)) for owner in 'aab'
  )
  eventually(lambda: state(jobs, first)['state'] == 'running')
  assert state(jobs, second) | {'state': 'queued', 'ahead': 1} == state(
    jobs, second
  )
  assert state(jobs, third)['ahead'] == 2
  assert state(jobs, third)['cold']
  gate.set()
  results = [finished(jobs, job)['result'] for job in (first, second, third)]
  assert results == [{'thread': 'model'}] * 3
  assert state(jobs, third)['finished'] == state(jobs, third)['total'] == 2
  assert not state(jobs, third)['cold']


def test_an_owner_sees_its_own_jobs_alone(jobs, gate):
  job = jobs.submit('a', 'read', held(gate))
  assert set(jobs.states('a')) == {job.id}
  assert jobs.states('b') == {}


def test_errors_are_one_line_and_the_next_job_runs(jobs, gate, capfd):
  def wrong(job):
    raise UserError('ct.nii.gz: is empty.')

  def broken(job):
    raise ZeroDivisionError('a bug')

  def without_memory(job):
    raise MemoryError

  gate.set()
  lines = [
    finished(jobs, jobs.submit('a', 'read', run))['error']
    for run in (wrong, broken, without_memory)
  ]
  assert lines[0] == 'ct.nii.gz: is empty.'
  assert lines[1] == (
    'The app failed (ZeroDivisionError); the terminal in which it runs shows '
    'the traceback.'
  )
  assert lines[2].startswith('out of memory')
  assert 'a bug' in capfd.readouterr().err
  assert finished(jobs, jobs.submit('a', 'read', held(gate)))['state'] == 'done'


def test_a_running_job_is_stopped_at_its_next_report(jobs, gate):
  running = jobs.submit('a', 'translate', held(gate))
  waiting = jobs.submit('a', 'translate', held(gate))
  other = jobs.submit('a', 'ask', held(gate))
  eventually(lambda: state(jobs, running)['state'] == 'running')
  jobs.stop('a', 'translate')
  assert state(jobs, waiting)['state'] == 'stopped'
  assert state(jobs, running)['state'] == 'running'
  gate.set()
  assert finished(jobs, running)['state'] == 'stopped'
  assert state(jobs, running)['finished'] == 0
  assert finished(jobs, other)['state'] == 'done'


def test_an_owner_is_forgotten_once_its_job_has_stopped(jobs, gate):
  running = jobs.submit('a', 'translate', held(gate))
  jobs.submit('a', 'translate', held(gate))
  other = jobs.submit('b', 'translate', held(gate))
  eventually(lambda: state(jobs, running)['state'] == 'running')
  done = []
  jobs.drop('a', lambda: done.append('a'))
  assert jobs.states('a') == {}
  assert not done  # the job may still write
  gate.set()
  assert finished(jobs, other)['state'] == 'done'
  assert done == ['a']
  jobs.drop('b', lambda: done.append('b'))
  assert done == ['a', 'b']


def test_unfinished_jobs_of_an_owner_are_bounded(jobs, gate):
  for _ in range(8):
    jobs.submit('a', 'translate', held(gate))
  with pytest.raises(QueueError, match='8 jobs'):
    jobs.submit('a', 'translate', held(gate))
  jobs.submit('b', 'translate', held(gate))


def test_the_end_stops_everything(gate):
  jobs = Jobs()
  running = jobs.submit('a', 'translate', held(gate))
  waiting = jobs.submit('b', 'translate', held(gate))
  eventually(lambda: state(jobs, running)['state'] == 'running')
  threading.Timer(0.1, gate.set).start()
  jobs.close()
  assert state(jobs, running)['state'] == 'stopped'
  assert state(jobs, waiting)['state'] == 'stopped'
  with pytest.raises(QueueError):
    jobs.submit('a', 'read', held(gate))
