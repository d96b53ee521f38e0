"""Splits are drawn by subject, the same way every time."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.slices.splits import assign_splits


def names(count):
  return [f'subject_{i:03d}' for i in range(count)]


def test_shares_are_counted_in_subjects():
  splits = assign_splits(names(40), val=0.1, test=0.15, seed=0)
  counts = collections.Counter(splits.values())
  assert counts == {'train': 30, 'val': 4, 'test': 6}


@given(
  count=st.integers(3, 60),
  val=st.floats(0, 0.3),
  test=st.floats(0, 0.3),
  seed=st.integers(0, 5),
)
def test_every_subject_gets_one_split_and_every_share_a_subject(
  count, val, test, seed
):
  splits = assign_splits(names(count), val=val, test=test, seed=seed)
  assert sorted(splits) == names(count)
  found = set(splits.values())
  assert found == {'train'} | {
    name for name, share in (('val', val), ('test', test)) if share
  }


def test_order_and_repetition_of_subjects_do_not_matter():
  one = assign_splits(names(20), val=0.1, test=0.2, seed=3)
  other = assign_splits(
    [*reversed(names(20)), *names(20)], val=0.1, test=0.2, seed=3
  )
  assert one == other


def test_another_seed_draws_other_subjects():
  draws = {
    frozenset(
      name
      for name, split in assign_splits(
        names(20), val=0.1, test=0.2, seed=seed
      ).items()
      if split == 'test'
    )
    for seed in range(5)
  }
  assert len(draws) > 1


def test_share_of_zero_gets_nobody():
  splits = assign_splits(names(4), val=0, test=0, seed=0)
  assert set(splits.values()) == {'train'}


@pytest.mark.parametrize('count', [1, 2])
def test_too_few_subjects_are_refused(count):
  with pytest.raises(ValueError, match=f'{count} subject.*set a share to 0'):
    assign_splits(names(count), val=0.1, test=0.1, seed=0)


@pytest.mark.parametrize(
  ('val', 'test'), [(-0.1, 0.1), (0.5, 0.5), (0, 1), (1.5, 0)]
)
def test_shares_that_leave_nothing_to_train_on_are_refused(val, test):
  with pytest.raises(ValueError, match='something to train on'):
    assign_splits(names(40), val=val, test=test, seed=0)
