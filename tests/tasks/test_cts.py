import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_fakes import build, case_of, pairs, seeds, texts, wordings

from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.tasks import cts
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import PAPER, SHORT


def candidates(example):
  """Letter -> slice, read off the spans."""
  spans = example.spans[2:-1]
  return {
    letter.text: image.image
    for image, letter in zip(spans[::2], spans[1::2], strict=True)
  }


@given(pairs(), seeds, st.integers(3, 6))
def test_one_candidate_is_true_and_the_others_are_its_neighbours(
  pair, seed, neighbours
):
  case, route, index = pair.case, pair.route, pair.index
  example = build(cts, pair, seed, neighbours=neighbours)
  source = example.spans[0].image
  assert (source.case, source.modality, source.index) == (
    case.id,
    route.source,
    index,
  )
  shown = candidates(example)
  assert list(shown) == ['A', 'B', 'C', 'D']
  assert {(ref.case, ref.modality) for ref in shown.values()} == {
    (case.id, route.target)
  }
  indices = [ref.index for ref in shown.values()]
  assert len(set(indices)) == 4
  assert [k for k, ref in shown.items() if ref.index == index] == [
    example.answer
  ]
  assert all(abs(i - index) <= neighbours for i in indices)
  assert all(i in case.usable for i in indices)


@given(pairs(), seeds)
def test_only_the_answer_has_loss(pair, seed):
  example = build(cts, pair, seed)
  assert [s.has_loss for s in example.spans] == [False] * 10 + [True]
  assert example.spans[-1].text == example.answer
  assert not any(s.has_loss for s in example.prompt.spans)


@given(pairs(), seeds)
def test_texts_name_modalities_and_letters_alone(pair, seed):
  route = pair.route
  example = build(cts, pair, seed, prompts=SHORT)
  question, *letters = texts(example)
  assert question == (
    f'Which {route.target.label} slice matches this {route.source.label} slice?'
  )
  assert letters == ['A', 'B', 'C', 'D', example.answer]


@given(pairs(), seeds, wordings)
def test_the_same_seed_builds_the_same_example(pair, seed, prompts):
  first, second = (build(cts, pair, seed, prompts=prompts) for _ in range(2))
  assert first == second


def test_letters_are_balanced():
  rng = np.random.default_rng(0)
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  counts = collections.Counter(build(cts, pair, rng).answer for _ in range(400))
  assert sum((counts[k] - 100) ** 2 / 100 for k in 'ABCD') < 16.3  # p = 0.001


def test_the_position_of_a_candidate_does_not_reveal_the_answer():
  rng = np.random.default_rng(0)
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  ranks = collections.Counter()
  for _ in range(400):
    example = build(cts, pair, rng, neighbours=5)
    indices = sorted(ref.index for ref in candidates(example).values())
    ranks[indices.index(20)] += 1
  assert sum((ranks[k] - 100) ** 2 / 100 for k in range(4)) < 16.3


def test_every_wording_of_the_question_is_drawn():
  rng = np.random.default_rng(0)
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  asked = {texts(build(cts, pair, rng))[0] for _ in range(100)}
  assert asked == {
    words.format(region='brain', source='CBCT', target='CT')
    for words in PAPER.cts
  }


@given(pairs(least_slices=1), seeds)
def test_eligible_pairs_are_those_that_can_be_built(pair, seed):
  pool = Pool([pair.case])
  if cts.eligible(pair, pool):
    build(cts, pair, seed)
  else:
    assert len(pair.case.usable) < 4
    with pytest.raises(ValueError, match=pair.case.id):
      build(cts, pair, seed)


def test_a_slice_outside_the_usable_range_is_refused():
  pair = Pair(case_of(ROUTES[0], 10, 30), ROUTES[0], 30)
  with pytest.raises(ValueError, match=pair.case.id):
    build(cts, pair, 0)


def test_too_near_neighbours_are_refused():
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  with pytest.raises(ValueError, match='neighbours'):
    cts.eligible(pair, Pool([pair.case], neighbours=2))
