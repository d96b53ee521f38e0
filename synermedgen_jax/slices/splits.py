"""Assigns subjects, never slices, to the splits train, val and test.

A volume that occurs in cases of two people would leak from one split into
another, so `shared_volumes` reports it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import numpy as np

from synermedgen_jax.core.errors import UserError


def assign_splits(
  subjects: Iterable[str], *, val: float, test: float, seed: int
) -> dict[str, str]:
  """Draws the split of every subject of one dataset.

  A share above zero gets at least one subject.

  Args:
    subjects: names of the subjects, in any order.
    val: share of subjects for validation, in [0, 1).
    test: share of subjects for testing, in [0, 1).
    seed: random seed of the draw.

  Returns:
    Subject -> split.

  Raises:
    UserError: the shares are out of range or leave no subject to train on.
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
  """Assigns a split to every case; all cases of a person get the same one.

  Args:
    people: case -> person that it shows.
    datasets: case -> dataset; shares apply to each dataset.
    given: case -> split, for cases whose split is fixed.
    val, test, seed: as in `assign_splits`.

  Returns:
    Case -> split.

  Raises:
    UserError: `given` has two splits of a person, or the shares do not fit.
  """
  splits: dict[str, str] = {}
  for case, split in given.items():
    person = people[case]
    if splits.setdefault(person, split) != split:
      raise UserError(
        f'{case}: its split is {split}, but another case of patient {person!r} '
        f'is in {splits[person]}.'
      )
  by_dataset = collections.defaultdict(set)
  for case, dataset in datasets.items():
    by_dataset[dataset].add(people[case])
  for dataset in sorted(by_dataset):
    left = by_dataset[dataset] - splits.keys()
    if left:
      splits |= assign_splits(left, val=val, test=test, seed=seed)
  return {case: splits[person] for case, person in people.items()}


def shared_volumes(
  checksums: Mapping[str, Mapping[str, str]], people: Mapping[str, str]
) -> dict[str, str]:
  """Finds cases with a volume of another person's case.

  Args:
    checksums: case -> modality -> checksum of the voxels.
    people: case -> person that it shows.

  Returns:
    Case -> the reason, for every such case but the first one, in order of the
    names.
  """
  owners: dict[str, tuple[str, str]] = {}
  reasons: dict[str, str] = {}
  for case in sorted(checksums):
    for modality, checksum in sorted(checksums[case].items()):
      other, other_modality = owners.get(checksum, (case, modality))
      if people[other] != people[case]:
        reasons[case] = (
          f'{modality} has the same voxels as {other_modality} of {other}; '
          'remove one of them or, if they are one person, state one patient '
          'for both in a table (--dataset=csv).'
        )
        break
    else:
      for modality, checksum in checksums[case].items():
        owners.setdefault(checksum, (case, modality))
  return reasons
