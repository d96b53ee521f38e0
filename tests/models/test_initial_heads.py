"""Heads that start out comparing: where a fresh model looks."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.bagel import Bagel, init_params
from synermedgen_jax.models.presets import preset
from synermedgen_jax.scenes import questions, sources


def letters_right(model, n=64):
  """How often a fresh model answers with the letter of the same picture."""
  params = nn.unbox(init_params(model, jax.random.key(0)))
  tokenizer = project_tokenizer()
  geometry = model.image_geometry(vit_side=64, vae_side=64)
  capacity = Capacity(60, 0, 20, 0)
  rows, answers = [], []
  rng = np.random.default_rng(0)
  for _ in range(n):
    example = questions.view(sources.SPLITS['val'], rng, (1, 0, 0, 0))
    answers.append(questions.LETTERS.index(example.answer))
    features = packing.tokenise(
      example, tokenizer, geometry, lambda picture: picture.read()
    )
    row = packing.concatenate_row([features], capacity)
    rows.append(packing.finish_row(row, geometry))
  batch = packing.to_batch(jax.tree.map(lambda *x: np.stack(x), *rows))
  module = Bagel(model)
  streams = module.apply(
    {'params': params}, batch, None, None, method=Bagel.embed_batch
  )
  hidden, _ = module.apply({'params': params}, streams, method=Bagel.backbone)
  logits = module.apply({'params': params}, hidden['und'], method=Bagel.logits)
  place = int(np.flatnonzero(batch.ntp_weight[0])[0])
  letters = [tokenizer.encode(letter)[0] for letter in questions.LETTERS]
  said = np.asarray(logits)[:, place][:, letters].argmax(1)
  return np.mean(said == answers)


def test_a_fresh_model_compares_better_than_chance():
  assert letters_right(preset('small')) > 0.4


def test_heads_that_do_not_fit_are_refused():
  model = preset('small')
  wide = dataclasses.replace(model.llm, head_dim=64)
  with pytest.raises(ValueError, match='third of the width'):
    init_params(dataclasses.replace(model, llm=wide), jax.random.key(0))
