import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_fakes import build, case_of, seeds, texts

from synermedgen_jax.core.modalities import (
  ROUTES,
  Modality,
  confusable_groups,
)
from synermedgen_jax.tasks import mi, prompts
from synermedgen_jax.tasks.example import SliceRef
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import PAPER, SHORT


def group_by_modality(routes):
  groups = collections.defaultdict(list)
  for i, route in enumerate(routes):
    case = case_of(route, 10 * i, 10 * i + 7, id=f'site9/subj-{i:04}')
    for modality in case.modalities:
      groups[modality].append(case)
  return groups


route_lists = st.lists(st.sampled_from(ROUTES), min_size=1, max_size=8)
EVERYTHING = group_by_modality(ROUTES)


def is_confusable(a, b):
  return a != b and any({a, b} <= group for group in confusable_groups())


def has_confusable_pair(panels):
  modalities = {modality for _, modality, _ in panels}
  return any(len(modalities & group) > 1 for group in confusable_groups())


@given(route_lists, seeds, st.integers(2, 4), st.floats(0, 1))
def test_panels_are_slices_that_exist(routes, seed, n, confusable):
  rng = np.random.default_rng(seed)
  panels = mi.draw_panels(
    group_by_modality(routes), rng, n=n, confusable=confusable
  )
  assert len(panels) == n
  for case, modality, index in panels:
    assert modality in case.modalities
    assert index in case.usable


@given(seeds)
def test_a_confusable_pair_is_drawn_when_asked_for(seed):
  rng = np.random.default_rng(seed)
  panels = mi.draw_panels(EVERYTHING, rng, confusable=1.0)
  assert has_confusable_pair(panels)


@given(seeds)
def test_a_confusable_pair_shows_one_slice_where_a_case_holds_both(seed):
  rng = np.random.default_rng(seed)
  cbct_ct = group_by_modality([ROUTES[0], ROUTES[2]])
  first, second, *_ = mi.draw_panels(cbct_ct, rng, confusable=1.0)
  assert is_confusable(first[1], second[1])
  assert (first[0], first[2]) == (second[0], second[2])


@given(seeds)
def test_without_a_confusable_pair_the_draw_is_free(seed):
  pet_ct = group_by_modality([r for r in ROUTES if r.source == Modality.PET])
  panels = mi.draw_panels(pet_ct, np.random.default_rng(seed), confusable=1.0)
  assert {modality for _, modality, _ in panels} <= {Modality.CT, Modality.PET}


def test_a_free_draw_takes_every_modality_as_often():
  rng = np.random.default_rng(0)
  counts = collections.Counter(
    modality
    for _ in range(400)
    for _, modality, _ in mi.draw_panels(EVERYTHING, rng, confusable=0.0)
  )
  assert set(counts) == {route.source for route in ROUTES}
  expected = 1600 / len(counts)
  chi = sum((count - expected) ** 2 / expected for count in counts.values())
  assert chi < 24.3  # p = 0.001 at 7 degrees of freedom


@given(route_lists, seeds)
def test_every_panel_is_answered_by_its_own_modality(routes, seed):
  rng = np.random.default_rng(seed)
  cases = group_by_modality(routes)
  panels = [SliceRef(c.id, m, i) for c, m, i in mi.draw_panels(cases, rng)]
  example = mi.ask(panels, SHORT, rng)
  images = [s.image for s in example.spans if s.kind == 'vit_image']
  assert collections.Counter(panels) == collections.Counter(images)
  labels = [image.modality.label for image in images]
  assert mi.parse_answer(example.answer) == labels
  question, *letters, answer = texts(example)
  assert (question, letters) == (
    'Name the modality of each panel.',
    ['A', 'B', 'C', 'D'],
  )
  assert answer == prompts.mi_answer([image.modality for image in images])
  assert [s.has_loss for s in example.spans] == [False] * 9 + [True]


@given(seeds)
def test_the_same_seed_builds_the_same_example(seed):
  pair = Pair(case_of(ROUTES[0]), ROUTES[0], 20)
  first, second = (build(mi, pair, seed, prompts=PAPER) for _ in range(2))
  assert first == second


def test_panels_come_from_the_whole_pool_in_every_wording():
  cases = [case_of(route, id=route.name) for route in ROUTES]
  pool, rng = Pool(cases), np.random.default_rng(0)
  pair = Pair(cases[0], ROUTES[0], 20)
  examples = [mi.build(pair, pool, rng) for _ in range(100)]
  shown = {s.image.modality for e in examples for s in e.spans if s.image}
  assert shown == {route.source for route in ROUTES}
  assert {e.spans[0].text for e in examples} == set(PAPER.mi)


def test_the_first_panel_drawn_may_take_any_letter():
  rng = np.random.default_rng(0)
  cases = {m: EVERYTHING[m][0] for m in (Modality.PET, Modality.CT)}
  pet, ct = (SliceRef(c.id, m, c.usable.start) for m, c in cases.items())
  counts = collections.Counter(
    mi.parse_answer(mi.ask([pet, ct, ct, ct], SHORT, rng).answer).index('PET')
    for _ in range(400)
  )
  assert sum((counts[k] - 100) ** 2 / 100 for k in range(4)) < 16.3


@given(st.lists(st.sampled_from(list(Modality)), min_size=2, max_size=4))
def test_parsing_inverts_the_answer(modalities):
  answer = prompts.mi_answer(modalities)
  n = len(modalities)
  assert mi.parse_answer(answer, n) == [m.label for m in modalities]


@pytest.mark.parametrize(
  ('answer', 'labels'),
  [
    ('', ['', '', '', '']),
    ('A CT B PET D MRI', ['CT', 'PET', '', 'MRI']),
    ('A CT A PET B', ['CT', '', '', '']),
    ('B T1 C T1CE (MRI', ['', '', '', '']),
    ('A CTB D CBCT', ['', '', '', 'CBCT']),
    ('CT PET MRI MRI', ['', '', '', '']),
  ],
)
def test_a_broken_answer_is_read_panel_by_panel(answer, labels):
  assert mi.parse_answer(answer) == labels


def test_panels_that_cannot_be_drawn_are_refused():
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match='panels'):
    mi.draw_panels(EVERYTHING, rng, n=5)
  with pytest.raises(ValueError, match='case'):
    mi.draw_panels({}, rng)
  empty = case_of(ROUTES[0], 5, 5)
  with pytest.raises(ValueError, match=empty.id):
    mi.draw_panels({Modality.CT: [empty]}, rng)
