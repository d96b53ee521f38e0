"""Scores of a pair name the person that it shows."""

import dataclasses

import numpy as np
import pytest
from store_fakes import slice_of, write_store

from synermedgen_jax.evaluation import protocol, subjects
from synermedgen_jax.slices.store import SliceStore


@pytest.fixture(scope='module')
def cases(tmp_path_factory):
  path = tmp_path_factory.mktemp('protocol') / 'store'
  write_store(path)
  return SliceStore.open(str(path)).split('test')


def test_two_sessions_of_a_patient_count_as_one_subject(cases):
  first = next(case for case in cases if case.routes)
  sessions = [
    dataclasses.replace(first, id=f'd.{name}', subject=name, patient='p')
    for name in ('p_1', 'p_2')
  ]
  alone = dataclasses.replace(first, id='d.q', subject='q')
  pairs = list(
    protocol.route_pairs(
      [*sessions, alone], slices=2, routes=[first.routes[0].name]
    )
  )
  assert len(pairs) == 3
  rng = np.random.default_rng(0)
  shape = (2, 16, 16)
  truth = rng.uniform(-1, 1, shape).astype(np.float32)
  rows = []
  for pair, error in zip(pairs, (0.0, 0.2, 0.4), strict=True):
    item = protocol.RouteCase(
      pair.route,
      pair.case,
      pair.indices,
      truth[None],
      truth,
      np.ones(shape, bool),
    )
    rows += protocol.score_case(item, {'model': truth * (1 - error)})
  (scores,) = subjects.synthesis_by_subject(rows).values()
  dataset = first.dataset
  assert list(scores) == [f'{dataset}.p', f'{dataset}.q']
  one, two = (scores[f'{dataset}.{name}']['mae'] for name in 'pq')
  assert one == pytest.approx(two / 4)  # the mean of 0 and a half


@pytest.fixture(scope='module')
def store(store_path):
  return SliceStore.open(str(store_path))


def pairs_of(store, *routes):
  return list(protocol.route_pairs(store.split('val'), slices=2, routes=routes))


def test_pairs_without_a_choice_have_one_source(store):
  assert {len(p.route.sources) for p in pairs_of(store)} == {1}


def test_pairs_of_named_routes_are_those_of_cases_with_all_modalities(store):
  names = ('brats_t1+t2_to_t1ce', 'brain_mr_to_ct', 'brats_t2_to_t1ce')
  assert [(p.case.id, p.route.name) for p in pairs_of(store, *names)] == [
    ('case3', 'brain_mr_to_ct'),
    ('case4', 'brats_t2_to_t1ce'),
    ('case4', 'brats_t1+t2_to_t1ce'),
  ]


def test_sources_are_read_in_the_order_of_the_route(store):
  (pair,) = pairs_of(store, 'brats_t1+t2+flair_to_t1ce')
  item = protocol.RouteCase.read(store, pair)
  shown = [slice_of(image[0, 0, 0]) for image in (*item.sources, item.truth)]
  assert [ref.modality for ref in shown] == ['t1', 't2', 'flair', 't1ce']
  assert {(ref.case, ref.index) for ref in shown} == {
    ('case4', int(pair.indices[0]))
  }


def test_the_copy_of_several_sources_is_their_mean(store):
  (pair,) = pairs_of(store, 'brats_t1+t2+flair_to_t1ce')
  asked = []

  def synthesise(route, sources):
    asked.append((route.name, sources.shape))
    return np.zeros(sources.shape[1:], np.float32)

  ((item, _, rows),) = protocol.score_routes(
    store, [pair], synthesise, lambda truth: truth
  )
  assert asked == [('brats_t1+t2+flair_to_t1ce', (3, 2, 16, 16))]
  t1, t2, flair = item.sources
  mean = (t1 + t2 + flair) / 3
  expected = np.abs(mean - item.truth).mean() / 2  # the window is from 0 to 1
  scores = {row.method: row.values for row in rows if not row.full_frame}
  assert scores.keys() == {'model', 'copy_source', 'mean_target', 'ceiling'}
  assert scores['copy_source']['mae'] == pytest.approx(expected, rel=1e-4)


def test_a_panel_has_every_source_with_its_window(store):
  (pair,) = pairs_of(store, 'brats_t1+t2_to_t1ce')
  item = protocol.RouteCase.read(store, pair)
  panel = protocol.panel(item, item.truth)
  assert panel['source'].shape == (2, 2, 16, 16)
  np.testing.assert_array_equal(panel['source_window'], [[0, 1], [0, 1]])
