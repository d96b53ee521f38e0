"""Intervals of a route's SSIM over subjects, and the routes that are won.

A mean above another says little about a few subjects. A route is a win if the
95 % interval of the paired difference to the better trivial baseline is above
zero. Subjects of a route are resampled alike, whatever their dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from synermedgen_jax.evaluation.bootstrap import Resamples

TRIVIAL = ('copy_source', 'mean_target')
RESAMPLES = 2000
_SEED = 0

DEFINITION = {
  'interval': 'lower and upper end of the 95 % bootstrap interval of the SSIM '
  'in the body mask: 2.5th and 97.5th percentile of the means of '
  f'{RESAMPLES} resamples, each of one subject less than there are, drawn with '
  'replacement; null with one subject; with two or three it spans their range',
  'better_baseline': 'the one of copy_source and mean_target with the higher '
  'mean SSIM on the route',
  'difference': "the model's SSIM less that of better_baseline, paired within "
  'each subject: mean over the subjects, lower and upper end of its interval; '
  'null with one subject',
  'win': 'the lower end of difference is above zero; a route with one subject '
  'is no win',
}

Scores = Float[np.ndarray, ' subjects']


def interval_of(scores: Scores) -> tuple[float, float] | None:
  """The 95 % bootstrap interval of a mean over subjects.

  Args:
    scores: one number per subject.

  Returns:
    Its ends; None with one subject.
  """
  if len(scores) < 2:
    return None
  alike = [''] * len(scores)
  drawn = Resamples.draw(alike, RESAMPLES, _SEED)
  means = drawn.weights @ scores / (len(scores) - 1)
  return drawn.interval(means, np.ones(len(scores), bool))


def judge(model: Scores, baselines: Mapping[str, Scores]) -> dict[str, Any]:
  """Intervals of one route, and whether it is a win.

  Args:
    model: SSIM of the model, per subject.
    baselines: baseline -> SSIM of the same subjects, with one or both of
      `TRIVIAL`; others are ignored.

  Returns:
    interval, better_baseline, difference and win, see `DEFINITION`.
  """
  trivial = [name for name in TRIVIAL if name in baselines]
  better = max(trivial, key=lambda name: baselines[name].mean())
  paired = model - baselines[better]
  own, ends = interval_of(model), interval_of(paired)
  return {
    'interval': own and [*own],
    'better_baseline': better,
    'difference': ends and [float(paired.mean()), *ends],
    'win': ends is not None and ends[0] > 0,
  }
