"""What a run tells of itself: means of the losses, times, and where they go."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter


class Meter:
  """Adds up sums and counts of several steps; means on demand."""

  def __init__(self):
    self.sums: dict[str, np.ndarray] = {}

  def add(self, sums: Mapping[str, tuple]) -> None:
    for name, (value, count) in jax.device_get(sums).items():
      self.sums[name] = self.sums.get(name, 0.0) + np.array([value, count])

  def means(self) -> dict[str, float]:
    """The mean of every term that occurred, and a fresh start."""
    out = {
      name: float(value / count)
      for name, (value, count) in self.sums.items()
      if count > 0
    }
    self.sums = {}
    return out


class Clock:
  """Where the time between two rows of metrics goes."""

  def __init__(self, now: Callable[[], float] = time.perf_counter):
    self._now = now
    self.restart()

  def restart(self) -> None:
    self._last = self._now()
    self._steps: list[float] = []
    self._waited = 0.0

  def next(self, iterator: Iterator) -> Any:
    """The iterator's next element; the time it takes counts as waiting."""
    before = self._now()
    element = next(iterator)
    self._waited += self._now() - before
    return element

  def step_ends(self) -> None:
    now = self._now()
    self._steps.append(now - self._last)
    self._last = now

  def row(self) -> dict[str, float]:
    """What the steps since the start took.

    Steps are timed on the host, which is at most one ahead of the device.
    `data_wait` is the share of the time that the data were waited for.
    """
    elapsed = sum(self._steps)
    median, slow = np.percentile(self._steps, (50, 95))
    return {
      'steps_per_second': len(self._steps) / elapsed,
      'step_seconds/p50': float(median),
      'step_seconds/p95': float(slow),
      'data_wait': self._waited / elapsed,
    }


class MetricsLog:
  """Writes metrics to `metrics.jsonl` and TensorBoard."""

  def __init__(self, workdir: Path, start: int):
    self.path = workdir / 'metrics.jsonl'
    self._forget_after(start)
    self.file = self.path.open('a')
    self.tensorboard = SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=start + 1
    )

  def _forget_after(self, step: int) -> None:
    """A resumed run writes again what came after its checkpoint."""
    if self.path.exists():
      rows = [
        line
        for line in self.path.read_text().splitlines()
        if _step_of(line) <= step
      ]
      partial = self.path.with_name(f'.{self.path.name}.partial')
      partial.write_text(''.join(f'{line}\n' for line in rows))
      partial.replace(self.path)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    self.file.write(json.dumps({'step': step, **values}) + '\n')
    self.file.flush()
    for name, value in values.items():
      self.tensorboard.add_scalar(name, value, step)

  def close(self) -> None:
    self.file.close()
    self.tensorboard.close()


def _step_of(line: str) -> float:
  """The step of a row of metrics; infinite for one cut off by a crash."""
  try:
    return json.loads(line)['step']
  except ValueError:
    return float('inf')
