import dataclasses

import numpy as np
from hypothesis import given
from task_fakes import build, case_of, pairs, routes, seeds, texts, wordings

from synermedgen_jax.core.modalities import (
  BRATS_CONTRASTS,
  ROUTES,
  Modality,
  route_named,
)
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.example import (
  SliceRef,
  text,
  vae_image,
  vit_image,
)
from synermedgen_jax.tasks.pairs import Pair, Pool
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
  target = SliceRef('a', route.target, 3)
  example = synthesis.prompt(route, 'a', 3, prompts)
  assert texts(example) == [prompts.canonical(route)]
  assert [s.image for s in example.spans] == [source, source, None, target]
  assert example.prompt == example


def test_literal_prompt():
  example = synthesis.prompt(ROUTES[0], 'a', 3, SHORT)
  assert texts(example) == ['convert brain CBCT to CT']


THREE = route_named('brats_t1+t2+flair_to_t1ce')


def test_each_source_has_its_tokens_before_the_instruction():
  example = synthesis.prompt(THREE, 'a', 3, SHORT)
  t1, t2, flair, t1ce = (
    SliceRef('a', Modality(name), 3) for name in ('t1', 't2', 'flair', 't1ce')
  )
  assert example.spans == (
    vae_image(t1),
    vit_image(t1),
    vae_image(t2),
    vit_image(t2),
    vae_image(flair),
    vit_image(flair),
    text('convert brain T1 (MRI), T2 (MRI) and FLAIR (MRI) to T1CE (MRI)'),
    vae_image(t1ce, has_loss=True),
  )
  assert example.route == THREE


@given(seeds)
def test_a_pair_with_several_sources_is_built_as_it_is(seed):
  pair = Pair(case_of(THREE), THREE, 20)
  example = build(synthesis, pair, seed, prompts=SHORT)
  assert example.route == THREE
  shown = [s.image.modality for s in example.spans if s.kind == 'vae_image']
  assert shown == ['t1', 't2', 'flair', 't1ce']


def four_contrasts():
  """A case that has all routes between the contrasts of BraTS."""
  route = route_named('brats_t1_to_t1ce')
  return dataclasses.replace(
    case_of(route), modalities=dict.fromkeys(BRATS_CONTRASTS)
  )


def test_one_source_draws_the_wording_alone():
  """Examples of a seed are those of the library without several sources."""
  case, route = four_contrasts(), route_named('brats_t1_to_t1ce')
  for seed in range(20):
    rng, fresh = (np.random.default_rng(seed) for _ in range(2))
    example = build(synthesis, Pair(case, route, 20), rng, prompts=SHORT)
    words = str(fresh.choice(SHORT.describe(route)))
    assert texts(example) == [words]
    assert example.route == route
    assert rng.random() == fresh.random()


def test_drawn_sources_are_described_and_shown():
  case, route = four_contrasts(), route_named('brats_t2_to_t1ce')
  rng = np.random.default_rng(0)
  drawn = set()
  for _ in range(200):
    example = build(
      synthesis, Pair(case, route, 20), rng, prompts=SHORT, max_sources=3
    )
    assert texts(example)[0] in SHORT.describe(example.route)
    shown = [s.image.modality for s in example.spans if s.kind == 'vit_image']
    assert tuple(shown) == example.route.sources
    drawn.add(example.route.name)
  assert drawn == {
    'brats_t2_to_t1ce',
    'brats_t1+t2_to_t1ce',
    'brats_t2+flair_to_t1ce',
    'brats_t1+t2+flair_to_t1ce',
  }


def test_the_longest_examples_are_of_every_drawn_route_and_wording():
  pool = Pool([four_contrasts()], SHORT, max_sources=3)
  longest = list(synthesis.longest(pool))
  assert len({e.route for e in longest}) == 12 + 12 + 4
  assert len(longest) == 28 * len(SHORT.descriptions)
  assert max(len(e.spans) for e in longest) == 8
