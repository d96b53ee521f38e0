"""CTS, conditional target selection.

The model selects the target slice that belongs to a source slice. The negatives
are neighbours of the true slice in the same volume, so the answer depends on
fine anatomy and not on the subject.
"""

from __future__ import annotations

import numpy as np

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  label,
  text,
  vit_image,
)
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import LETTERS

CANDIDATES = len(LETTERS)


def eligible(pair: Pair, pool: Pool) -> bool:
  """Whether the pair's case has as many usable slices as candidates.

  Raises:
    UserError: `pool.neighbours` is smaller than the number of negatives.
  """
  if pool.neighbours < CANDIDATES - 1:
    raise UserError(
      f'CTS draws {CANDIDATES - 1} negatives: neighbours must be at least '
      f'that, got {pool.neighbours}.'
    )
  usable = pair.case.usable
  return len(usable) >= CANDIDATES and pair.index in usable


def build(pair: Pair, pool: Pool, rng: np.random.Generator) -> Example:
  """Source slice, question, four lettered candidates -> a letter.

  Args:
    pair: an `eligible` one.
    pool: its `neighbours` and wordings.
    rng: draws the negatives, their order and the question.

  Raises:
    ValueError: the pair is not eligible.
  """
  case, route, index = pair.case, pair.route, pair.index
  if not eligible(pair, pool):
    raise ValueError(
      f'Case {case.id!r}: CTS cannot ask about slice {index}, its usable '
      f'slices are {case.usable} and {CANDIDATES} are needed.'
    )
  candidates = _draw_candidates(case.usable, index, rng, pool.neighbours)
  answer = LETTERS[candidates.index(index)]
  spans = [
    vit_image(SliceRef(case.id, route.source, index)),
    text(pool.prompts.draw_cts(route, rng)),
  ]
  for letter, candidate in zip(LETTERS, candidates, strict=True):
    spans.append(vit_image(SliceRef(case.id, route.target, candidate)))
    spans.append(label(letter))
  spans.append(text(answer, has_loss=True))
  return Example('cts', tuple(spans), answer, route)


def _draw_candidates(
  usable: range, index: int, rng: np.random.Generator, neighbours: int
) -> list[int]:
  """The true slice and its negatives, shuffled.

  All come from one window of K + 1 slices in which the true one may lie
  anywhere. With negatives drawn from ±K around it, the true slice would tend
  to be the middle one, and the candidates alone would give the answer away.
  """
  size = min(neighbours + 1, len(usable))
  first = max(usable.start, index - size + 1)
  last = min(usable.stop - size, index)
  start = int(rng.integers(first, last + 1))
  others = [i for i in range(start, start + size) if i != index]
  negatives = rng.choice(others, CANDIDATES - 1, replace=False)
  return rng.permutation([index, *negatives]).tolist()
