"""TIA, transformation instruction alignment.

The model selects the description that fits a pair of slices.
"""

from __future__ import annotations

import numpy as np

from synermedgen_jax.core.modalities import ROUTES, Route
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  label,
  text,
  vit_image,
)
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import LETTERS, TIA_SOURCE, TIA_TARGET


def build(pair: Pair, pool: Pool, rng: np.random.Generator) -> Example:
  """Source slice, target slice, four described routes -> a letter.

  Args:
    pair: the pair of slices.
    pool: the wordings and the routes of wrong options.
    rng: draws the wrong routes, their order and every wording.
  """
  case, route, index = pair.case, pair.route, pair.index
  routes = [route, route.reverse, *_draw_wrong_pair(route, pool, rng)]
  routes = [routes[i] for i in rng.permutation(len(routes))]
  answer = LETTERS[routes.index(route)]
  spans = [
    vit_image(SliceRef(case.id, route.source, index)),
    label(TIA_SOURCE),
    vit_image(SliceRef(case.id, route.target, index)),
    label(TIA_TARGET),
    text(pool.prompts.draw_tia(rng)),
  ]
  for letter, option in zip(LETTERS, routes, strict=True):
    spans += [text(pool.prompts.draw_description(option, rng)), label(letter)]
  spans.append(text(answer, has_loss=True))
  return Example('tia', tuple(spans), answer, route)


def _draw_wrong_pair(
  route: Route, pool: Pool, rng: np.random.Generator
) -> tuple[Route, Route]:
  """Both directions of another pair of modalities, preferably a near one.

  The right pair is an option in both directions. A single direction of the
  other pair would stand out, and the words alone would halve the choice. So
  would a pair that the pool never asks about: the other pair is one of the
  pool's, and one of the paper's routes only if the pool has no other. The same
  two modalities in another region are excluded: they would be half true.
  """
  pair = {route.source, route.target}

  def other_than(routes):
    return [r for r in routes if {r.source, r.target} != pair]

  others = other_than(pool.both_ways) or other_than(ROUTES)
  weights = np.array(
    [
      1 + (r.region == route.region) + 8 * bool(pair & {r.source, r.target})
      for r in others
    ]
  )
  wrong = others[rng.choice(len(others), p=weights / weights.sum())]
  return wrong, wrong.reverse
