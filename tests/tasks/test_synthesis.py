import numpy as np
from hypothesis import given
from task_fakes import build, case_of, pairs, routes, seeds, texts, wordings

from synermedgen_jax.core.modalities import ROUTES, Modality
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.example import SliceRef
from synermedgen_jax.tasks.pairs import Pair
from synermedgen_jax.tasks.prompts import PAPER, SHORT


@given(pairs(), seeds, wordings)
def test_the_condition_comes_before_the_noised_target(pair, seed, prompts):
  case, route, index = pair.case, pair.route, pair.index
  example = build(synthesis, pair, seed, prompts=prompts)
  assert [(s.kind, s.mode) for s in example.spans] == [
    ('vae_image', 'full'),
    ('vit_image', 'full'),
    ('text', 'causal'),
    ('vae_image', 'noise'),
  ]
  source = SliceRef(case.id, route.source, index)
  target = SliceRef(case.id, route.target, index)
  images = [s.image for s in example.spans]
  assert images == [source, source, None, target]
  assert texts(example)[0] in prompts.describe(route)
  assert (example.route, example.answer) == (route, '')


@given(pairs(), seeds)
def test_the_same_seed_builds_the_same_example(pair, seed):
  first, second = (build(synthesis, pair, seed) for _ in range(2))
  assert first == second


def test_every_wording_is_used():
  rng = np.random.default_rng(0)
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  used = {texts(build(synthesis, pair, rng))[0] for _ in range(200)}
  assert used == set(PAPER.describe(ROUTES[0]))


@given(routes, wordings)
def test_the_prompt_of_inference_has_the_canonical_wording(route, prompts):
  source = SliceRef('a', route.source, 3)
  target = SliceRef('b', route.target, 4)
  example = synthesis.prompt(route, source, target, prompts)
  assert texts(example) == [prompts.canonical(route)]
  assert [s.image for s in example.spans] == [source, source, None, target]
  assert example.prompt == example


def test_literal_prompt():
  route = ROUTES[0]
  ref = SliceRef('a', Modality.CBCT, 3)
  example = synthesis.prompt(route, ref, ref, SHORT)
  assert texts(example) == ['convert brain CBCT to CT']
