"""Intervals by bootstrap over subjects (Efron 1979), percentiles.

A number is a mean over groups (routes, or one task) of a ratio of sums over
subjects: SSIM summed over how many were scored, right answers over asked ones.
A resample draws subjects with replacement, as many from each dataset as there
are; the same draw serves every number and every arm, so differences are
paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class GroupSums:
  """What a number is made of.

  Attributes:
    values: summed per group and subject.
    counts: of how many, in the same places; 0 = not measured.
  """

  values: Float[np.ndarray, 'groups subjects']
  counts: Float[np.ndarray, 'groups subjects']


def resamples(
  strata: Sequence[str], count: int, seed: int
) -> Int[np.ndarray, 'count subjects']:
  """How often each subject is drawn, in each of `count` resamples.

  Args:
    strata: the dataset of each subject; each keeps its number of subjects.
    count: how many resamples.
    seed: of the draws.
  """
  rng = np.random.default_rng(seed)
  names = np.asarray(strata)
  drawn = np.zeros((count, len(names)), np.int64)
  for name in sorted(set(strata)):
    places = np.flatnonzero(names == name)
    drawn[:, places] = rng.multinomial(
      len(places), np.full(len(places), 1 / len(places)), size=count
    )
  return drawn


def number(
  sums: GroupSums, weights: Int[np.ndarray, 'count subjects']
) -> Float[np.ndarray, ' count']:
  """The number, once for each weighting of the subjects.

  A group whose subjects all weigh nothing is left out of that mean.

  Args:
    sums: of the number.
    weights: how often each subject counts; ones for the number itself.
  """
  top = weights @ sums.values.T
  below = weights @ sums.counts.T
  present = below > 0
  ratios = np.where(present, top / np.where(present, below, 1), 0.0)
  return ratios.sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def interval(values: Float[np.ndarray, ' count']) -> tuple[float, float]:
  """The middle 95 % of the resampled numbers."""
  tail = 50 * (1 - LEVEL)
  low, high = np.percentile(values, (tail, 100 - tail))
  return float(low), float(high)
