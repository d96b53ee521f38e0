"""The bootstrap: by hand, and against loops over drawn subjects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synermedgen_jax.evaluation import bootstrap
from synermedgen_jax.evaluation.bootstrap import GroupSums


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


def test_every_dataset_keeps_its_number_of_subjects():
  drawn = bootstrap.resamples(['a', 'b', 'a', 'b', 'b'], 50, seed=0)
  assert (drawn[:, [0, 2]].sum(axis=1) == 2).all()
  assert (drawn[:, [1, 3, 4]].sum(axis=1) == 3).all()
  assert len({tuple(row) for row in drawn}) > 10


def test_a_subject_is_drawn_once_on_average():
  drawn = bootstrap.resamples(['a'] * 4, 20_000, seed=1)
  np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.03)
  # A binomial of 4 draws at 1 in 4.
  np.testing.assert_allclose(drawn.var(axis=0), 0.75, atol=0.03)


def test_the_same_seed_draws_the_same():
  a, b, c = (bootstrap.resamples(['a'] * 5, 9, seed=s) for s in (3, 3, 4))
  assert (a == b).all()
  assert (a != c).any()


def test_the_interval_is_the_middle_95_percent():
  low, high = bootstrap.interval(np.arange(1001.0))
  assert (low, high) == pytest.approx((25, 975))


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
