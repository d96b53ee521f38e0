"""Intervals and wins of a route from hand-made scores of subjects."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.evaluation.wins import interval_of, judge


def test_two_subjects_have_the_interval_of_their_range():
  assert interval_of(np.array([0.7, 0.5])) == pytest.approx((0.5, 0.7))


def test_one_subject_has_no_interval_and_no_win():
  judged = judge(np.array([0.9]), {'copy_source': np.array([0.1])})
  assert judged == {
    'interval': None,
    'better_baseline': 'copy_source',
    'difference': None,
    'win': False,
  }


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_an_interval_contains_the_mean_and_lies_in_the_range(values):
  low, high = interval_of(np.array(values))
  assert min(values) - 1e-9 <= low <= np.mean(values) + 1e-9
  assert np.mean(values) - 1e-9 <= high <= max(values) + 1e-9


def test_the_interval_of_many_subjects_is_that_of_their_standard_error():
  values = np.random.default_rng(0).normal(0.6, 0.1, 400)
  low, high = interval_of(values)
  assert (high - low) / 2 == pytest.approx(1.96 * 0.1 / 20, rel=0.1)


def test_the_difference_is_paired():
  """Subjects spread by 0.6; each is better than its copy by 0.01 to 0.03."""
  copy = np.linspace(0.2, 0.8, 7)
  gains = np.array([0.01, 0.02, 0.03, 0.02, 0.01, 0.02, 0.03])
  judged = judge(copy + gains, {'copy_source': copy, 'ceiling': copy + 0.1})
  mean, low, high = judged['difference']
  assert mean == pytest.approx(0.02)
  assert 0.01 < low < 0.02 < high < 0.03
  assert judged['win']
  assert np.diff(judged['interval'])[0] > 0.2


def test_a_higher_mean_alone_is_no_win():
  copy = np.full(4, 0.5)
  model = np.array([0.9, 0.45, 0.45, 0.45])
  judged = judge(model, {'copy_source': copy})
  assert judged['difference'][0] == pytest.approx(0.0625)
  assert judged['difference'][1] == pytest.approx(-0.05)
  assert not judged['win']


def test_the_better_baseline_of_the_route_is_compared():
  copy, mean = np.array([0.5, 0.3]), np.array([0.2, 0.5])
  judged = judge(
    np.array([0.6, 0.4]), {'copy_source': copy, 'mean_target': mean}
  )
  assert judged['better_baseline'] == 'copy_source'
  assert judged['difference'] == pytest.approx([0.1, 0.1, 0.1])
  judged = judge(
    np.array([0.6, 0.4]), {'copy_source': copy, 'mean_target': mean + 0.1}
  )
  assert judged['better_baseline'] == 'mean_target'
  assert not judged['win']
