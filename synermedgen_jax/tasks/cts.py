"""CTS, conditional target selection: which target slice goes with the source?

The negatives are neighbours of the true slice in its own volume, so the
answer lies in fine anatomy and not in who the subject is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.tasks import prompts
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case

CANDIDATES = len(prompts.LETTERS)


def indices(case: Case, neighbours: int = 3) -> range:
  """The slices of `case` that can be asked about; empty if too few.

  Args:
    case: with a range of usable slices.
    neighbours: K, how far a negative may lie from the true slice.
  """
  if neighbours < CANDIDATES - 1:
    raise ValueError(
      f'CTS draws {CANDIDATES - 1} negatives: neighbours must be at least '
      f'that, got {neighbours}.'
    )
  return case.usable if len(case.usable) >= CANDIDATES else range(0)


def build(
  case: Case,
  route: Route,
  index: int,
  rng: np.random.Generator,
  *,
  neighbours: int = 3,
) -> Example:
  """Source slice, question, four lettered candidates -> a letter.

  Args:
    case: the pair's case.
    route: source -> target.
    index: the slice of the pair, one of `indices`.
    rng: draws the negatives and their order.
    neighbours: K, how far a negative may lie from the true slice.
  """
  if index not in indices(case, neighbours):
    raise ValueError(
      f'Case {case.id!r}: CTS cannot ask about slice {index}, its usable '
      f'slices are {case.usable} and {CANDIDATES} are needed.'
    )
  candidates = _draw_candidates(case.usable, index, rng, neighbours)
  answer = prompts.LETTERS[candidates.index(index)]
  spans = [
    vit_image(SliceRef(case.id, route.source, index)),
    text(prompts.cts_question(route)),
  ]
  for letter, candidate in zip(prompts.LETTERS, candidates, strict=True):
    spans.append(vit_image(SliceRef(case.id, route.target, candidate)))
    spans.append(text(letter))
  spans.append(text(answer, has_loss=True))
  return Example('cts', tuple(spans), answer, route)


def _draw_candidates(
  usable: range, index: int, rng: np.random.Generator, neighbours: int
) -> list[int]:
  """The true slice and its negatives, shuffled.

  All come from one window of K + 1 slices in which the true one may lie
  anywhere. Drawn from ±K around it instead, it would tend to be the middle
  one, and the candidates alone would tell.
  """
  size = min(neighbours + 1, len(usable))
  first = max(usable.start, index - size + 1)
  last = min(usable.stop - size, index)
  start = int(rng.integers(first, last + 1))
  others = [i for i in range(start, start + size) if i != index]
  negatives = rng.choice(others, CANDIDATES - 1, replace=False)
  return rng.permutation([index, *negatives]).tolist()
