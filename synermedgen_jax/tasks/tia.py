"""TIA, transformation instruction alignment: which words fit this pair?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from synermedgen_jax.core.modalities import ROUTES, Route
from synermedgen_jax.tasks import prompts
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case


def build(
  case: Case, route: Route, index: int, rng: np.random.Generator
) -> Example:
  """Source slice, target slice, four described routes -> a letter.

  Args:
    case: the pair's case.
    route: source -> target.
    index: the slice of the pair.
    rng: draws the wrong routes, every wording, and the order.
  """
  routes = [route, route.reverse, *_draw_wrong_pair(route, rng)]
  routes = [routes[i] for i in rng.permutation(len(routes))]
  answer = prompts.LETTERS[routes.index(route)]
  spans = [
    vit_image(SliceRef(case.id, route.source, index)),
    text(prompts.TIA_SOURCE),
    vit_image(SliceRef(case.id, route.target, index)),
    text(prompts.TIA_TARGET),
    text(prompts.TIA_QUESTION),
  ]
  for letter, option in zip(prompts.LETTERS, routes, strict=True):
    spans += [text(_describe(option, rng)), text(letter)]
  spans.append(text(answer, has_loss=True))
  return Example('tia', tuple(spans), answer, route)


def _describe(route: Route, rng: np.random.Generator) -> str:
  return str(rng.choice(prompts.descriptions(route)))


def _draw_wrong_pair(
  route: Route, rng: np.random.Generator
) -> tuple[Route, Route]:
  """Both directions of another pair of modalities, preferably a near one.

  Both, since a lone direction would stand out from the right pair, which is
  there in both, and the words alone would halve the choice. The same two
  modalities in another region are left out: they would be half true.
  """
  pair = {route.source, route.target}
  others = [r for r in ROUTES if {r.source, r.target} != pair]
  weights = np.array(
    [
      1 + (r.region == route.region) + 8 * bool(pair & {r.source, r.target})
      for r in others
    ]
  )
  wrong = others[rng.choice(len(others), p=weights / weights.sum())]
  return wrong, wrong.reverse
