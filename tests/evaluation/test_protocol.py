"""Scores of a pair name the person that it shows."""

import dataclasses

import numpy as np
import pytest
from store_fakes import write_store

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
      pair.route, pair.case, pair.indices, truth, truth, np.ones(shape, bool)
    )
    rows += protocol.score_case(item, {'model': truth * (1 - error)})
  (scores,) = subjects.synthesis_by_subject(rows).values()
  dataset = first.dataset
  assert list(scores) == [f'{dataset}.p', f'{dataset}.q']
  one, two = (scores[f'{dataset}.{name}']['mae'] for name in 'pq')
  assert one == pytest.approx(two / 4)  # the mean of 0 and a half
