"""Streams, divided among any number of processes, and their examples."""

import collections
import itertools
import json

import grain.python as grain
import jax
import nano
import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.input import pipeline
from synermedgen_jax.input.streams import Share, TrainData, streams_of
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  text,
  vae_image,
  vit_image,
)
from synermedgen_jax.tasks.prompts import SHORT

ROWS, STREAMS = 8, 4
TASKS = {'cts': 1, 'mi': 1, 'tia': 1, 'synthesis': 2}


@pytest.mark.parametrize(
  ('rows_here', 'rows', 'streams', 'expected'),
  [
    ([0, 1, 2, 3], 4, 4, [0, 1, 2, 3]),
    ([0, 1, 2, 3], 4, 2, [0, 1]),
    ([0, 1, 2, 3], 4, 1, [0]),
    ([2, 3], 4, 4, [2, 3]),
    ([2, 3], 4, 2, [1]),
    # The devices of a process need not lie beside one another.
    ([0, 1, 6, 7], 8, 4, [0, 3]),
    ([1, 3], 4, 4, [1, 3]),
  ],
)
def test_a_process_has_the_streams_of_its_rows(
  rows_here, rows, streams, expected
):
  assert streams_of(np.array(rows_here), rows, streams) == expected


@pytest.mark.parametrize(
  ('rows_here', 'rows', 'streams'),
  [
    (range(4), 4, 3),  # a third of a stream a row
    (range(2), 2, 4),  # more streams than rows
    (range(2), 8, 2),  # half a stream
    ([0, 3], 4, 2),  # halves of two streams
    ([1, 2, 3], 6, 2),  # one and two thirds of a stream
  ],
)
def test_a_stream_that_rows_or_processes_cut_is_refused(
  rows_here, rows, streams
):
  owned = np.array(rows_here)
  with pytest.raises(ValueError, match='every stream needs as many') as error:
    streams_of(owned, rows, streams)
  assert str(error.value) == (
    f'{streams} for {rows} rows, {len(owned)} of them on this process: every '
    'stream needs as many rows as the others, and all of its rows on one '
    'process; set a multiple of the number of processes that divides '
    'config.rows.'
  )


@pytest.fixture(scope='module')
def store(store_path):
  return SliceStore.open(store_path)


def dataset(store, own=None):
  return pipeline.train_dataset(
    store,
    'train',
    project_tokenizer(),
    nano.GEOMETRY,
    nano.CAPACITY,
    pipeline.Mixture(TASKS, prompts=SHORT),
    rows=ROWS,
    seed=3,
    packing_bins=4,
    streams=STREAMS,
    local_streams=own,
  )


def follow(iterator, count):
  """Batches, each with the numbers of its examples."""
  return [
    (batch, iterator.numbers) for batch in itertools.islice(iterator, count)
  ]


def joined(parts):
  """The batches of several processes, their rows one after another."""
  return [
    jax.tree.map(lambda *rows: np.concatenate(rows), *step)
    for step in zip(*parts, strict=True)
  ]


def assert_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope='module')
def whole(store):
  """Five batches, as one process has them."""
  return follow(iter(dataset(store)), 5)


@pytest.mark.parametrize(
  'shares', [[[0], [1], [2], [3]], [[0, 1], [2, 3]], [[0], [1, 2, 3]]]
)
def test_a_batch_is_the_same_however_many_processes_read_it(
  store, whole, shares
):
  parts = [follow(iter(dataset(store, share)), 5) for share in shares]
  assert_equal(joined(parts), whole)


def test_rows_are_those_of_the_streams_in_their_order(store, whole):
  batch, numbers = follow(iter(dataset(store, [3, 0])), 1)[0]
  first, first_numbers = whole[0]
  rows = [6, 7, 0, 1]
  assert_equal(batch, jax.tree.map(lambda x: x[rows], first))
  np.testing.assert_array_equal(numbers, first_numbers[rows])


def test_a_batch_has_as_many_rows_as_its_streams(whole):
  for batch, numbers in whole:
    assert {len(leaf) for leaf in jax.tree.leaves(batch)} == {ROWS}
    assert len(numbers) == ROWS


def test_streams_are_saved_one_by_one_and_restored_under_another_sharing(store):
  whole = iter(dataset(store))
  follow(whole, 3)
  state = json.loads(json.dumps(whole.get_state()))
  assert state.keys() == {'0', '1', '2', '3'}
  expected = follow(whole, 3)
  parts = []
  for share in ([0], [1, 2], [3]):
    part = iter(dataset(store, share))
    follow(part, 1)
    part.set_state(state)
    parts.append(follow(part, 3))
  assert_equal(joined(parts), expected)


def test_the_states_of_several_processes_make_that_of_one(store):
  state, parts = {}, []
  for share in ([0, 1], [2, 3]):
    part = iter(dataset(store, share))
    follow(part, 2)
    state |= part.get_state()
    parts.append(follow(part, 2))
  whole = iter(dataset(store))
  whole.set_state(state)
  assert_equal(follow(whole, 2), joined(parts))


def test_a_state_without_one_of_the_streams_is_no_state(store):
  state = iter(dataset(store, [0, 1])).get_state()
  with pytest.raises(KeyError, match='3'):
    iter(dataset(store, [1, 3])).set_state(state)


def numbers_in(row):
  return [int(n) for n in row if n >= 0]


def test_numbers_are_those_of_the_examples_in_the_rows(store, whole):
  data = dataset(store)
  seen = []
  for batch, numbers in whole:
    for row, (ids, tasks) in enumerate(
      zip(batch.und.example_ids, batch.task_ids, strict=True)
    ):
      in_row = numbers_in(numbers[row])
      assert len(in_row) == ids.max()
      # The k-th example of a row has the k-th number, and its task.
      for k, number in enumerate(in_row, start=1):
        (description,) = data.describe(np.array([number]))
        (task,) = set(tasks[ids == k].tolist())
        assert description['task'] == sorted(TASKS)[task]
      seen += in_row
  assert len(seen) == len(set(seen)) > ROWS * len(whole)
  assert min(seen) < STREAMS


def test_a_stream_has_one_of_every_n_examples_in_its_own_rows(whole):
  own = [[] for _ in range(STREAMS)]
  for _, numbers in whole:
    for row, places in enumerate(numbers):
      own[row // 2] += numbers_in(places)
  for seen in own:
    assert len({n // STREAMS for n in seen}) == len(seen) > 10
    assert {n % STREAMS for n in seen} == set(range(STREAMS))


def test_shares_deal_every_element_out_once_in_every_order():
  shares = [Share(range(600), s, streams=3, seed=5) for s in range(3)]
  dealt = [list(share) for share in shares]
  orders = collections.Counter()
  for block, places in enumerate(zip(*dealt, strict=True)):
    orders[tuple(place - 3 * block for place in places)] += 1
  assert set(orders) == set(itertools.permutations(range(3)))
  assert min(orders.values()) > 15  # a sixth of 200 is 33
  assert [list(share) for share in shares] == dealt
  again = [Share(range(600), s, streams=3, seed=6) for s in range(3)]
  assert [list(share) for share in again] != dealt


def test_one_stream_has_the_sequence_in_its_order():
  assert list(Share(range(20), 0, streams=1, seed=5)) == list(range(20))


def test_before_a_batch_there_are_no_numbers(store):
  iterator = iter(dataset(store))
  assert iterator.numbers is None
  next(iterator)
  assert iterator.numbers.shape == (
    ROWS,
    nano.CAPACITY.und + nano.CAPACITY.gen,
  )


class Drawing:
  """A picture of no store."""

  def __str__(self):
    return 'drawing.png'


def example(number):
  source = SliceRef(f'case{number}', Modality.CT, 10 + number)
  target = SliceRef(f'case{number}', Modality.MR, 10 + number)
  if number == 2:
    return Example('editing', (vit_image(Drawing()), text('Draw it.')))
  return Example(
    'synthesis',
    (
      vae_image(source),
      text('To MR.'),
      vae_image(target, has_loss=True),
    ),
  )


def test_examples_are_described_by_task_case_modality_and_slice():
  data = TrainData([example(n) for n in range(4)], {})
  assert data.describe(np.array([[3, -1, 0], [2, 3, -1]])) == [
    {
      'number': 0,
      'task': 'synthesis',
      'images': ['case0 ct 10', 'case0 mr 10'],
    },
    {'number': 2, 'task': 'editing', 'images': ['drawing.png']},
    {
      'number': 3,
      'task': 'synthesis',
      'images': ['case3 ct 13', 'case3 mr 13'],
    },
  ]
  assert data.describe(np.full((2, 2), -1)) == []


def test_the_description_of_an_example_is_json(store, whole):
  descriptions = dataset(store).describe(whole[0][1])
  assert json.loads(json.dumps(descriptions)) == descriptions
  assert len(descriptions) == (whole[0][1] >= 0).sum()


def test_streams_of_other_rows_come_in_the_order_they_are_given():
  def stream(first):
    rows = [(np.array([first + i]), np.array([[-first]])) for i in range(3)]
    return grain.MapDataset.source(rows).to_iter_dataset()

  iterator = iter(TrainData([], {5: stream(50), 2: stream(20)}))
  assert next(iterator).tolist() == [50, 20]
  assert next(iterator).tolist() == [51, 21]
  assert iterator.numbers.tolist() == [[-50], [-20]]
  assert list(iterator.get_state()) == ['5', '2']
