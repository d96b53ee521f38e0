"""Percentile intervals by bootstrap over subjects (Efron 1979).

A number is a mean over groups (routes, or one task) of a ratio of sums over
subjects: the sum of SSIM over the number of scored subjects, or right answers
over questions. A resample draws, of the n subjects of each dataset, n - 1 with
replacement (Rao and Wu 1988): with n, the variance of a mean would be too small
by the factor (n - 1) / n. All numbers and arms share the resamples, so
differences are paired.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

LEVEL = 0.95
NO_INTERVAL = (np.nan, np.nan)


@dataclasses.dataclass(frozen=True)
class GroupSums:
  """Numerators and denominators of a number.

  Attributes:
    values: sums per group and subject.
    counts: number of summands per group and subject; 0 = not measured.
  """

  values: Float[np.ndarray, 'groups subjects']
  counts: Float[np.ndarray, 'groups subjects']

  @property
  def measured(self) -> Bool[np.ndarray, ' subjects']:
    """The subjects that any group has measured."""
    return self.counts.any(axis=0)


@dataclasses.dataclass(frozen=True)
class Resamples:
  """Resamples of subjects.

  Attributes:
    weights: how often each resample contains each subject. Every resample
      contains the only subject of a dataset once.
    strata: dataset of each subject.
  """

  weights: Int[np.ndarray, 'count subjects']
  strata: Sequence[str]

  @classmethod
  def draw(cls, strata: Sequence[str], count: int, seed: int) -> Resamples:
    """Draws resamples.

    Args:
      strata: dataset of each subject.
      count: number of resamples.
      seed: random seed.
    """
    rng = np.random.default_rng(seed)
    names = np.asarray(strata)
    weights = np.ones((count, len(names)), np.int64)
    for name in sorted(set(strata)):
      subjects = np.flatnonzero(names == name)
      if len(subjects) > 1:
        shares = np.full(len(subjects), 1 / len(subjects))
        weights[:, subjects] = rng.multinomial(len(subjects) - 1, shares, count)
    return cls(weights, strata)

  def interval(
    self,
    values: Float[np.ndarray, ' count'],
    measured: Bool[np.ndarray, ' subjects'],
  ) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of a number of each resample.

    Args:
      values: the numbers.
      measured: the subjects that they depend on.

    Returns:
      Lower and upper end; `NO_INTERVAL`, NaN, if only one subject of a dataset
      is measured, since nothing states how its subjects vary.
    """
    if 1 in Counter(np.asarray(self.strata)[measured].tolist()).values():
      return NO_INTERVAL
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)


def number(
  sums: GroupSums, weights: Int[np.ndarray, 'count subjects']
) -> Float[np.ndarray, ' count']:
  """Computes the number for each weighting of the subjects.

  A group without measured subjects of positive weight is left out of the mean.

  Args:
    sums: numerators and denominators.
    weights: how often each subject counts. Ones give the number on all
      subjects, rows of `resamples` its bootstrap distribution.
  """
  values = weights @ sums.values.T
  counts = weights @ sums.counts.T
  present = counts > 0
  ratios = np.where(present, values / np.where(present, counts, 1), 0.0)
  return ratios.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
