"""What a run tells of itself: on the console, and in files of its workdir."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from etils.epath import Path
from jaxtyping import Int
from tqdm import tqdm

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
  """Follows the steps of a run; use it as a context.

  Attributes:
    clock: where the time goes.
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
      workdir: of the run.
      start: the step from which it goes on.
      steps: its last step.
      describe: what examples are, by their numbers.
      name: shown on the progress bar.
      rate: the learning rate by step.
      max_bad_steps: so many skipped steps in a row are borne.
      step_utilisation: see `rates`.
    """
    self.clock = Clock()
    self._rate = rate
    self._step_utilisation = step_utilisation
    self._meter = Meter()
    self._metrics = MetricsLog(workdir, start)
    self._incidents = Incidents(workdir, start, describe, at_most=max_bad_steps)
    self._pending = ()
    self._bar = tqdm(
      total=steps,
      initial=start,
      desc=name,
      unit='step',
      smoothing=0.05,
      dynamic_ncols=True,
      disable=jax.process_index() > 0,
    )

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
    """Takes a step's terms, and reads those of the step before.

    The device is busy with this step while the last one is read.

    Raises:
      BadStepsError: too many steps in a row were not finite.
    """
    self._read()
    self._pending = (step, sums, numbers)
    self._bar.update()
    self.clock.step_ends()

  def row(self, step: int) -> dict[str, float]:
    """All that is told of the steps since the last row, which end here."""
    self._read()
    means, times = self._meter.means(), self.clock.row()
    self._bar.set_postfix(loss=f'{means.get("loss", math.nan):.4f}')
    return {
      **means,
      **times,
      **rates(means, times['steps_per_second'], self._step_utilisation),
      **memory(),
      # The optimiser counts no skipped step.
      'learning_rate': float(self._rate(step - 1 - self._incidents.skipped)),
      'skipped_steps': self._incidents.skipped,
    }

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes a row; what it took to make is on nobody's clock."""
    self._metrics.write(step, values)
    self.clock.restart()

  def _read(self) -> None:
    if self._pending:
      step, sums, numbers = self._pending
      self._pending = ()
      sums = jax.device_get(sums)
      self._meter.add(sums)
      if said := self._incidents.look_at(step, sums, numbers):
        self._bar.write(said)


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
