"""Logs skipped steps and loss spikes with their examples."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils.epath import Path
from jax.experimental import multihost_utils
from jaxtyping import Int

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.training.metrics_log import StepLog

# Robust standard deviations above the recent losses at which a loss is a spike.
SPIKE = 10.0
_LOSSES = 100  # number of recent losses
_ENOUGH = 20  # losses needed before a spike is reported
_MAD = 1.4826  # standard deviation / median absolute deviation, if normal

# Quantities checked for NaN and Inf, in the order they are computed.
PARTS = ('loss', 'gradient', 'update')

# Numbers of examples -> their descriptions, see `TrainData.describe`.
Describe = Callable[[Int[np.ndarray, '...']], Sequence[Mapping[str, Any]]]


class BadStepsError(UserError):
  """Too many steps in a row contained NaN or Inf."""


class Incidents:
  """Writes skipped steps and spikes into WORKDIR/incidents.jsonl.

  A step is skipped if its loss, gradient or update contains NaN or Inf.
  """

  def __init__(
    self, workdir: Path, start: int, describe: Describe, *, at_most: int
  ):
    """
    Args:
      workdir: folder of the run.
      start: step from which the run resumes, 0 for a new run.
      describe: maps numbers of examples to task, case, modality and slice.
      at_most: largest number of skipped steps in a row.
    """
    self._log = StepLog(workdir / 'incidents.jsonl', start)
    self._describe = describe
    self._at_most = at_most
    self._in_a_row = 0
    self._losses = collections.deque(maxlen=_LOSSES)
    self.skipped = sum(row['kind'] == 'skipped' for row in self._log.rows)

  def inspect(
    self, step: int, sums: Mapping[str, tuple], numbers: Int[np.ndarray, 'b n']
  ) -> str:
    """Logs a skipped step or a spike; returns one line about it, or ''.

    Args:
      step: number of the step.
      sums: terms of the step on the host, {term: (sum, count)}.
      numbers: numbers of the examples in the rows of this process.

    Raises:
      BadStepsError: more than `at_most` steps in a row were skipped.
    """
    bad = [part for part in PARTS if sums[f'skipped/{part}'][0]]
    if bad:
      self.skipped += 1
      self._in_a_row += 1
      message = f'step {step} is skipped: its {bad[0]} is not finite'
      self._write(step, numbers, kind='skipped', cause=bad[0])
      if self._in_a_row > self._at_most:
        raise BadStepsError(
          f'{self._log.path}: {self._in_a_row} steps in a row up to step '
          f'{step} were not finite; the file lists their examples. Lower '
          'config.learning_rate, or correct the data.'
        )
      return message
    self._in_a_row = 0
    loss = float(sums['loss'][0])
    usual = self._spread()
    self._losses.append(loss)
    if usual and loss > usual[0] + SPIKE * usual[1]:
      self._write(step, numbers, kind='spike', loss=loss, usual=usual[0])
      return f'step {step}: the loss {loss:.4g} is a spike above {usual[0]:.4g}'
    return ''

  def _spread(self) -> tuple[float, float] | None:
    """The usual loss and its standard deviation, both robust."""
    if len(self._losses) < _ENOUGH:
      return None
    median = float(np.median(self._losses))
    spread = _MAD * float(np.median(np.abs(np.subtract(self._losses, median))))
    return median, max(spread, 1e-3 * abs(median))

  def _write(self, step: int, numbers, **values) -> None:
    # All processes see the same sums, so all of them reach this call.
    numbers = multihost_utils.process_allgather(numbers)
    self._log.write(step, {**values, 'examples': self._describe(numbers)})
