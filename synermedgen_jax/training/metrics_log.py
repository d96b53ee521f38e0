"""Metrics of a run: means of loss terms, step times, rates, and their files."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from etils.epath import Path
from jaxtyping import Float

from synermedgen_jax.core import files
from synermedgen_jax.core.batch import Array
from synermedgen_jax.core.errors import UserError


@flax.struct.dataclass
class Terms(Mapping):
  """{term: (sum, count)} in one array.

  Reading sixty small arrays from a device would take a millisecond per step.

  Attributes:
    numbers: sum and count of each term, float32.
    names: names of the terms, sorted.
  """

  numbers: Float[Array, 'terms 2']
  names: tuple[str, ...] = flax.struct.field(pytree_node=False)

  @classmethod
  def of(cls, terms: Mapping[str, tuple]) -> Terms:
    """Stacks scalar sums and counts."""
    names = tuple(sorted(terms))
    pairs = [jnp.stack(terms[name]) for name in names]
    return cls(jnp.stack(pairs).astype(jnp.float32), names)

  def __getitem__(self, name: str) -> tuple:
    if name not in self.names:
      raise KeyError(name)
    return tuple(self.numbers[self.names.index(name)])

  def __iter__(self) -> Iterator[str]:
    return iter(self.names)

  def __len__(self) -> int:
    return len(self.names)


class Meter:
  """Averages terms over several steps, on the host in float64."""

  def __init__(self):
    self._averages: dict[str, metrics.Average] = {}

  def add(self, sums: Mapping[str, tuple]) -> None:
    """Adds {term: (sum, count)} of one step; NumPy values."""
    for name, (total, count) in sums.items():
      step = metrics.Average(np.float64(total), np.float64(count))
      running = self._averages.get(name)
      self._averages[name] = running.merge(step) if running else step

  def means(self) -> dict[str, float]:
    """Returns the mean of every term with a count, and resets the meter."""
    means = {
      name: float(average.compute())
      for name, average in self._averages.items()
      if average.count > 0
    }
    self._averages = {}
    return means


class Clock:
  """Times of the steps between two rows of metrics, in seconds."""

  def __init__(self, now: Callable[[], float] = time.perf_counter):
    self._now = now
    self.restart()

  def restart(self) -> None:
    self._last = self._now()
    self._steps: list[float] = []
    self._waited = 0.0

  def next(self, iterator: Iterator) -> Any:
    """Returns the next element; its time counts as waiting for data."""
    before = self._now()
    element = next(iterator)
    self._waited += self._now() - before
    return element

  def step_ends(self) -> None:
    now = self._now()
    self._steps.append(now - self._last)
    self._last = now

  def row(self) -> dict[str, float]:
    """Step rate, median and 95th percentile of step times, share of waiting.

    Times are taken on the host, which is at most one step ahead of the device.
    `data_wait` is the share of the time spent waiting for data.
    """
    elapsed = sum(self._steps)
    median, slow = np.percentile(self._steps, (50, 95))
    return {
      'steps_per_second': len(self._steps) / elapsed,
      'step_seconds/p50': float(median),
      'step_seconds/p95': float(slow),
      'data_wait': self._waited / elapsed,
    }


class WriteError(UserError, OSError):
  """A file of the workdir cannot be written."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
  """Turns an `OSError` into a `WriteError` that names the file."""
  try:
    yield
  except OSError as error:
    raise WriteError(
      f'{path}: cannot be written ({error.strerror}). Free some space and run '
      'the same command again: it resumes from the newest checkpoint.'
    ) from None


def write_atomically(path: Path, text: str) -> None:
  """Replaces a file; readers see the old or the new content."""
  with writing(path):
    files.write_text(path, text)


class StepLog:
  """A file of JSON rows, each with a step; process 0 writes it.

  Rows after `start` are removed, because a resumed run writes them again.
  """

  def __init__(self, path: Path, start: int):
    self.path = path
    self.rows = [row for row in _rows(path) if row['step'] <= start]
    self._leads = jax.process_index() == 0
    self._text = ''.join(f'{json.dumps(row)}\n' for row in self.rows)
    if self._leads and path.exists():
      write_atomically(path, self._text)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    if not self._leads:
      return
    line = json.dumps({'step': step, **values}) + '\n'
    self._text += line
    if files.is_object(self.path):  # objects cannot be appended to
      write_atomically(self.path, self._text)
    else:
      with writing(self.path), self.path.open('a', encoding='utf-8') as file:
        file.write(line)


class MetricsLog:
  """Writes metrics to `metrics.jsonl` and TensorBoard."""

  def __init__(self, workdir: Path, start: int):
    self._file = StepLog(workdir / 'metrics.jsonl', start)
    self._events = None
    if jax.process_index() == 0:
      self._folder = workdir / 'tensorboard'
      with writing(self._folder):
        self._folder.mkdir(parents=True, exist_ok=True)
        self._events = _TensorBoard(f'{self._folder}/events', start + 1)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    self._file.write(step, values)
    if self._events:
      with writing(self._folder):
        self._events.write(step, values)

  def close(self) -> None:
    if self._events:
      with writing(self._folder):
        self._events.close()


class _TensorBoard:
  """An event file of TensorBoard."""

  def __init__(self, prefix: str, first: int):
    """Starts a file; TensorBoard discards earlier events from step `first`."""
    # It imports PyTorch where that is installed: only training waits for it.
    from tensorboardX import event_file_writer
    from tensorboardX.proto import event_pb2

    self._event = event_pb2.Event
    # SummaryWriter's thread blocks forever after a failed write.
    self._writer = event_file_writer.EventsWriter(prefix)
    session = event_pb2.SessionLog(
      status=event_pb2.SessionLog.SessionStatus.START
    )
    self._writer.write_event(
      self._event(wall_time=time.time(), step=first, session_log=session)
    )

  def write(self, step: int, values: Mapping[str, float]) -> None:
    event = self._event(wall_time=time.time(), step=step)
    for name, value in values.items():
      event.summary.value.add(tag=name, simple_value=value)
    self._writer.write_event(event)
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
  """The rows of a log, without an incomplete last row."""
  if path.exists():
    for line in path.read_text('utf-8').splitlines():
      with contextlib.suppress(ValueError):
        yield json.loads(line)


def rates(
  means: Mapping[str, float], steps_per_second: float, utilisation: float = 0.0
) -> dict[str, float]:
  """Tokens and images per second and utilisation, over all devices.

  Args:
    means: 'tokens/und', 'tokens/gen' and 'images' per step.
    steps_per_second: measured step rate.
    utilisation: share of the peak rate that one step per second uses; 0 =
      unknown.
  """
  tokens = means.get('tokens/und', 0.0) + means.get('tokens/gen', 0.0)
  values = {
    'tokens_per_second': tokens * steps_per_second,
    'images_per_second': means.get('images', 0.0) * steps_per_second,
  }
  if utilisation:
    values['utilisation'] = utilisation * steps_per_second
  return values


def memory() -> dict[str, float]:
  """Peak memory of this process in GiB, on the host and on a device."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
  values = {'memory/host_gib': peak / 2**20}
  device = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in device:
    values['memory/device_gib'] = device['peak_bytes_in_use'] / 2**30
  return values
