"""A run of several processes, killed and resumed, equals an undisturbed one."""

import itertools
import random
import signal
import time

import numpy as np
import pytest
from nano_processes import Job, ended, kill, wait_until

STEPS = 12
VALUES = {
  'steps': STEPS,
  'log_every': 1,
  'val_every': 0,
  'checkpoint_every': 2,
  'keep': 2,
  'decay': 'constant',  # does not depend on how many steps are asked for
}


@pytest.fixture(scope='module')
def job(nano_runs, shared_path, tmp_path_factory):
  """Makes jobs, each in a workdir of its own."""
  names = itertools.count()

  def make(**values) -> Job:
    workdir = tmp_path_factory.mktemp('processes') / str(next(names))
    programs = shared_path / 'programs_of_processes'
    return Job(nano_runs, workdir, programs, VALUES | values)

  return make


@pytest.fixture(scope='module')
def undisturbed(job):
  """By number of processes: a run that nothing happened to."""
  runs = {}

  def get(processes: int) -> Job:
    if processes not in runs:
      runs[processes] = job()
      runs[processes].run(processes)
    return runs[processes]

  return get


def assert_same_losses(actual: Job, expected: Job) -> None:
  assert actual.losses().keys() == expected.losses().keys()
  assert actual.losses() == pytest.approx(expected.losses(), rel=1e-5)
  assert actual.examples() == expected.examples()


def assert_same_run(actual: Job, expected: Job) -> None:
  """Asserts that losses, examples and arrays are equal to the bit."""
  assert actual.losses() == expected.losses()
  assert actual.examples() == expected.examples()
  arrays = actual.saved(STEPS)
  for name, array in expected.saved(STEPS).items():
    np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_an_undisturbed_run_sees_other_examples_in_every_step(undisturbed):
  examples = undisturbed(1).examples()
  assert sorted(examples) == list(range(1, STEPS + 1))
  numbers = [n for rows in examples.values() for row in rows for n in row]
  assert len(set(numbers)) == len(numbers) >= 8 * STEPS


@pytest.mark.parametrize(
  'processes', [2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_several_processes_have_the_losses_of_one(undisturbed, processes):
  assert_same_losses(undisturbed(processes), undisturbed(1))


@pytest.mark.slow
def test_heads_may_lie_on_different_processes(job, undisturbed):
  split = job()
  split.run(2, mesh=(1, 1, 2))
  # Both processes hold and describe all rows.
  assert split.losses() == pytest.approx(undisturbed(1).losses(), rel=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_another_mesh_and_number_of_processes(
  job, undisturbed
):
  moved = job()
  for steps, processes, devices, mesh in (
    (4, 1, 8, (8, 1, 1)),
    (8, 1, 8, (2, 4, 1)),
    (10, 2, 2, (2, 1, 2)),
    (12, 1, 8, (8, 1, 1)),
  ):
    moved.run(processes, devices, mesh=mesh, steps=steps)
  assert moved.losses() == pytest.approx(undisturbed(1).losses(), rel=1e-5)
  for step, rows in undisturbed(1).examples().items():
    if step not in (9, 10):  # told by one of two processes alone
      assert moved.examples()[step] == rows


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_a_notice_to_any_process_ends_all_after_one_saved_step(
  job, undisturbed, processes
):
  noticed = job()
  started = noticed.start(processes)
  wait_until(lambda: (noticed.workdir / 'metrics.jsonl').exists(), started)
  started[-1].send_signal(signal.SIGTERM)
  assert ended(started) == [75] * processes, noticed.log()
  last = max(noticed.losses())
  assert 1 <= last < STEPS
  assert f'stopped after step {last}, which is saved.' in noticed.log()
  assert (noticed.workdir / 'checkpoints' / str(last)).is_dir()
  noticed.run(processes)
  assert_same_run(noticed, undisturbed(processes))


@pytest.mark.slow
def test_where_one_process_fails_none_waits_for_it(job):
  failing = job()
  started = failing.start(2, fails='1:3')
  begun = time.monotonic()
  codes = ended(started)
  assert codes[1] == 1
  assert codes[0] not in (0, 75)
  assert 'Error: the store is gone.' in failing.log(1)
  # At the usual end, all would meet, or wait for five minutes.
  assert time.monotonic() - begun < 200


@pytest.mark.slow
def test_data_that_one_process_cannot_read_stop_all(job, undisturbed):
  damaged = job()
  damaged.run(2, steps=4)
  state = damaged.workdir / 'checkpoints' / '4' / 'data' / 'stream_3.json'
  state.write_text(state.read_text()[:10])
  damaged.run(2)
  assert [p.name[:2] for p in (damaged.workdir / 'damaged').iterdir()] == ['4.']
  assert 'step 2 goes on.' in damaged.log(0)
  assert_same_run(damaged, undisturbed(2))


def being_saved(job: Job) -> bool:
  return any((job.workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp'))


def disturb(job: Job, processes: int, rng: random.Random, *, saving: bool):
  """Starts the job and kills all of it at some moment of its training.

  Args:
    job: to start, or to go on with.
    processes: of the job.
    rng: draws the moment.
    saving: kill it while a checkpoint is written.

  Returns:
    Whether it was killed; it may have ended before.
  """
  trace = job.workdir / 'trace_0.jsonl'
  before = trace.read_text() if trace.exists() else ''
  started = job.start(processes)
  try:
    alive = wait_until(
      lambda: trace.exists() and trace.read_text() != before, started
    )
    if saving:
      alive = alive and wait_until(lambda: being_saved(job), started)
      time.sleep(rng.random() * 0.05)
    else:
      time.sleep(rng.random())
    return alive and all(p.poll() is None for p in started)
  finally:
    rng.shuffle(started)
    kill(started)


def torture(job: Job, processes: int, kills: int, seed: int) -> int:
  """Kills a job again and again, and runs it to its end; how often it died."""
  rng = random.Random(seed)
  deaths = sum(
    disturb(job, processes, rng, saving=number % 2 == 0)
    for number in range(kills)
  )
  job.run(processes)
  return deaths


@pytest.mark.parametrize(
  'processes', [pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_a_run_that_was_killed_is_the_undisturbed_run(
  job, undisturbed, processes
):
  killed = job()
  assert torture(killed, processes, kills=1, seed=processes) >= 1
  assert_same_run(killed, undisturbed(processes))


@pytest.mark.slow
def test_a_run_that_was_killed_at_twenty_moments_is_too(job, undisturbed):
  deaths, seeds = 0, itertools.count()
  while deaths < 20:
    seed = next(seeds)
    assert seed < 20
    killed, processes = job(), 1 + seed % 2
    deaths += torture(killed, processes, 4, seed)
    assert_same_run(killed, undisturbed(processes))
