"""Percentile intervals by bootstrap over subjects (Efron 1979).

A number is a mean over groups (routes, or one task) of a ratio of sums over
subjects: the sum of SSIM over the number of scored subjects, or right answers
over questions. A resample draws subjects with replacement and keeps the number
of subjects of each dataset. All numbers and arms share the resamples, so
differences are paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class GroupSums:
  """Numerators and denominators of a number.

  Attributes:
    values: sums per group and subject.
    counts: number of summands per group and subject; 0 = not measured.
  """

  values: Float[np.ndarray, 'groups subjects']
  counts: Float[np.ndarray, 'groups subjects']


def resamples(
  strata: Sequence[str], count: int, seed: int
) -> Int[np.ndarray, 'count subjects']:
  """Draws `count` resamples; returns how often each contains each subject.

  Args:
    strata: dataset of each subject. Every resample has the same number of
      subjects per dataset.
    count: number of resamples.
    seed: random seed.
  """
  rng = np.random.default_rng(seed)
  names = np.asarray(strata)
  drawn = np.zeros((count, len(names)), np.int64)
  for name in sorted(set(strata)):
    subjects = np.flatnonzero(names == name)
    drawn[:, subjects] = rng.multinomial(
      len(subjects), np.full(len(subjects), 1 / len(subjects)), size=count
    )
  return drawn


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


def interval(values: Float[np.ndarray, ' count']) -> tuple[float, float]:
  """The 2.5th and 97.5th percentile of the resampled numbers."""
  tail = 50 * (1 - LEVEL)
  low, high = np.percentile(values, (tail, 100 - tail))
  return float(low), float(high)
