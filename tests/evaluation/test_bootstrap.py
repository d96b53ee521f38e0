"""The bootstrap: by hand, and against loops over drawn subjects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synermedgen_jax.evaluation import bootstrap
from synermedgen_jax.evaluation.bootstrap import GroupSums, Resamples


def sums(values, counts):
  return GroupSums(np.array(values, float), np.array(counts, float))


def test_a_number_is_the_mean_over_groups_of_means_over_subjects():
  subjects = sums([[1, 3, 0], [0, 0, 8]], [[1, 1, 0], [0, 0, 1]])
  once = np.ones((1, 3), int)
  assert bootstrap.number(subjects, once) == pytest.approx([(2 + 8) / 2])


def test_subjects_weigh_as_often_as_they_are_drawn():
  subjects = sums([[1, 4]], [[1, 1]])
  drawn = np.array([[2, 0], [0, 2], [1, 1]])
  np.testing.assert_allclose(bootstrap.number(subjects, drawn), [1, 4, 2.5])


def test_accuracy_is_right_of_asked_not_a_mean_of_shares():
  # 1 of 1 and 0 of 3: a quarter, not a half.
  subjects = sums([[1, 0]], [[1, 3]])
  assert bootstrap.number(subjects, np.ones((1, 2), int)) == pytest.approx(
    [0.25]
  )


def test_a_group_that_nobody_drawn_has_is_left_out():
  subjects = sums([[2, 0], [0, 6]], [[1, 0], [0, 1]])
  assert bootstrap.number(subjects, np.array([[1, 0]])) == pytest.approx([2])


def test_one_subject_less_of_every_dataset_is_drawn():
  drawn = Resamples.draw(['a', 'b', 'a', 'b', 'b'], 50, seed=0).weights
  assert (drawn[:, [0, 2]].sum(axis=1) == 1).all()
  assert (drawn[:, [1, 3, 4]].sum(axis=1) == 2).all()
  assert len({tuple(row) for row in drawn}) > 10


def test_subjects_are_drawn_equally_often():
  drawn = Resamples.draw(['a'] * 4, 20_000, seed=1).weights
  np.testing.assert_allclose(drawn.mean(axis=0), 0.75, atol=0.03)


@pytest.mark.parametrize('count', [2, 3, 6])
def test_means_vary_as_the_standard_error_says(count):
  values = np.array([0.3, 0.9, 0.4, 0.8, 0.1, 0.5])[:count]
  drawn = Resamples.draw(['a'] * count, 100_000, seed=2)
  means = bootstrap.number(sums([values], [np.ones(count)]), drawn.weights)
  assert means.var() == pytest.approx(values.var(ddof=1) / count, rel=0.02)


def test_the_same_seed_draws_the_same():
  a, b, c = (Resamples.draw(['a'] * 5, 9, seed=s).weights for s in (3, 3, 4))
  assert (a == b).all()
  assert (a != c).any()


def test_the_interval_is_the_middle_95_percent():
  drawn = Resamples.draw(['a'] * 5, 1001, seed=0)
  ends = drawn.interval(np.arange(1001.0), np.ones(5, bool))
  assert ends == pytest.approx((25, 975))


def test_the_only_subject_of_a_dataset_leaves_no_interval():
  drawn = Resamples.draw(['a', 'b', 'a'], 1001, seed=0)
  values = np.arange(1001.0)
  assert np.isnan(drawn.interval(values, np.array([True, True, True]))).all()
  # Nor does the only subject of it that is measured.
  assert np.isnan(drawn.interval(values, np.array([True, False, False]))).all()
  # A number that does not depend on it has one.
  without = drawn.interval(values, np.array([True, False, True]))
  assert without == pytest.approx((25, 975))
  assert (drawn.weights[:, 1] == 1).all()


def naive(values, counts, chosen):
  """Sums over a list of subjects, drawn ones in it more than once."""
  ratios = []
  for of_group, asked in zip(values, counts, strict=True):
    top = sum(of_group[s] for s in chosen)
    below = sum(asked[s] for s in chosen)
    if below:
      ratios.append(top / below)
  return sum(ratios) / len(ratios) if ratios else 0.0


@st.composite
def cases(draw):
  groups, subjects = draw(st.integers(1, 4)), draw(st.integers(1, 6))
  row = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.integers(0, 3)),
    min_size=subjects,
    max_size=subjects,
  )
  table = draw(st.lists(row, min_size=groups, max_size=groups))
  chosen = draw(
    st.lists(st.integers(0, subjects - 1), min_size=1, max_size=subjects)
  )
  return table, subjects, chosen


@settings(max_examples=200)
@given(cases())
def test_it_agrees_with_loops(case):
  table, subjects, chosen = case
  counts = [[c for _, c in row] for row in table]
  values = [[v if c else 0.0 for v, c in row] for row in table]
  weights = np.bincount(chosen, minlength=subjects)[None]
  resampled = bootstrap.number(sums(values, counts), weights)
  assert resampled[0] == pytest.approx(naive(values, counts, chosen), abs=1e-6)
