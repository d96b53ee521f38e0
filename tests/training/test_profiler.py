"""The profiler traces the requested steps, and no others."""

import jax
import jax.numpy as jnp
import pytest

from synermedgen_jax.training.record import ProfilerWindow


class Result:
  """Result of a step that records when it is waited for."""

  def __init__(self, step, events):
    self.step, self.events = step, events

  def block_until_ready(self):
    self.events.append(f'wait for {self.step}')


@pytest.fixture
def events(monkeypatch):
  events = []
  monkeypatch.setattr(
    jax.profiler, 'start_trace', lambda path: events.append(f'start {path}')
  )
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: events.append('stop'))
  return events


def go(workdir, events, start, steps, *, of):
  with ProfilerWindow(workdir, start, steps) as window:
    for step in of:
      window.begins(step)
      events.append(step)
      window.ends(step, {'loss': (Result(step, events), 1.0)})
  return events


def test_the_window_has_exactly_the_steps_asked_for(tmp_path, events):
  assert go(tmp_path, events, 3, 2, of=range(1, 7)) == [
    *(1, 2),
    f'start {tmp_path}/profile',
    *(3, 4),
    'wait for 4',
    'stop',
    *(5, 6),
  ]


def test_a_window_of_one_step(tmp_path, events):
  assert go(tmp_path, events, 1, 1, of=(1, 2)) == [
    f'start {tmp_path}/profile',
    1,
    'wait for 1',
    'stop',
    2,
  ]


@pytest.mark.parametrize('start', [0, 1, 3])
def test_no_steps_are_traced_where_none_are_asked_for(tmp_path, events, start):
  assert go(tmp_path, events, start, 0, of=range(1, 6)) == [1, 2, 3, 4, 5]
  assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_in_the_window_ends_the_trace_once(tmp_path, events):
  assert go(tmp_path, events, 3, 9, of=range(1, 5)) == [
    *(1, 2),
    f'start {tmp_path}/profile',
    *(3, 4),
    'stop',
  ]


def test_a_run_that_fails_in_the_window_ends_the_trace(tmp_path, events):
  def steps():
    yield from (1, 2)
    raise KeyError('data')

  with pytest.raises(KeyError):
    go(tmp_path, events, 2, 5, of=steps())
  assert events[-1] == 'stop'
  assert events.count('stop') == 1


def test_a_run_that_resumes_in_the_window_traces_the_rest(tmp_path, events):
  assert go(tmp_path, events, 3, 3, of=range(5, 8)) == [
    f'start {tmp_path}/profile',
    5,
    'wait for 5',
    'stop',
    *(6, 7),
  ]


def test_a_run_that_resumes_behind_the_window_traces_nothing(tmp_path, events):
  assert go(tmp_path, events, 3, 2, of=range(5, 8)) == [5, 6, 7]


def test_a_trace_is_left_in_the_workdir(tmp_path):
  with ProfilerWindow(tmp_path, 2, 1) as window:
    for step in (1, 2, 3):
      window.begins(step)
      window.ends(step, jnp.ones(2) + step)
  (trace,) = (tmp_path / 'profile').rglob('*.xplane.pb')
  assert trace.stat().st_size > 0
