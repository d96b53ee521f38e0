"""Pairs of blocks that a kernel visits, against the dense mask."""

import jax
import numpy as np
import pytest
import span_packs
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.models.interval_attention import interval_mask
from synermedgen_jax.models.kernels import block_pairs
from synermedgen_jax.models.kernels.block_pairs import (
  NOTHING,
  PARTLY,
  WHOLLY,
)

# One program each is compiled sooner than every operation by itself.
list_pairs = jax.jit(block_pairs.list_pairs)
what_blocks_hold = jax.jit(
  block_pairs.what_blocks_hold, static_argnames=('block_q', 'block_k')
)

# A source's latents, its ViT tokens, the instruction, a noised target.
SYNTHESIS = [('full', 258), ('full', 258), ('causal', 30), ('noise', 258)]
# Five ViT images, a question and an answer.
QUESTION = [('full', 102)] * 5 + [('causal', 60), ('causal', 4)]
LATENTS = {'synthesis': (True, False, False, True), 'question': (False,) * 7}


def layout(pack, in_second=None):
  """(order, visible_from, visible_to), one row; streams one after another."""
  columns = span_packs.order_of(pack), *span_packs.intervals(pack)
  if in_second is not None:
    lengths = [length for example in pack for _, length in example]
    second = np.repeat(in_second, lengths)
    columns = [column[np.argsort(second, kind='stable')] for column in columns]
  return [column[None] for column in columns]


def exactly(columns, block_q, block_k):
  """Contents of every pair of blocks, from the dense mask."""
  mask = np.asarray(interval_mask(*columns))
  b, q_len, k_len = mask.shape
  blocks = mask.reshape(b, q_len // block_q, block_q, k_len // block_k, block_k)
  some, whole = blocks.any((2, 4)), blocks.all((2, 4))
  return np.where(whole, WHOLLY, np.where(some, PARTLY, NOTHING))


def cut(columns, multiple):
  """The first tokens, a multiple of `multiple`."""
  length = columns[0].shape[1] // multiple * multiple
  return [column[:, :length] for column in columns]


def test_by_hand():
  # Two tokens of text, two of an image; then another example.
  pack = [[('causal', 2), ('full', 2)], [('causal', 4)]]
  blocks = what_blocks_hold(*layout(pack), block_q=2, block_k=2)
  np.testing.assert_array_equal(
    blocks[0],
    [
      [PARTLY, NOTHING, NOTHING, NOTHING],
      [WHOLLY, WHOLLY, NOTHING, NOTHING],
      [NOTHING, NOTHING, PARTLY, NOTHING],
      [NOTHING, NOTHING, WHOLLY, PARTLY],
    ],
  )


@given(span_packs.packs, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_in_packing_order_it_is_exact(pack, block_q, block_k):
  columns = cut(layout(pack), 4)
  if columns[0].size:
    blocks = what_blocks_hold(*columns, block_q=block_q, block_k=block_k)
    np.testing.assert_array_equal(blocks, exactly(columns, block_q, block_k))


@given(span_packs.packs, st.data())
def test_no_visible_pair_is_left_out(pack, data):
  spans = sum(len(example) for example in pack)
  in_second = data.draw(st.lists(st.booleans(), min_size=spans, max_size=spans))
  columns = cut(layout(pack, in_second), 8)
  if columns[0].size:
    blocks = np.asarray(what_blocks_hold(*columns, block_q=8, block_k=4))
    wanted = exactly(columns, 8, 4)
    assert (blocks >= np.minimum(wanted, PARTLY)).all()
    np.testing.assert_array_equal(blocks == WHOLLY, wanted == WHOLLY)


@pytest.mark.parametrize('two_streams', [False, True])
@pytest.mark.parametrize(
  'pack',
  [[SYNTHESIS] * 10, [QUESTION] * 14, [SYNTHESIS, QUESTION] * 6],
  ids=['synthesis', 'questions', 'both'],
)
def test_few_visited_blocks_hold_nothing(pack, two_streams):
  in_second = None
  if two_streams:
    in_second = [
      latent
      for example in pack
      for latent in LATENTS['synthesis' if example is SYNTHESIS else 'question']
    ]
  columns = cut(layout(pack, in_second), 512)
  blocks = np.asarray(what_blocks_hold(*columns, block_q=512, block_k=512))
  wanted = exactly(columns, 512, 512)
  visited, needed = (blocks != NOTHING).sum(), (wanted != NOTHING).sum()
  assert visited <= 1.15 * needed


def test_twice_the_examples_are_twice_the_blocks():
  counts = []
  for examples in (2, 4, 8):
    columns = cut(layout([SYNTHESIS] * examples), 64)
    holds = what_blocks_hold(*columns, block_q=64, block_k=64)
    counts.append(int(list_pairs(holds).count))
  # The last block of a cut pack differs; nothing grows with the square.
  assert counts[1] == pytest.approx(2 * counts[0], rel=0.05)
  assert counts[2] == pytest.approx(2 * counts[1], rel=0.05)


def test_a_list_goes_outer_block_by_outer_block():
  holds = np.array([[[0, 1, 2], [0, 0, 0]], [[1, 0, 0], [0, 0, 1]]])
  pairs = list_pairs(holds)
  count = int(pairs.count)
  listed = [np.asarray(x)[:count].tolist() for x in pairs[:3]]
  # The second outer block has no partner and is visited all the same.
  assert listed == [[0, 0, 1, 2, 3], [1, 2, 0, 3, 5], [1, 2, 0, 1, 1]]


def test_queries_that_fill_a_block_see_nothing():
  columns = layout([[('full', 8)]])
  columns[0] = np.full_like(columns[0], block_pairs.NO_ORDER)
  assert not np.asarray(what_blocks_hold(*columns, block_q=4, block_k=4)).any()
