"""Pairs of a pool, and the sources that are drawn for them."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from task_fakes import FakeCase, case_of

from synermedgen_jax.core.modalities import (
  BRATS_CONTRASTS,
  Modality,
  Region,
  route_named,
)
from synermedgen_jax.tasks.pairs import Pair, Pool, routes_in, some_subjects
from synermedgen_jax.tasks.registry import TASKS

HEAD = FakeCase(Region.BRAIN, dict.fromkeys(BRATS_CONTRASTS), (3, 5), 'head')
CT = FakeCase(
  Region.BRAIN, dict.fromkeys((Modality.CT, Modality.MR)), (0, 1), 'ct'
)
DRAWS = 6000


def names(routes):
  return [route.name for route in routes]


def drawn(name, *, case=HEAD, **pool):
  """How often each route is drawn for a pair of the route `name`."""
  rng = np.random.default_rng(0)
  pool, pair = Pool([case], **pool), Pair(case, route_named(name), 3)
  routes = (pool.draw_route(pair, rng).name for _ in range(DRAWS))
  return Counter(routes)


def assert_shares(counts, shares):
  assert counts.keys() == shares.keys()
  for name, share in shares.items():
    # Five standard deviations of a binomial share.
    limit = 5 * np.sqrt(share * (1 - share) / DRAWS)
    assert abs(counts[name] / DRAWS - share) < limit, name


def test_a_pool_has_every_route_and_usable_slice_of_its_cases():
  pairs = [(p.case.id, p.route.name, p.index) for p in Pool([CT, HEAD]).pairs()]
  assert pairs[:2] == [('ct', 'brain_mr_to_ct', 0), ('ct', 'brain_ct_to_mr', 0)]
  assert len(pairs) == 2 + 12 * 2
  assert pairs[2:4] == [
    ('head', 'brats_t1_to_t1ce', 3),
    ('head', 'brats_t1_to_t1ce', 4),
  ]


def test_named_routes_are_those_of_the_pairs_with_any_number_of_sources():
  routes = ['brats_t1+t2_to_flair', 'brain_ct_to_mr', 'brats_t1_to_flair']
  pairs = Pool([CT, HEAD], routes=routes).pairs()
  assert [(p.case.id, p.route.name) for p in pairs] == [
    ('ct', 'brain_ct_to_mr'),
    *[('head', 'brats_t1_to_flair')] * 2,
    *[('head', 'brats_t1+t2_to_flair')] * 2,
  ]


def test_a_case_without_a_source_has_no_pair_of_the_route():
  case = case_of(route_named('brats_t1+t2_to_flair'))
  routes = ['brats_t1+t1ce_to_flair', 'brats_t1+t2_to_flair']
  assert names(Pool([case], routes=routes).routes_of(case)) == routes[1:]
  assert names(routes_in([case], routes)) == routes[1:]
  assert names(routes_in([CT, CT])) == ['brain_mr_to_ct', 'brain_ct_to_mr']


@pytest.mark.parametrize('task', ['cts', 'mi', 'tia'])
def test_understanding_has_pairs_with_one_source_alone(task):
  case = FakeCase(Region.BRAIN, dict.fromkeys(BRATS_CONTRASTS), (0, 9))
  routes = ['brats_t1+t2_to_flair', 'brats_t1_to_flair']
  pool = Pool([case], routes=routes)
  assert {p.route.name for p in TASKS[task].pairs(pool)} == {routes[1]}
  assert {p.route.name for p in TASKS['synthesis'].pairs(pool)} == {*routes}


def test_the_number_of_sources_is_uniform_and_then_their_set():
  assert_shares(
    drawn('brats_t2_to_t1ce', max_sources=3),
    {
      'brats_t2_to_t1ce': 1 / 3,
      'brats_t1+t2_to_t1ce': 1 / 6,
      'brats_t2+flair_to_t1ce': 1 / 6,
      'brats_t1+t2+flair_to_t1ce': 1 / 3,
    },
  )
  assert_shares(
    drawn('brats_t2_to_t1ce', max_sources=2),
    {
      'brats_t2_to_t1ce': 1 / 2,
      'brats_t1+t2_to_t1ce': 1 / 4,
      'brats_t2+flair_to_t1ce': 1 / 4,
    },
  )


def test_a_case_with_fewer_modalities_has_fewer_sources():
  case = case_of(route_named('brats_t1+t2_to_t1ce'), 3, 5)
  assert_shares(
    drawn('brats_t1_to_t1ce', case=case, max_sources=3),
    {'brats_t1_to_t1ce': 1 / 2, 'brats_t1+t2_to_t1ce': 1 / 2},
  )


def test_sources_are_those_of_the_routes_of_the_pool():
  routes = ['brats_t1_to_t1ce', 'brats_flair_to_t1ce', 'brats_t2_to_t1']
  counts = drawn('brats_t1_to_t1ce', routes=routes, max_sources=3)
  assert counts.keys() == {'brats_t1_to_t1ce', 'brats_t1+flair_to_t1ce'}


def test_the_sources_of_a_pair_are_never_left_out():
  counts = drawn('brats_t1+t2_to_t1ce', max_sources=3)
  assert_shares(
    counts,
    {'brats_t1+t2_to_t1ce': 1 / 2, 'brats_t1+t2+flair_to_t1ce': 1 / 2},
  )
  for most in (1, 2):
    assert drawn('brats_t1+t2_to_t1ce', max_sources=most).keys() == {
      'brats_t1+t2_to_t1ce'
    }


@pytest.mark.parametrize('case', [HEAD, CT], ids=['one', 'no other source'])
def test_nothing_is_drawn_without_a_choice(case):
  rng, fresh = np.random.default_rng(0), np.random.default_rng(0)
  pool = Pool([case], max_sources=1 if case is HEAD else 3)
  for pair in pool.pairs():
    assert pool.draw_route(pair, rng) == pair.route
  assert rng.random() == fresh.random()


@pytest.mark.parametrize('most', [1, 2, 3, 9])
def test_the_routes_of_a_pool_are_those_that_it_draws(most):
  pool = Pool([CT, HEAD], max_sources=most)
  rng = np.random.default_rng(0)
  seen = {
    pool.draw_route(pair, rng) for _ in range(200) for pair in pool.pairs()
  }
  assert set(pool.drawn_routes()) == seen
  sizes = Counter(len(route.sources) for route in seen)
  assert sizes == dict(list({1: 14, 2: 12, 3: 4}.items())[:most])


@dataclasses.dataclass(frozen=True)
class Scan:
  """As much of a case as its person needs."""

  dataset: str
  person: str
  session: int = 0


SCANS = [
  Scan(dataset, f'{dataset}.{number}', session)
  for dataset, count in (('head', 30), ('body', 4))
  for number in range(count)
  for session in range(2)
]


def people(share):
  """Dataset -> persons of a share."""
  kept = {'head': set(), 'body': set()}
  for scan in some_subjects(SCANS, share):
    kept[scan.dataset].add(scan.person)
  return kept


@pytest.mark.parametrize(
  ('share', 'head', 'body'),
  [(1.0, 30, 4), (0.5, 15, 2), (0.1, 3, 1), (0.02, 1, 1), (0.0, 1, 1)],
)
def test_a_share_of_the_subjects_of_each_dataset_at_least_one(
  share, head, body
):
  kept = people(share)
  assert (len(kept['head']), len(kept['body'])) == (head, body)


def test_a_larger_share_contains_a_smaller_one():
  shares = [people(share)['head'] for share in (0.02, 0.1, 0.4, 1.0)]
  for less, more in itertools.pairwise(shares):
    assert less < more


def test_all_cases_of_a_subject_stay_and_their_order_too():
  kept = some_subjects(SCANS, 0.1)
  assert len(kept) == 2 * (3 + 1)
  assert list(kept) == [scan for scan in SCANS if scan in kept]


def test_the_choice_does_not_depend_on_the_order_of_the_cases():
  assert {*some_subjects(SCANS[::-1], 0.1)} == {*some_subjects(SCANS, 0.1)}
