"""The table of all scores that are computed by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from synermedgen_jax.evaluation.adherence import ADHERENCE
from synermedgen_jax.evaluation.scores import Score
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES

ALL_SCORES: Mapping[str, Score] = {**VOLUME_SCORES, **ADHERENCE}


def lines(
  results: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Iterator[str]:
  """Yields a line per score of volumes and route, one per score of adherence.

  Args:
    results: score -> route -> metric -> value.
  """
  for name, by_route in results.items():
    score = ALL_SCORES[name]
    if name in ADHERENCE:
      by_route = {f'mean of {len(by_route)} routes': _mean(by_route.values())}
    for route, values in by_route.items():
      yield f'{route}, {score.title}: {", ".join(score.texts(values))}'


def _mean(values: Collection[Mapping[str, float]]) -> dict[str, float]:
  """Metric -> its mean over the routes that have it."""
  names = dict.fromkeys(name for of_route in values for name in of_route)
  return {
    name: float(np.mean([v[name] for v in values if name in v]))
    for name in names
  }
