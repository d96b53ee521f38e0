"""Steps that went wrong, told with the examples that they were made with."""

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

# A loss is a spike beyond so many robust standard deviations of those before.
SPIKE = 10.0
_LOSSES = 100  # the spread is that of so many
_ENOUGH = 20  # losses, before any is called a spike
_MAD = 1.4826  # of a normal distribution, to its standard deviation

# What of a step may not be finite, in the order in which it is made.
PARTS = ('loss', 'gradient', 'update')

# Numbers of examples -> what they are, see `TrainData.describe`.
Describe = Callable[[Int[np.ndarray, '...']], Sequence[Mapping[str, Any]]]


class BadStepsError(UserError):
  """Step after step is not finite; one line."""


class Incidents:
  """Reads the sums of every step, and keeps those that stand out.

  WORKDIR/incidents.jsonl gets a row for a step whose loss or gradient was not
  finite, so that its update was skipped, and for one whose loss is a spike.
  """

  def __init__(
    self, workdir: Path, start: int, describe: Describe, *, at_most: int
  ):
    """
    Args:
      workdir: of the run.
      start: the step from which it goes on.
      describe: what examples are, by their numbers.
      at_most: so many skipped steps in a row are borne.
    """
    self._log = StepLog(workdir / 'incidents.jsonl', start)
    self._describe = describe
    self._at_most = at_most
    self._in_a_row = 0
    self._losses = collections.deque(maxlen=_LOSSES)
    self.skipped = sum(row['kind'] == 'skipped' for row in self._log.rows)

  def look_at(
    self, step: int, sums: Mapping[str, tuple], numbers: Int[np.ndarray, 'b n']
  ) -> str:
    """Tells what happened in a step, in a line; '' if nothing did.

    Args:
      step: which.
      sums: its terms on the host, {term: (sum, count)}.
      numbers: of the examples in this process's rows.

    Raises:
      BadStepsError: more than `at_most` steps in a row were skipped.
    """
    bad = [part for part in PARTS if sums[f'skipped/{part}'][0]]
    if bad:
      self.skipped += 1
      self._in_a_row += 1
      said = f'step {step} is skipped: its {bad[0]} is not finite'
      self._write(step, numbers, kind='skipped', cause=bad[0])
      if self._in_a_row > self._at_most:
        raise BadStepsError(
          f'{self._log.path}: {self._in_a_row} steps in a row up to step '
          f'{step} were not finite; the examples are told there. Lower '
          'config.learning_rate, or mend the data.'
        )
      return said
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
    # All processes see the same sums, so all of them come here.
    numbers = multihost_utils.process_allgather(numbers)
    self._log.write(step, {**values, 'examples': self._describe(numbers)})
