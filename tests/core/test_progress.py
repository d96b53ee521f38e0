"""Progress of work as lines of a log."""

import io

import pytest
from clocks import Clock

from synermedgen_jax.core import compiling as compiling_module
from synermedgen_jax.core.compiling import compiling
from synermedgen_jax.core.progress import Bar, duration, each


@pytest.fixture
def clock():
  return Clock()


@pytest.fixture
def log():
  return io.StringIO()


def test_a_log_has_the_start_a_line_per_half_minute_and_the_end(clock, log):
  with Bar('stage1', 1300, 'step', done=300, stream=log, clock=clock) as bar:
    for _ in range(1000):
      clock.now += 0.125
      bar.update()
  assert log.getvalue().splitlines() == [
    'stage1: 300/1300 steps',
    'stage1: 540/1300 steps, 8 steps/s, 95 s left',
    'stage1: 780/1300 steps, 8 steps/s, 65 s left',
    'stage1: 1020/1300 steps, 8 steps/s, 35 s left',
    'stage1: 1260/1300 steps, 8 steps/s, 5 s left',
    'stage1: 1300/1300 steps in 2 min, 8 steps/s',
  ]


def test_the_rate_is_that_of_the_last_half_minute(clock, log):
  bar = Bar('train', 10, 'step', stream=log, clock=clock)
  clock.now = 60.0  # compilation
  bar.update()
  bar.note('loss 0.5000')
  for _ in range(3):
    clock.now += 10
    bar.update()
  assert log.getvalue().splitlines()[1:] == [
    'train: 1/10 steps, 0.0167 steps/s, 9 min left',
    'train: 4/10 steps, 0.1 steps/s, 60 s left, loss 0.5000',
  ]


def test_work_that_ends_early_ends_its_lines_once(clock, log):
  bar = Bar('ask', 8, 'question', stream=log, clock=clock)
  clock.now = 4.0
  bar.update(2)
  bar.close()
  bar.close()
  assert log.getvalue().splitlines() == [
    'ask: 0/8 questions',
    'ask: 2/8 questions in 4 s, 0.5 questions/s',
  ]


def test_bytes_are_counted_in_multiples_of_a_thousand(clock, log):
  bar = Bar('import', 2_000_000_000, 'B', stream=log, clock=clock)
  clock.now = 40.0
  bar.update(1_000_000_000)
  assert log.getvalue().splitlines()[1] == (
    'import: 1 GB of 2 GB, 25 MB/s, 40 s left'
  )


def test_quick_work_with_a_delay_prints_nothing(clock, log):
  options = {'delay': 0.5, 'stream': log, 'clock': clock}
  assert list(each('abc', 'score', 3, 'volume', **options)) == ['a', 'b', 'c']
  assert log.getvalue() == ''
  for _ in each('abc', 'score', 3, 'volume', **options):
    clock.now += 1
  assert log.getvalue().splitlines() == [
    'score: 1/3 volumes',
    'score: 3/3 volumes in 3 s, 1 volumes/s',
  ]


def test_only_one_process_prints(log):
  with Bar('train', 2, 'step', shown=False, stream=log) as bar:
    bar.update()
    bar.note('loss 1')
  assert log.getvalue() == ''


def test_a_terminal_has_a_bar(log, monkeypatch):
  monkeypatch.setattr(log, 'isatty', lambda: True, raising=False)
  with Bar('train', 2, 'step', stream=log) as bar:
    bar.update(2)
  assert '100%|' in log.getvalue()
  assert '\r' in log.getvalue()


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0.2, '0 s'), (119, '119 s'), (120, '2 min'), (7200, '2.0 h')],
)
def test_durations_have_a_unit_that_fits(seconds, text):
  assert duration(seconds) == text


def test_a_program_is_announced_once(monkeypatch, capsys):
  monkeypatch.setattr(compiling_module, '_announced', set())
  times = iter([10.0, 22.4])
  monkeypatch.setattr(compiling_module.time, 'monotonic', lambda: next(times))
  for _ in range(2):
    with compiling('the training step'):
      pass
  with compiling('another step', shown=False):
    pass
  assert capsys.readouterr().err.splitlines() == [
    'Compiling the training step ...',
    'Compiled the training step in 12 s.',
  ]
