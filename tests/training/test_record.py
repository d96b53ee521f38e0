"""Hand-computed figures of a logged row, and the progress bar."""

import json
import types

import jax
import numpy as np
import optax
import pytest

from synermedgen_jax.training import metrics_log, record
from synermedgen_jax.training.incidents import BadStepsError
from synermedgen_jax.training.metrics_log import Clock, memory, rates
from synermedgen_jax.training.record import Record

NUMBERS = np.array([[3, -1]])


class Time:
  """A clock that the test turns."""

  def __init__(self):
    self.now = 100.0

  def passes(self, seconds):
    self.now += seconds


@pytest.fixture
def time(monkeypatch):
  time = Time()
  monkeypatch.setattr(record, 'Clock', lambda: Clock(lambda: time.now))
  return time


def describe(numbers):
  return [{'number': int(n)} for n in np.unique(numbers) if n >= 0]


def follow(workdir, start=0, steps=10, **values):
  arguments = {
    'name': 'toy',
    'rate': optax.linear_schedule(0.0, 1.0, 10),
    'max_bad_steps': 3,
    'step_utilisation': 0.0,
  }
  return Record(workdir, start, steps, describe, **(arguments | values))


def sums(loss=1.0, *, bad=False, **terms):
  """A step's, as the compiled step gives them."""
  counted = {} if bad else {'loss': (loss, 1.0), **terms}
  return {
    'loss': (0.0, 0.0),
    **counted,
    'skipped/loss': (float(bad), 1.0),
    'skipped/gradient': (0.0, 1.0),
    'skipped/update': (0.0, 1.0),
  }


# Of a step: five of eight places, three images.
HEALTH = {
  'ntp/mi': (6.0, 3.0),
  'grad_norm': (5.0, 1.0),
  'grad_norm/vit': (3.0, 1.0),
  'fill/und': (5.0, 8.0),
  'tokens/und': (5.0, 1.0),
  'tokens/gen': (2.0, 1.0),
  'images': (3.0, 1.0),
}


def step_of(seconds, waits, time, log, step, values):
  def data():
    time.passes(waits)
    yield 'batch'

  log.clock.next(data())
  time.passes(seconds - waits)
  log.add(step, values, NUMBERS)


def test_a_row_has_every_figure(tmp_path, time, monkeypatch):
  monkeypatch.setattr(record, 'memory', lambda: {'memory/host_gib': 1.5})
  with follow(tmp_path, step_utilisation=0.25) as log:
    step_of(2.0, 0.5, time, log, 1, sums(2.0, **HEALTH))
    step_of(1.0, 0.5, time, log, 2, sums(4.0, **HEALTH))
    assert log.row(2) == {
      'loss': 3.0,
      'ntp/mi': 2.0,
      'grad_norm': 5.0,
      'grad_norm/vit': 3.0,
      'fill/und': 0.625,
      'tokens/und': 5.0,
      'tokens/gen': 2.0,
      'images': 3.0,
      'skipped/loss': 0.0,
      'skipped/gradient': 0.0,
      'skipped/update': 0.0,
      'steps_per_second': pytest.approx(2 / 3),
      'step_seconds/p50': 1.5,
      'step_seconds/p95': pytest.approx(1.95),
      'data_wait': pytest.approx(1 / 3),
      'tokens_per_second': pytest.approx(7 * 2 / 3),
      'images_per_second': 2.0,
      'utilisation': pytest.approx(0.25 * 2 / 3),
      'memory/host_gib': 1.5,
      'learning_rate': pytest.approx(0.1),  # of the second step
      'skipped_steps': 0,
    }


def test_unknown_utilisation_is_not_logged(tmp_path, time):
  with follow(tmp_path, step_utilisation=0.0) as log:
    step_of(2.0, 0.5, time, log, 1, sums())
    assert 'utilisation' not in log.row(1)


@pytest.mark.parametrize(('step', 'rate'), [(1, 0.0), (4, 0.3), (10, 0.9)])
def test_the_logged_learning_rate_is_that_of_the_step(
  tmp_path, time, step, rate
):
  with follow(tmp_path, start=step - 1) as log:
    step_of(1.0, 0.0, time, log, step, sums())
    assert log.row(step)['learning_rate'] == pytest.approx(rate)


def test_the_learning_rate_waits_for_skipped_steps_as_the_optimiser_does(
  tmp_path, time
):
  with follow(tmp_path) as log:
    for step, bad in enumerate((False, True, True, False), start=1):
      step_of(1.0, 0.0, time, log, step, sums(bad=bad))
    # The second update.
    assert log.row(4)['learning_rate'] == pytest.approx(0.1)


class OnDevice:
  """A number that notes when it is fetched."""

  def __init__(self, value, name, fetched):
    self.value, self.name, self.fetched = value, name, fetched

  def __array__(self, dtype=None, copy=None):
    self.fetched.append(self.name)
    return np.asarray(self.value, dtype)


def test_terms_are_read_one_step_late_and_none_is_lost(tmp_path, time):
  fetched, seen = [], []
  with follow(tmp_path) as log:
    for step in (1, 2, 3):
      loss = OnDevice(float(step), step, fetched), 1.0
      step_of(1.0, 0.0, time, log, step, sums(0.0) | {'loss': loss})
      seen.append(list(fetched))
    first = log.row(3)
    seen.append(list(fetched))
    loss = OnDevice(8.0, 4, fetched), 1.0
    log.write(3, first)
    step_of(1.0, 0.0, time, log, 4, sums(0.0) | {'loss': loss})
    second = log.row(4)
  assert seen == [[], [1], [1, 2], [1, 2, 3]]
  assert fetched == [1, 2, 3, 4]
  assert (first['loss'], second['loss']) == (2.0, 8.0)


def test_time_spent_writing_is_not_part_of_a_step(tmp_path, time):
  with follow(tmp_path) as log:
    step_of(1.0, 0.0, time, log, 1, sums())
    values = log.row(1)
    time.passes(50.0)  # a validation
    log.write(1, values)
    step_of(2.0, 1.0, time, log, 2, sums())
    row = log.row(2)
  assert row['step_seconds/p50'] == 2.0
  assert row['data_wait'] == 0.5


def test_rows_are_written_with_their_step(tmp_path, time):
  with follow(tmp_path) as log:
    log.write(2, {'loss': 0.5})
    log.write(4, {'loss': 0.25})
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert list(map(json.loads, lines)) == [
    {'step': 2, 'loss': 0.5},
    {'step': 4, 'loss': 0.25},
  ]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_skipped_steps_are_counted_over_the_whole_run(tmp_path, time):
  with follow(tmp_path) as log:
    for step, bad in enumerate((True, False, True), start=1):
      step_of(1.0, 0.0, time, log, step, sums(2.0, bad=bad))
    row = log.row(3)
    assert row['skipped_steps'] == 2
    assert row['skipped/loss'] == pytest.approx(2 / 3)
    assert row['loss'] == 2.0
    step_of(1.0, 0.0, time, log, 4, sums())
    # Those since the last row, and all of them.
    row = log.row(4)
    assert (row['skipped/loss'], row['skipped_steps']) == (0.0, 2)
  with follow(tmp_path, start=2) as log:
    step_of(1.0, 0.0, time, log, 3, sums())
    assert log.row(3)['skipped_steps'] == 1


def test_a_row_of_skipped_steps_alone_has_no_loss(tmp_path, time):
  with follow(tmp_path) as log:
    step_of(1.0, 0.0, time, log, 1, sums(bad=True))
    row = log.row(1)
  assert 'loss' not in row
  assert row['skipped_steps'] == 1
  assert row['tokens_per_second'] == 0.0


def test_an_incident_lists_the_examples_of_its_step(tmp_path, time):
  with follow(tmp_path) as log:
    log.add(1, sums(bad=True), np.array([[11, -1]]))
    log.add(2, sums(), np.array([[22, 23]]))
  (row,) = map(
    json.loads, (tmp_path / 'incidents.jsonl').read_text().splitlines()
  )
  assert (row['step'], row['examples']) == (1, [{'number': 11}])


def test_too_many_skipped_steps_end_the_run_a_step_later(tmp_path, time):
  with follow(tmp_path, max_bad_steps=1) as log:
    log.add(1, sums(bad=True), NUMBERS)
    log.add(2, sums(bad=True), NUMBERS)
    with pytest.raises(BadStepsError, match='2 steps in a row up to step 2 '):
      log.add(3, sums(), NUMBERS)


def test_the_lines_show_the_stage_the_step_and_the_loss(tmp_path, time, capfd):
  with follow(tmp_path, start=4, steps=10, name='stage1') as log:
    step_of(1.0, 0.0, time, log, 5, sums(0.12345))
    log.row(5)
  first, last = capfd.readouterr().err.splitlines()
  assert first == 'stage1: 4/10 steps'
  assert last.startswith('stage1: 5/10 steps in ')
  assert last.endswith(' steps/s, loss 0.1235')


def test_an_incident_is_printed(tmp_path, time, capfd):
  with follow(tmp_path) as log:
    step_of(1.0, 0.0, time, log, 1, sums(bad=True))
    log.row(1)
  out, err = capfd.readouterr()
  assert 'step 1 is skipped: its loss is not finite\n' in out
  assert ', loss nan\n' in err


def test_a_second_goes_through_what_its_steps_go_through():
  means = {'tokens/und': 100.0, 'tokens/gen': 20.0, 'images': 6.0}
  assert rates(means, 0.5) == {
    'tokens_per_second': 60.0,
    'images_per_second': 3.0,
  }
  assert rates(means, 2.0, 0.125)['utilisation'] == 0.25


def test_without_a_stream_there_are_none_of_its_tokens():
  assert rates({'tokens/und': 8.0}, 2.0) == {
    'tokens_per_second': 16.0,
    'images_per_second': 0.0,
  }


@pytest.fixture
def held(monkeypatch):
  """3 GiB on the host; on the device, what the test says."""
  usage = types.SimpleNamespace(ru_maxrss=3 * 2**20)
  monkeypatch.setattr(metrics_log.resource, 'getrusage', lambda _: usage)

  def on_device(stats):
    device = types.SimpleNamespace(memory_stats=lambda: stats)
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])

  return on_device


def test_memory_is_the_most_that_was_held(held):
  held({'peak_bytes_in_use': 5 * 2**30, 'bytes_in_use': 2**30})
  assert memory() == {'memory/host_gib': 3.0, 'memory/device_gib': 5.0}


@pytest.mark.parametrize('stats', [None, {}, {'bytes_in_use': 9}])
def test_a_device_without_memory_statistics_has_no_row(held, stats):
  held(stats)
  assert memory() == {'memory/host_gib': 3.0}


def test_this_process_holds_some_memory():
  assert 0.05 < memory()['memory/host_gib'] < 1000
