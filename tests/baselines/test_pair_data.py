"""Which slices a system sees, told by pixels that identify their slice."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from store_fakes import CANVAS, slice_of, write_store

from synermedgen_jax.baselines.pair_data import pair_dataset
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.slices.store import SliceStore, StoreWriter

NAMES = tuple(sorted(m.value for m in Modality))


@pytest.fixture(scope='module')
def store(store_path):
  return SliceStore.open(str(store_path))


def two_subjects(path):
  """A store with three training subjects of CT and MR of the brain."""
  write_store(path / 'one')
  one = SliceStore.open(str(path / 'one'))
  (case,) = (c for c in one.split('train') if Modality.MR in c.modalities)
  writer = StoreWriter(str(path / 'three'), {'canvas': CANVAS})
  for number in range(3):
    volumes = {m: one.read_volume(case.id, m) for m in case.modalities}
    writer.write_case(
      dataclasses.replace(case, id=f'c{number}', subject=f's{number}'),
      {m: (v + number / 100).astype(np.float32) for m, v in volumes.items()},
      np.ones(case.shape, bool),
    )
  writer.finish({f'c{number}': 'train' for number in range(3)})
  return SliceStore.open(str(path / 'three'))


def batches(store, count, **options):
  options = {'rows': 2, 'seed': 3} | options
  size = options.pop('size', (CANVAS, CANVAS))
  data = pair_dataset(store, 'train', size, NAMES, **options)
  return list(itertools.islice(data, count))


def test_source_and_target_are_one_slice_of_one_case_on_a_known_route(store):
  seen = set()
  for batch in batches(store, 20):
    for row in range(2):
      source, target = (
        slice_of(image[row, 0, 0, 0]) for image in (batch.source, batch.target)
      )
      assert (source.case, source.index) == (target.case, target.index)
      assert NAMES[batch.source_ids[row]] == source.modality.value
      assert NAMES[batch.target_ids[row]] == target.modality.value
      seen.add((source.modality, target.modality))
  assert len(seen) > 4


def test_only_the_routes_that_are_asked_for(store):
  route = route_named('brain_mr_to_ct')
  for batch in batches(store, 5, routes=(route.name,)):
    assert {NAMES[i] for i in batch.source_ids} == {'mr'}
    assert {NAMES[i] for i in batch.target_ids} == {'ct'}


def test_images_have_the_size_of_the_system(store):
  (batch,) = batches(store, 1, size=(24, 32))
  assert batch.source.shape == batch.target.shape == (2, 24, 32, 1)
  # A square slice keeps its shape between two black borders.
  np.testing.assert_array_equal(batch.source[:, :, :2], -1)
  np.testing.assert_array_equal(batch.source[:, :, 30:], -1)
  middle = batch.source[:, :, 8:24]
  assert np.ptp(middle, axis=(1, 2)).max() < 1e-3


def test_an_unpaired_target_is_never_of_the_same_subject(tmp_path):
  store = two_subjects(tmp_path)
  values = {}
  for case in store.cases:
    for modality in case.modalities:
      for index in case.usable:
        pixel = store.read_slice(case.id, modality, index)[0, 0]
        values[round(float(pixel), 4)] = case.id, modality
  pairs = set()
  for batch in batches(store, 40, routes=('brain_mr_to_ct',), unpaired=True):
    for row in range(2):
      source, target = (
        values[round(float(image[row, 0, 0, 0]), 4)]
        for image in (batch.source, batch.target)
      )
      assert source[0] != target[0]
      assert (source[1], target[1]) == (Modality.MR, Modality.CT)
      pairs.add((source[0], target[0]))
  assert len(pairs) == 6  # every other subject is drawn


def test_unpaired_training_needs_a_second_subject(store):
  with pytest.raises(UserError, match=r'No subject but fake\.\w+ has ct .*two'):
    batches(store, 1, routes=('brain_mr_to_ct',), unpaired=True)


def test_data_resume_where_they_were_saved(store):
  data = pair_dataset(store, 'train', (16, 16), NAMES, rows=2, seed=1)
  iterator = iter(data)
  next(iterator)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = next(iterator)
  again = iter(data)
  again.set_state(state)
  resumed = next(again)
  np.testing.assert_array_equal(resumed.source, expected.source)
  np.testing.assert_array_equal(resumed.target_ids, expected.target_ids)


def test_streams_share_the_examples(store):
  def shown(batches):
    return sorted(float(image[0, 0, 0]) for b in batches for image in b.source)

  one = batches(store, 4, rows=2, streams=1)
  two = batches(store, 4, rows=2, streams=2)
  assert shown(one) == shown(two)
