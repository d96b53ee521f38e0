"""Splits are drawn by subject, the same way every time."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.slices.splits import (
  assign_case_splits,
  assign_splits,
  shared_volumes,
)


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
  result = set(splits.values())
  assert result == {'train'} | {
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


people = st.dictionaries(
  st.integers(0, 60).map(lambda i: f'case{i}'),
  st.tuples(
    st.integers(0, 25).map(lambda i: f'person{i}'),
    st.sampled_from(['one', 'two', 'three']),
  ),
  min_size=1,
)


@given(people, st.integers(0, 5))
def test_a_person_is_in_one_split_in_whatever_dataset(cases, seed):
  who = {case: person for case, (person, _) in cases.items()}
  where = {case: dataset for case, (_, dataset) in cases.items()}
  given_splits = {next(iter(cases)): 'test'}
  shares = {'val': 0.0, 'test': 0.0, 'seed': seed}
  result = assign_case_splits(who, where, given_splits, **shares)
  assert result.keys() == cases.keys()
  by_person = collections.defaultdict(set)
  for case, split in result.items():
    by_person[who[case]].add(split)
  assert all(len(splits) == 1 for splits in by_person.values())
  assert by_person[who[next(iter(cases))]] == {'test'}


def test_shares_hold_within_each_dataset_over_people():
  who = {
    f'{d}{i}.{t}': f'{d}{i}' for d in 'ab' for i in range(20) for t in '01'
  }
  where = {case: case[0] for case in who}
  result = assign_case_splits(who, where, {}, val=0.1, test=0.2, seed=0)
  counts = collections.Counter((where[c], s) for c, s in result.items())
  assert counts == {
    **{(d, 'train'): 28 for d in 'ab'},
    **{(d, 'val'): 4 for d in 'ab'},
    **{(d, 'test'): 8 for d in 'ab'},
  }


def test_one_person_cannot_be_given_two_splits():
  with pytest.raises(
    ValueError, match=r"b: its split is test.*'p' is in train"
  ):
    assign_case_splits(
      {'a': 'p', 'b': 'p'},
      {'a': 'one', 'b': 'two'},
      {'a': 'train', 'b': 'test'},
      val=0,
      test=0,
      seed=0,
    )


def test_a_volume_of_another_person_is_reported_for_all_but_the_first():
  checksums = {
    'c': {'ct': 'x', 'mr': '3'},
    'b': {'ct': 'x', 'mr': '2'},
    'a': {'ct': '1', 'mr': 'x'},
    'd': {'ct': '4', 'mr': '5'},
  }
  result = shared_volumes(checksums, {case: case for case in checksums})
  assert [*result] == ['b', 'c']
  assert result['b'].startswith('ct has the same voxels as mr of a;')
  assert 'of a;' in result['c']


def test_cases_of_one_patient_may_share_a_volume():
  checksums = {'a': {'ct': 'x'}, 'b': {'ct': 'x'}, 'c': {'ct': 'x'}}
  people = {'a': 'p', 'b': 'p', 'c': 'q'}
  assert [*shared_volumes(checksums, people)] == ['c']


def test_a_case_that_is_left_out_does_not_rule_out_others():
  """b shares ct with a; c shares mr with b alone, so c stays."""
  checksums = {
    'a': {'ct': 'x', 'mr': '1'},
    'b': {'ct': 'x', 'mr': '2'},
    'c': {'ct': 'y', 'mr': '2'},
  }
  assert [*shared_volumes(checksums, dict.fromkeys('abc', ''))] == []
  assert [*shared_volumes(checksums, {c: c for c in 'abc'})] == ['b']
