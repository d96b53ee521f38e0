import collections

import pytest

from synermedgen_jax.core.modalities import ROUTES, Modality
from synermedgen_jax.tasks import prompts


@pytest.mark.parametrize('route', ROUTES, ids=lambda r: r.name)
def test_every_route_has_its_own_pool_of_short_descriptions(route):
  pool = prompts.descriptions(route)
  assert len(set(pool)) == len(pool) >= 6
  for description in pool:
    assert len(description.split()) <= 12
    assert route.region.label in description
    assert route.source.label in description
    assert route.target.label in description
  assert prompts.canonical_description(route) in pool


def test_no_two_routes_share_a_description():
  counts = collections.Counter(
    text for route in ROUTES for text in prompts.descriptions(route)
  )
  assert set(counts.values()) == {1}


def test_every_route_has_the_same_wordings():
  def shapes(route):
    return {
      text.replace(route.source.label, 'S').replace(route.target.label, 'T')
      for text in prompts.descriptions(route)
    }

  assert len(shapes(ROUTES[0])) == len(prompts.DESCRIPTIONS)
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
  assert prompts.canonical_description(t1_t2) == (
    'convert brain T1 (MRI) to T2 (MRI)'
  )
  assert prompts.cts_question(t1_t2) == (
    'Which T2 (MRI) slice matches this T1 (MRI) slice?'
  )
  assert prompts.mi_answer(
    [Modality.CT, Modality.PET, Modality.T1CE, Modality.MR]
  ) == ('A CT B PET C T1CE (MRI) D MRI')
