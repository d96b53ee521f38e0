"""Descriptions of one slice as examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packing_fakes import GEOMETRY
from task_fakes import build, case_of, pairs, seeds, texts, wordings

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.core.modalities import Modality, all_routes, route_named
from synermedgen_jax.input.row_sizes import ExampleTooLarge, check_longest
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.slices.lesions import SliceLesions
from synermedgen_jax.tasks import description
from synermedgen_jax.tasks.facts import facts_of, read
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import PAPER, PROMPTS, SHORT
from synermedgen_jax.tasks.registry import TASKS

MR = Modality.MR
ROUTE = route_named('brain_mr_to_ct')
TOKENIZER = project_tokenizer()
BIG = SliceLesions(1600.0, 1, 0.0, -25.0, dict.fromkeys(Modality, 0.5))


def with_lesions(case, index):
  return case_of(
    case.routes[0], case.usable.start, case.usable.stop, lesions={index: BIG}
  )


def test_the_source_is_described():
  case = case_of(ROUTE, 10, 16, lesions={15: BIG})
  example = build(description, Pair(case, ROUTE, 15), 0, prompts=SHORT)
  image, question, answer = example.spans
  assert (image.kind, image.image.modality, image.image.index) == (
    'vit_image',
    MR,
    15,
  )
  assert (question.text, question.has_loss) == ('Describe this slice.', False)
  assert answer.has_loss
  assert example.answer == (
    'axial MRI of the brain, upper third; large lesion on the left'
  )
  assert (example.task, example.route) == ('description', ROUTE)


@given(pairs(), st.booleans(), seeds, wordings)
def test_the_answer_states_the_facts_of_the_slice(pair, known, seed, prompts):
  if known:
    case = with_lesions(pair.case, pair.index)
    pair = Pair(case, pair.route, pair.index)
  answer = build(description, pair, seed, prompts=prompts).answer
  facts = facts_of(pair.case, pair.route.source, pair.index)
  assert (facts.lesion == 'yes') == known
  stated = [part.partition(' ')[2] for part in read(answer)]
  assert stated == [
    *(facts.modality, facts.region, facts.plane, facts.level),
    *(facts.lesion, facts.side, facts.size),
  ]


@pytest.mark.parametrize('prompts', PROMPTS.values(), ids=PROMPTS)
def test_no_question_states_a_fact(prompts):
  for question in prompts.slice_questions:
    assert not any(read(question))


def test_the_paper_words_questions_and_answers_in_several_ways():
  assert len(set(PAPER.slice_questions)) == len(set(PAPER.slice_answers)) == 4
  assert len(SHORT.slice_questions) == len(SHORT.slice_answers) == 1


def length(example):
  return sum(len(TOKENIZER.encode(words)) for words in texts(example))


@given(pairs(), st.booleans(), seeds, wordings)
def test_no_example_is_longer_than_the_longest(pair, known, seed, prompts):
  if known:
    case = with_lesions(pair.case, pair.index)
    pair = Pair(case, pair.route, pair.index)
  longest = description.longest(Pool([pair.case], prompts))
  built = build(description, pair, seed, prompts=prompts)
  assert length(built) <= max(map(length, longest))


def test_answers_end_within_the_64_tokens_that_a_model_writes():
  """In the words that models with the project's tokenizer are trained with."""
  cases = [case_of(route, lesions={}) for route in all_routes()]
  examples = description.longest(Pool(cases, SHORT))
  assert max(len(TOKENIZER.encode(e.answer)) for e in examples) < 64


def test_a_capacity_below_the_longest_description_is_refused():
  pool = Pool([case_of(ROUTE, lesions={})], SHORT)
  # Ten tokens of the question, 43 of the answer, two markers of each text, and
  # an image: two markers and its patches.
  task, needed = TASKS['description'], 10 + 43 + 4 + 2 + GEOMETRY.image_patches
  room = {'gen': 0, 'vit': GEOMETRY.image_patches, 'images': 0}
  check_longest(task, pool, TOKENIZER, GEOMETRY, Capacity(needed, **room))
  with pytest.raises(
    ExampleTooLarge,
    match=rf"capacity\.und is {needed - 1}, .* 'description' needs {needed}",
  ):
    check_longest(task, pool, TOKENIZER, GEOMETRY, Capacity(needed - 1, **room))


def test_images_of_descriptions_are_never_mirrored():
  assert not TASKS['description'].mirror
