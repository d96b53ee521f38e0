"""Description: the model describes one slice in words.

The facts come from the case: modality, region, plane, level, and lesions where
`prepare` had a mask. The answer is scored by facts, not by its wording
(`tasks/facts.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image
from synermedgen_jax.tasks.facts import (
  SIDES,
  SIZES,
  Facts,
  facts_of,
  level_of,
  write,
)
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import draw


def build(pair: Pair, pool: Pool, rng: np.random.Generator) -> Example:
  """Source slice, question -> 'axial CT of the brain, upper third; no lesion'.

  Args:
    pair: its source slice is described.
    pool: the wordings.
    rng: draws the wordings of question and answer.
  """
  image = SliceRef(pair.case.id, pair.route.source, pair.index)
  question = draw(pool.prompts.slice_questions, rng)
  facts = facts_of(pair.case, image.modality, image.index)
  answer = write(draw(pool.prompts.slice_answers, rng), facts)
  return _example(image, question, answer, pair.route)


def longest(pool: Pool) -> Iterator[Example]:
  """Every wording of descriptions with as many facts as the cases may have.

  They refer to no slices: their lengths are those of the pool's examples.
  """
  places = {
    (
      modality,
      case.region,
      case.plane,
      level_of(case.plane, case.usable, index),
    )
    for case in pool.cases
    for modality in case.modalities
    for index in case.usable
  }
  lesions = [('', '', '')]
  if any(case.lesions is not None for case in pool.cases):
    lesions = itertools.product(('yes',), SIDES, SIZES)
  stated = itertools.product(places, lesions, pool.prompts.slice_answers)
  answers = {
    write(template, Facts(modality.label, region.label, *place, *lesion))
    for (modality, region, *place), lesion, template in stated
  }
  image = SliceRef('', next(iter(pool.by_modality)), 0)
  for question in pool.prompts.slice_questions:
    for answer in sorted(answers):
      yield _example(image, question, answer)


def _example(
  image: SliceRef, question: str, answer: str, route: Route | None = None
) -> Example:
  spans = (vit_image(image), text(question), text(answer, has_loss=True))
  return Example('description', spans, answer, route)
