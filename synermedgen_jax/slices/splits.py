"""Subjects to splits: train, val, test by subject, never by slice."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import numpy as np

from synermedgen_jax.core.errors import UserError

SPLITS = ('train', 'val', 'test', 'holdout')


def assign_splits(
  subjects: Iterable[str], *, val: float, test: float, seed: int
) -> dict[str, str]:
  """Draws the split of every subject of one dataset.

  A share above zero gets at least one subject.

  Args:
    subjects: their names; order does not matter.
    val: share of subjects for validation, in [0, 1).
    test: share of subjects for testing, in [0, 1).
    seed: of the draw.

  Raises:
    UserError: the shares leave no subject to train on.
  """
  names = sorted(set(subjects))
  if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
    raise UserError(
      f'Shares val={val} and test={test} must be at least 0 and leave '
      'something to train on.'
    )
  counts = [
    max(round(share * len(names)), 1) if share else 0 for share in (test, val)
  ]
  if names and sum(counts) >= len(names):
    raise UserError(
      f'{len(names)} subject(s) cannot be split into train, val={val} and '
      f'test={test}: give more subjects, or set a share to 0.'
    )
  order = np.random.default_rng(seed).permutation(names).tolist()
  splits = dict.fromkeys(names, 'train')
  splits |= dict.fromkeys(order[: counts[0]], 'test')
  splits |= dict.fromkeys(order[counts[0] : sum(counts)], 'val')
  return splits


def assign_case_splits(
  people: Mapping[str, str],
  datasets: Mapping[str, str],
  given: Mapping[str, str],
  *,
  val: float,
  test: float,
  seed: int,
) -> dict[str, str]:
  """The split of every case; a person is in one, in whatever dataset.

  Args:
    people: case -> who it shows.
    datasets: case -> dataset; shares hold within each.
    given: case -> split, of cases that have one already.
    val, test, seed: as for `assign_splits`.

  Raises:
    UserError: a person is given two splits, or the shares do not work out.
  """
  splits: dict[str, str] = {}
  for case, split in given.items():
    person = people[case]
    if splits.setdefault(person, split) != split:
      raise UserError(
        f'{case}: is given to {split}, another case of {person!r} to '
        f'{splits[person]}.'
      )
  by_dataset = collections.defaultdict(set)
  for case, dataset in datasets.items():
    by_dataset[dataset].add(people[case])
  for dataset in sorted(by_dataset):
    left = by_dataset[dataset] - splits.keys()
    if left:
      splits |= assign_splits(left, val=val, test=test, seed=seed)
  return {case: splits[person] for case, person in people.items()}
