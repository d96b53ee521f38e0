"""Progress of a run: console, logs in its workdir, profiler traces."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from etils.epath import Path
from jaxtyping import Int

from synermedgen_jax.core.progress import Bar, say
from synermedgen_jax.training.incidents import Describe, Incidents
from synermedgen_jax.training.metrics_log import (
  Clock,
  Meter,
  MetricsLog,
  Terms,
  memory,
  rates,
)


class Record:
  """Logs the steps of a run; a context manager.

  Attributes:
    clock: times of steps and of waiting for data.
    shown: whether this process prints.
  """

  def __init__(
    self,
    workdir: Path,
    start: int,
    steps: int,
    describe: Describe,
    *,
    name: str,
    rate: optax.Schedule,
    max_bad_steps: int,
    step_utilisation: float,
  ):
    """
    Args:
      workdir: folder of the run.
      start: step from which the run resumes, 0 for a new run.
      steps: last step of the run.
      describe: maps numbers of examples to task, case, modality and slice.
      name: shown on the progress bar.
      rate: learning rate by step.
      max_bad_steps: largest number of skipped steps in a row.
      step_utilisation: see `rates`.
    """
    self.clock = Clock()
    self._rate = rate
    self._step_utilisation = step_utilisation
    self._meter = Meter()
    self._metrics = MetricsLog(workdir, start)
    self._incidents = Incidents(workdir, start, describe, at_most=max_bad_steps)
    self._pending = ()
    self.shown = jax.process_index() == 0
    self._bar = Bar(name, steps, 'step', done=start, shown=self.shown)

  def __enter__(self) -> Record:
    return self

  def __exit__(self, *_) -> None:
    self._bar.close()
    self._metrics.close()

  def add(
    self,
    step: int,
    sums: Terms,
    numbers: Int[np.ndarray, 'b n'],
  ) -> None:
    """Keeps the terms of a step and reads those of the previous step.

    The device computes this step while the previous one is read.

    Raises:
      BadStepsError: too many steps in a row contained NaN or Inf.
    """
    self._read()
    self._pending = (step, sums, numbers)
    self._bar.update()
    self.clock.step_ends()

  def row(self, step: int) -> dict[str, float]:
    """Metrics of the steps since the previous row."""
    self._read()
    means, times = self._meter.means(), self.clock.row()
    self._bar.note(f'loss {means.get("loss", math.nan):.4f}')
    return {
      **means,
      **times,
      **rates(means, times['steps_per_second'], self._step_utilisation),
      **memory(),
      # The optimiser does not count skipped steps.
      'learning_rate': float(self._rate(step - 1 - self._incidents.skipped)),
      'skipped_steps': self._incidents.skipped,
    }

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes a row and restarts the clock, so that logging is not timed."""
    self._metrics.write(step, values)
    self.clock.restart()

  def _read(self) -> None:
    if self._pending:
      step, sums, numbers = self._pending
      self._pending = ()
      sums = jax.device_get(sums)
      self._meter.add(sums)
      if message := self._incidents.inspect(step, sums, numbers):
        say(message, sys.stdout)


class ProfilerWindow:
  """Traces steps `start` to `start + steps - 1` into WORKDIR/profile."""

  def __init__(self, workdir: Path, start: int, steps: int):
    self._directory = workdir / 'profile'
    self._steps = range(start, start + steps)
    self._traces = False

  def __enter__(self) -> ProfilerWindow:
    return self

  def __exit__(self, *_) -> None:
    if self._traces:
      jax.profiler.stop_trace()

  def begins(self, step: int) -> None:
    if step in self._steps and not self._traces:
      jax.profiler.start_trace(str(self._directory))
      self._traces = True

  def ends(self, step: int, result: Any) -> None:
    if self._traces and step + 1 not in self._steps:
      jax.block_until_ready(result)
      jax.profiler.stop_trace()
      self._traces = False
