import collections

import numpy as np
import pytest

from synermedgen_jax.core.modalities import (
  ROUTES,
  Modality,
  route_named,
  routes_with,
)
from synermedgen_jax.tasks import prompts

SETS = pytest.mark.parametrize(
  'wordings', prompts.PROMPTS.values(), ids=prompts.PROMPTS
)


@SETS
@pytest.mark.parametrize('route', ROUTES, ids=lambda r: r.name)
def test_every_route_has_its_own_pool_of_descriptions(route, wordings):
  pool = wordings.describe(route)
  assert len(set(pool)) == len(pool) >= 6
  for description in pool:
    assert len(description.split()) <= 20
    assert route.region.label in description
    assert route.source.label in description
    assert route.target.label in description
  assert wordings.canonical(route) in pool


@SETS
def test_no_two_routes_share_a_description(wordings):
  counts = collections.Counter(
    text for route in ROUTES for text in wordings.describe(route)
  )
  assert set(counts.values()) == {1}


def first_named(template):
  return min(('{source}', '{target}'), key=template.index)


def test_the_paper_has_both_word_orders_and_short_has_one():
  assert {first_named(t) for t in prompts.PAPER.descriptions} == {
    '{source}',
    '{target}',
  }
  assert {first_named(t) for t in prompts.SHORT.descriptions} == {'{source}'}


def test_a_single_wording_is_taken_without_a_draw():
  rng, fresh = np.random.default_rng(0), np.random.default_rng(0)
  assert prompts.SHORT.draw_cts(ROUTES[0], rng)
  assert prompts.SHORT.draw_mi(rng)
  assert prompts.SHORT.draw_tia(rng)
  assert rng.random() == fresh.random()


@SETS
def test_every_route_has_the_same_wordings(wordings):
  def shapes(route):
    return {
      text.replace(route.source.label, 'S').replace(route.target.label, 'T')
      for text in wordings.describe(route)
    }

  assert len(shapes(ROUTES[0])) == len(wordings.descriptions)
  by_region = collections.defaultdict(set)
  for route in ROUTES:
    # A label that is part of the other (CT in CBCT) would be replaced twice.
    if route.source.label not in route.target.label and (
      route.target.label not in route.source.label
    ):
      by_region[route.region].add(frozenset(shapes(route)))
  assert all(len(pools) == 1 for pools in by_region.values())


def test_literal_wordings():
  t1_t2 = next(r for r in ROUTES if r.name == 'brats_t1_to_t2')
  assert prompts.SHORT.canonical(t1_t2) == (
    'convert brain T1 (MRI) to T2 (MRI)'
  )
  assert prompts.fill(prompts.SHORT.cts[0], t1_t2) == (
    'Which T2 (MRI) slice matches this T1 (MRI) slice?'
  )
  assert prompts.mi_answer(
    [Modality.CT, Modality.PET, Modality.T1CE, Modality.MR]
  ) == ('A CT B PET C T1CE (MRI) D MRI')


SEVERAL = pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('brats_t1_to_t1ce', 'T1 (MRI)'),
    ('brats_t1+t2_to_t1ce', 'T1 (MRI) and T2 (MRI)'),
    ('brats_t1+t2+flair_to_t1ce', 'T1 (MRI), T2 (MRI) and FLAIR (MRI)'),
  ],
)


@SEVERAL
def test_several_sources_are_listed_in_words(name, words):
  route = route_named(name)
  assert prompts.SHORT.canonical(route) == (
    f'convert brain {words} to T1CE (MRI)'
  )
  assert prompts.PAPER.canonical(route) == (
    f'Generate the brain T1CE (MRI) image from the input {words} image, '
    'preserving the anatomy.'
  )


@SETS
def test_no_two_sets_of_sources_share_a_description(wordings):
  counts = collections.Counter(
    text
    for count in (1, 2, 3)
    for route in routes_with(count)
    for text in wordings.describe(route)
  )
  assert set(counts.values()) == {1}
