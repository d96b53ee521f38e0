import numpy as np
from hypothesis import given
from task_fakes import case_of, pairs, routes, seeds, texts

from synermedgen_jax.core.modalities import ROUTES, Modality
from synermedgen_jax.tasks import prompts, synthesis
from synermedgen_jax.tasks.example import SliceRef


@given(pairs(), seeds)
def test_the_condition_comes_before_the_noised_target(pair, seed):
  case, route, index = pair
  example = synthesis.build(case, route, index, np.random.default_rng(seed))
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
  assert texts(example)[0] in prompts.descriptions(route)
  assert (example.route, example.answer) == (route, '')


@given(pairs(), seeds)
def test_the_same_seed_builds_the_same_example(pair, seed):
  first, second = (
    synthesis.build(*pair, np.random.default_rng(seed)) for _ in range(2)
  )
  assert first == second


def test_every_wording_is_used():
  rng = np.random.default_rng(0)
  case = case_of(ROUTES[0])
  used = {
    texts(synthesis.build(case, ROUTES[0], 20, rng))[0] for _ in range(200)
  }
  assert used == set(prompts.descriptions(ROUTES[0]))
  assert used == set(prompts.descriptions(ROUTES[0]))


@given(routes)
def test_the_prompt_of_inference_has_the_canonical_wording(route):
  source = SliceRef('a', route.source, 3)
  target = SliceRef('b', route.target, 4)
  example = synthesis.prompt(route, source, target)
  assert texts(example) == [prompts.canonical_description(route)]
  assert [s.image for s in example.spans] == [source, source, None, target]
  assert example.prompt == example


def test_literal_prompt():
  route = ROUTES[0]
  ref = SliceRef('a', Modality.CBCT, 3)
  example = synthesis.prompt(route, ref, ref)
  assert texts(example) == ['convert brain CBCT to CT']
