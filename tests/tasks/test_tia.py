import collections

import numpy as np
from hypothesis import given
from task_fakes import (
  FakeCase,
  build,
  case_of,
  pairs,
  seeds,
  texts,
  wordings,
)

from synermedgen_jax.core.modalities import (
  ROUTES,
  Modality,
  Region,
  all_routes,
)
from synermedgen_jax.tasks import tia
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import PAPER, PROMPTS

ROUTE_OF = {
  description: route
  for prompts in PROMPTS.values()
  for route in all_routes()
  for description in prompts.describe(route)
}
QUESTIONS = [
  question for prompts in PROMPTS.values() for question in prompts.tia
]


def options(example):
  """Letter -> route, read off the words."""
  first, second, question, *named = texts(example.prompt)
  assert (first, second) == ('first', 'second')
  assert question in QUESTIONS
  # A letter follows what it names.
  words, letters = named[::2], named[1::2]
  return {a: ROUTE_OF[w] for a, w in zip(letters, words, strict=True)}


@given(pairs(), seeds, wordings)
def test_one_option_is_right_and_one_its_reverse(pair, seed, prompts):
  case, route, index = pair.case, pair.route, pair.index
  example = build(tia, pair, seed, prompts=prompts)
  source, target = (s.image for s in example.spans if s.image)
  assert (source.modality, target.modality) == (route.source, route.target)
  assert {source.case, target.case} == {case.id}
  assert {source.index, target.index} == {index}
  by_letter = options(example)
  assert list(by_letter) == ['A', 'B', 'C', 'D']
  assert by_letter[example.answer] == route
  wrong = [r for letter, r in by_letter.items() if letter != example.answer]
  assert route.reverse in wrong
  assert all(
    (r.source, r.target) != (route.source, route.target) for r in wrong
  )


@given(pairs(), seeds)
def test_options_are_two_pairs_in_both_directions(pair, seed):
  """So the words alone do not favour the right pair or direction."""
  example = build(tia, pair, seed)
  texts = set(options(example).values())
  assert len(texts) == 4
  assert {route.reverse for route in texts} == texts


def test_options_are_those_that_the_pool_asks_about():
  """So the words alone do not exclude the wrong pair."""
  modalities = dict.fromkeys((Modality.CBCT, Modality.CT, Modality.MR))
  case = FakeCase(Region.PELVIS, modalities, (10, 30))
  for route in case.routes:
    for seed in range(20):
      example = build(tia, Pair(case, route, 20), seed)
      assert set(options(example).values()) == {*case.routes}


def test_the_wrong_pair_is_of_the_paper_where_the_pool_has_no_other():
  case = case_of(ROUTES[0])
  rng = np.random.default_rng(0)
  drawn = {
    route
    for _ in range(100)
    for route in options(build(tia, Pair(case, ROUTES[0], 20), rng)).values()
  } - {*case.routes}
  assert drawn <= {*ROUTES}
  assert len(drawn) > 10


def test_a_pool_of_all_routes_draws_from_all():
  cases = [case_of(route) for route in ROUTES]
  assert Pool(cases).both_ways == ROUTES
  # In one direction, nothing has its reverse.
  assert Pool(cases, routes=[ROUTES[0].name]).both_ways == ()


@given(pairs(), seeds)
def test_only_the_answer_has_loss(pair, seed):
  example = build(tia, pair, seed)
  *question, answer = example.spans
  assert answer.has_loss
  assert answer.text == example.answer
  assert not any(s.has_loss for s in question)


@given(pairs(), seeds)
def test_the_same_seed_builds_the_same_example(pair, seed):
  first, second = (build(tia, pair, seed) for _ in range(2))
  assert first == second


def test_letters_are_balanced():
  rng = np.random.default_rng(0)
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  counts = collections.Counter(build(tia, pair, rng).answer for _ in range(400))
  assert sum((counts[k] - 100) ** 2 / 100 for k in 'ABCD') < 16.3  # p = 0.001


def test_right_and_wrong_options_use_every_wording_alike():
  rng = np.random.default_rng(0)
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  right, wrong = collections.Counter(), collections.Counter()
  for _ in range(400):
    example = build(tia, pair, rng)
    words, letters = texts(example.prompt)[3::2], texts(example.prompt)[4::2]
    for option, letter in zip(words, letters, strict=True):
      wording = PAPER.describe(ROUTE_OF[option]).index(option)
      counts = right if letter == example.answer else wrong
      counts[wording] += 1
  n = len(PAPER.descriptions)
  for counts, total in ((right, 400), (wrong, 1200)):
    expected = total / n
    chi = sum((counts[k] - expected) ** 2 / expected for k in range(n))
    assert chi < 24.3  # p = 0.001 at 7 degrees of freedom


def test_wrong_pairs_mostly_share_a_modality():
  rng = np.random.default_rng(0)
  shared = 0
  for i in range(440):
    route = ROUTES[i % len(ROUTES)]
    example = build(tia, Pair(case_of(route), route, 20), rng)
    pair = {route.source, route.target}
    others = {
      frozenset({r.source, r.target}) for r in options(example).values()
    } - {frozenset(pair)}
    shared += all(pair & other for other in others)
  assert shared > 0.6 * 440
