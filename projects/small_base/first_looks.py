"""Asks the small base which style of scenes each modality looks like.

  python -m projects.small_base.first_looks --store=STORE

Each question shows four training slices of one modality and asks for the style
of each. Prints how often each style was named, and the assignment of one style
per modality that agrees with most answers (`new_words.WORDS`).
"""

import collections

import numpy as np
from absl import app, flags
from scipy.optimize import linear_sum_assignment

from projects.small_base.scenes import questions, styles
from synermedgen_jax.checkpoint.weights_folder import load_weights
from synermedgen_jax.core.modalities import ROUTES, Modality
from synermedgen_jax.evaluation.routes import align
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.input.pipeline import slice_reader
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.slices.store import Case, SliceStore
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  label,
  text,
  vit_image,
)

_STORE = flags.DEFINE_string('store', None, 'Slice store.', required=True)
_WEIGHTS = flags.DEFINE_string(
  'weights', 'weights/small', 'Weights folder of the base.'
)
_QUESTIONS = flags.DEFINE_integer(
  'questions', 32, 'Questions per modality.', lower_bound=1
)


def _question(
  cases: list[Case], modality: Modality, rng: np.random.Generator
) -> Example:
  spans = [text(questions.STYLE_QUESTION)]
  for letter in questions.LETTERS:
    case = cases[rng.integers(len(cases))]
    index = int(rng.choice(case.usable))
    spans += [vit_image(SliceRef(case.id, modality, index)), label(letter)]
  return Example('style', tuple(spans))


def main(_) -> None:
  shape, params = load_weights(_WEIGHTS.value)
  store = SliceStore.open(_STORE.value)
  answerer = Answerer(
    Bagel(shape, Compute(dtype='float32')),
    params,
    project_tokenizer(),
    shape.image_geometry(vit_size=(64, 64), vae_size=(64, 64)),
    slice_reader(store),
  )
  rng = np.random.default_rng(0)
  counts = {}
  for modality in dict.fromkeys(route.source for route in ROUTES):
    cases = [c for c in store.split('train') if modality in c.modalities]
    if not cases:
      continue
    asked = [_question(cases, modality, rng) for _ in range(_QUESTIONS.value)]
    words = collections.Counter(' '.join(answerer.answer(asked)).split())
    counts[modality.label] = [words[style] for style in styles.NAMES]
  taken = linear_sum_assignment(list(counts.values()), maximize=True)[1]
  rows = [('', *styles.NAMES, 'starts as')]
  for (name, row), style in zip(counts.items(), taken, strict=True):
    rows.append((name, *map(str, row), styles.NAMES[style]))
  print(align(rows))


if __name__ == '__main__':
  app.run(main)
