"""Means of losses, times of steps, and rows after a resumption."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from synermedgen_jax.training.metrics_log import (
  Clock,
  Meter,
  MetricsLog,
  Terms,
  WriteError,
)


def test_a_meter_divides_once():
  meter = Meter()
  meter.add({'loss': (6.0, 3.0), 'never': (0.0, 0.0)})
  meter.add({'loss': (10.0, 1.0), 'never': (0.0, 0.0), 'once': (1.0, 4.0)})
  # 16 / 4, and not the mean of 2 and 10.
  assert meter.means() == {'loss': 4.0, 'once': 0.25}
  assert meter.means() == {}


def write_rows(workdir, *steps, end=''):
  rows = [json.dumps({'step': step, 'loss': 0.5}) for step in steps]
  (workdir / 'metrics.jsonl').write_text('\n'.join(rows) + '\n' + end)


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path):
  write_rows(tmp_path, 1, 2, 3, 4, end='{"step": 5, "lo')
  log = MetricsLog(tmp_path, 2)
  log.write(3, {'loss': 0.25})
  log.close()
  rows = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert list(map(json.loads, rows)) == [
    {'step': 1, 'loss': 0.5},
    {'step': 2, 'loss': 0.5},
    {'step': 3, 'loss': 0.25},
  ]


def test_a_line_cut_off_before_the_checkpoint_is_forgotten(tmp_path):
  write_rows(tmp_path, 1, 2, end='{"step": 3')
  MetricsLog(tmp_path, 9).close()
  rows = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(row)['step'] for row in rows] == [1, 2]


def test_a_row_is_on_disk_when_it_is_written(tmp_path):
  log = MetricsLog(tmp_path, 0)
  log.write(1, {'loss': 2.0})
  written = (tmp_path / 'metrics.jsonl').read_text()
  log.close()
  assert json.loads(written) == {'step': 1, 'loss': 2.0}


def test_a_clock_measures_steps_and_waiting():
  # Start; then of each step: before and after the data, and its end.
  now = iter([10.0, 10.0, 10.5, 12.0, 12.0, 12.5, 13.0, 13.0, 13.0, 14.0])
  clock = Clock(lambda: next(now))
  for expected in 'abc':
    assert clock.next(iter(expected)) == expected
    clock.step_ends()
  assert clock.row() == {
    'steps_per_second': 3 / 4,
    'step_seconds/p50': 1.0,  # of 2, 1 and 1
    'step_seconds/p95': pytest.approx(1.9),
    'data_wait': 1 / 4,
  }


def test_a_clock_that_begins_again_forgets():
  now = iter([0.0, 0.0, 3.0, 3.0, 100.0, 100.0, 100.5, 101.0])
  clock = Clock(lambda: next(now))
  clock.next(iter('a'))
  clock.step_ends()
  clock.restart()  # validation and writing are nobody's step
  clock.next(iter('b'))
  clock.step_ends()
  assert clock.row()['steps_per_second'] == 1
  assert clock.row()['data_wait'] == 0.5


def test_a_tensorboard_that_cannot_be_written_is_an_error(
  tmp_path, monkeypatch
):
  log = MetricsLog(tmp_path, 0)
  log.write(1, {'loss': 2.0})

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(EventsWriter, 'flush', full)
  with pytest.raises(WriteError, match='tensorboard: cannot be written'):
    log.write(2, {'loss': 1.0})


def test_tensorboard_has_every_value_of_every_row(tmp_path):
  log = MetricsLog(tmp_path, 4)
  log.write(5, {'loss': 2.0, 'val/loss': 0.5})
  log.close()
  (path,) = (tmp_path / 'tensorboard').iterdir()
  _, begun, row = events(path)
  assert (begun.step, begun.session_log.status) == (5, SessionLog.START)
  assert row.step == 5
  assert {v.tag: v.simple_value for v in row.summary.value} == {
    'loss': 2.0,
    'val/loss': 0.5,
  }


def events(path):
  """Events of a file: length, checksum, bytes, checksum, repeated."""
  data = path.read_bytes()
  while data:
    (length,) = struct.unpack('<Q', data[:8])
    yield Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]


SCALARS = {'loss': (jnp.float32(6), 2), 'grad_norm': (jnp.float32(5), 1.0)}


def test_terms_come_from_a_compiled_function_as_one_array():
  terms = jax.device_get(jax.jit(lambda: Terms.of(SCALARS))())
  (array,) = jax.tree.leaves(terms)
  np.testing.assert_array_equal(array, [[5, 1], [6, 2]])
  assert dict(terms) == {'grad_norm': (5.0, 1.0), 'loss': (6.0, 2.0)}
  assert len(terms) == 2


def test_names_of_terms_are_known_without_computing():
  shapes = jax.eval_shape(lambda: Terms.of(SCALARS))
  assert set(shapes) == {'loss', 'grad_norm'}
  assert shapes.numbers.shape == (2, 2)


def test_a_missing_term_is_named():
  with pytest.raises(KeyError, match='flow'):
    Terms.of(SCALARS)['flow']
