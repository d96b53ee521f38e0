"""Visibility in complete rows, and our packer against Grain's."""

import grain.python as grain
import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_fakes import (
  CAPACITY,
  GEOMETRY,
  SPANS,
  Letters,
  example,
  finished_row,
  tokenise,
)

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input import packing

# Tokens of each span, its markers among them.
LENGTHS = {'text': 4, 'answer': 4, 'vit': 6, 'clean': 6, 'noised': 6}
ROOM = Capacity(und=80, gen=48, vit=48, images=12)

examples = st.lists(
  st.lists(st.sampled_from(sorted(SPANS)), min_size=1, max_size=4),
  min_size=1,
  max_size=3,
)


def bagel_mask(row_of_examples):
  """(causal or same full/noise span) and not (a noise span other than the
  query's) and same example, token by token in packing order."""
  tokens = [
    (e, s, SPANS[name].mode)
    for e, names in enumerate(row_of_examples)
    for s, name in enumerate(names)
    for _ in range(LENGTHS[name])
  ]
  mask = np.zeros((len(tokens), len(tokens)), bool)
  for q, (q_example, q_span, q_mode) in enumerate(tokens):
    for k, (k_example, k_span, k_mode) in enumerate(tokens):
      same = (q_example, q_span) == (k_example, k_span)
      mask[q, k] = (
        (k <= q or (same and q_mode in ('full', 'noise')))
        and not (k_mode == 'noise' and not same)
        and q_example == k_example
      )
  return mask


def both_streams(row, field):
  return np.concatenate([getattr(row[name], field) for name in ('und', 'gen')])


def packed_mask(row):
  """The mask of the intervals, tokens in packing order."""
  real = both_streams(row, 'example_ids') > 0
  order, start, stop = (
    both_streams(row, field)[real]
    for field in ('order', 'visible_from', 'visible_to')
  )
  assert sorted(order) == list(range(len(order)))
  visible = (start <= order[:, None]) & (order[:, None] < stop)
  turn = np.argsort(order)
  return visible[np.ix_(turn, turn)]


@settings(deadline=None, max_examples=60)
@given(examples)
def test_a_row_sees_exactly_what_bagel_lets_it_see(row_of_examples):
  row = finished_row(*(tokenise(*e) for e in row_of_examples), capacity=ROOM)
  np.testing.assert_array_equal(packed_mask(row), bagel_mask(row_of_examples))


@settings(deadline=None, max_examples=30)
@given(examples)
def test_no_token_sees_another_example(row_of_examples):
  row = finished_row(*(tokenise(*e) for e in row_of_examples), capacity=ROOM)
  owner = both_streams(row, 'example_ids')
  order = both_streams(row, 'order')
  visible = (both_streams(row, 'visible_from') <= order[:, None]) & (
    order[:, None] < both_streams(row, 'visible_to')
  )
  real = owner > 0
  assert not visible[np.ix_(real, real)][
    owner[real][:, None] != owner[real]
  ].any()
  assert not visible[:, ~real].any()


@settings(deadline=None, max_examples=30)
@given(examples)
def test_a_patch_sees_the_patches_of_its_own_image(row_of_examples):
  row = finished_row(*(tokenise(*e) for e in row_of_examples), capacity=ROOM)
  images = sum(names.count('vit') for names in row_of_examples)
  places = np.arange(ROOM.vit)[:, None]
  visible = (row['vit_visible_from'] <= places) & (
    places < row['vit_visible_to']
  )
  expected = np.zeros((ROOM.vit, ROOM.vit), bool)
  for i in range(images):
    expected[4 * i : 4 * i + 4, 4 * i : 4 * i + 4] = True
  np.testing.assert_array_equal(visible, expected)


@settings(deadline=None, max_examples=30)
@given(examples)
def test_every_patch_and_latent_of_a_row_stands_once(row_of_examples):
  row = finished_row(*(tokenise(*e) for e in row_of_examples), capacity=ROOM)
  shown = row['vit_index'][row['vit_index'] >= 0]
  vit = sum(names.count('vit') for names in row_of_examples)
  np.testing.assert_array_equal(shown, range(4 * vit))
  latents = row['latent_index'][row['gen'].example_ids > 0]
  vae = sum(
    names.count('clean') + names.count('noised') for names in row_of_examples
  )
  np.testing.assert_array_equal(latents, range(4 * vae))


@given(
  st.lists(st.sampled_from(sorted(SPANS)), min_size=1, max_size=5),
  st.sets(st.integers(0, 4)),
)
def test_measuring_counts_what_tokenising_fills(names, dropped):
  features = tokenise(*names, dropped=dropped)
  capacity = packing.measure(
    example(*names), Letters(), GEOMETRY, dropped=frozenset(dropped)
  )
  assert packing.feature_capacity(capacity) == {
    name: len(part) for name, part in features.items()
  }


def test_two_sources_stand_in_order_before_instruction_and_target():
  """Written by hand; a source sees the one before it, the target both."""
  features = tokenise('clean', 'vit', 'clean', 'vit', 'text', 'noised')
  first, last = packing.UND.index('order'), packing.UND.index('visible_to') + 1
  und = [tuple(row) for row in features['und'][:, first:last].tolist()]
  gen = [tuple(row) for row in features['gen'][:, first:last].tolist()]
  end = 34
  assert und == [
    *((k, 0, end) for k in (0, 5)),  # markers of the first source
    *((k, 6, end) for k in range(6, 12)),  # its ViT image
    *((k, 12, end) for k in (12, 17)),  # the second source
    *((k, 18, end) for k in range(18, 24)),
    *((k, k, end) for k in range(24, 28)),  # the instruction
    *((k, 28, end) for k in (28, 33)),  # the target
  ]
  assert gen == [
    *((k, 0, end) for k in range(1, 5)),
    *((k, 12, end) for k in range(13, 17)),
    *((k, 28, end) for k in range(29, 33)),
  ]
  # RoPE: one place an image, one a token of the text, none for the target.
  places = packing.GEN.index('positions')
  assert features['gen'][:, places].tolist() == [*[0] * 4, *[2] * 4, *[8] * 4]
  latents = packing.GEN.index('latent_index')
  assert features['gen'][:, latents].tolist() == list(range(12))
  noises = packing.GEN.index('noise_ids')
  assert features['gen'][:, noises].tolist() == [*[0] * 8, *[1] * 4]


def test_the_first_fit_packer_makes_the_row_that_we_make():
  """Among them examples that have nothing of a feature."""
  features = [
    tokenise('answer'),
    tokenise('vit', 'noised'),
    tokenise('clean', 'noised'),
  ]
  (row,) = grain.experimental.FirstFitPackIterDataset(
    grain.MapDataset.source(features).to_iter_dataset(),
    length_struct=packing.feature_capacity(CAPACITY),
    num_packing_bins=1,
    seed=0,
  )
  packed = packing.finish_row(row, GEOMETRY)
  ours = finished_row(*features)
  assert jax.tree.structure(packed) == jax.tree.structure(ours)
  for column, expected in zip(
    jax.tree.leaves(packed), jax.tree.leaves(ours), strict=True
  ):
    np.testing.assert_array_equal(column, expected)
