"""Hand-made tables of tokens, and masks of rows against BAGEL's rule."""

import dataclasses

import jax
import numpy as np
import pytest
from packing_fakes import (
  CAPACITY,
  GEOMETRY,
  SPANS,
  Letters,
  example,
  finished_row,
  read_slice,
  tokenise,
)

from synermedgen_jax.core.batch import Capacity, PackedBatch, abstract_batch
from synermedgen_jax.input import packing
from synermedgen_jax.tasks.example import Example


def assert_table(table, expected):
  np.testing.assert_array_equal(
    table, np.asarray(expected).reshape(table.shape)
  )


def columns(table, names, *wanted):
  """Some columns of a table of tokens, a list each."""
  return [table[:, names.index(name)].tolist() for name in wanted]


def test_an_answer_is_predicted_from_im_start_to_im_end():
  features = tokenise('answer', task_id=1)
  # Each token sees itself and is seen by all that follow.
  # positions order from to example | token vit label weight task
  assert_table(
    features['und'],
    [
      [0, 0, 0, 4, 1, 1, -1, 10, 1, 1],
      [1, 1, 1, 4, 1, 10, -1, 11, 1, 1],
      [2, 2, 2, 4, 1, 11, -1, 2, 1, 1],
      [3, 3, 3, 4, 1, 2, -1, 0, 0, 1],
    ],
  )
  for name in ('gen', 'vit', 'vit_patches', 'vae_images'):
    assert len(features[name]) == 0


def test_a_text_without_loss_has_no_labels():
  und = tokenise('text', task_id=3)['und']
  assert_table(
    und,
    [
      [0, 0, 0, 4, 1, 1, -1, 0, 0, 3],
      [1, 1, 1, 4, 1, 10, -1, 0, 0, 3],
      [2, 2, 2, 4, 1, 11, -1, 0, 0, 3],
      [3, 3, 3, 4, 1, 2, -1, 0, 0, 3],
    ],
  )


def test_a_vit_image_stands_between_markers_and_sees_all_of_itself():
  features = tokenise('vit')
  assert_table(
    features['und'],
    [
      [0, 0, 0, 6, 1, 3, -1, 0, 0, 4],
      [0, 1, 0, 6, 1, 0, 0, 0, 0, 4],
      [0, 2, 0, 6, 1, 0, 1, 0, 0, 4],
      [0, 3, 0, 6, 1, 0, 2, 0, 0, 4],
      [0, 4, 0, 6, 1, 0, 3, 0, 0, 4],
      [0, 5, 0, 6, 1, 4, -1, 0, 0, 4],
    ],
  )
  # position in a table of side 3, from, to, example
  assert_table(
    features['vit'], [[0, 0, 4, 1], [1, 0, 4, 1], [3, 0, 4, 1], [4, 0, 4, 1]]
  )
  assert_table(
    features['vit_patches'],
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]],
  )


def test_a_clean_vae_image_has_und_markers_and_gen_latents():
  features = tokenise('clean')
  assert_table(
    features['und'],
    [[0, 0, 0, 6, 1, 3, -1, 0, 0, 4], [0, 5, 0, 6, 1, 4, -1, 0, 0, 4]],
  )
  # positions order from to example |
  # latent, place in a table of side 5, offset, noise
  assert_table(
    features['gen'],
    [
      [0, 1, 0, 6, 1, 0, 0, 0, 0],
      [0, 2, 0, 6, 1, 1, 1, 0, 0],
      [0, 3, 0, 6, 1, 2, 5, 0, 0],
      [0, 4, 0, 6, 1, 3, 6, 0, 0],
    ],
  )
  np.testing.assert_array_equal(
    features['vae_images'],
    np.arange(100, 116, dtype=np.float32).reshape(1, 4, 4, 1),
  )


def test_a_noised_image_is_hidden_from_what_follows():
  features = tokenise('text', 'noised', 'text')
  visible = columns(features['gen'], packing.GEN, 'visible_from', 'visible_to')
  assert visible == [[4] * 4, [10] * 4]
  visible = columns(features['und'], packing.UND, 'visible_from', 'visible_to')
  assert visible == [
    [0, 1, 2, 3, 4, 4, 10, 11, 12, 13],
    [14, 14, 14, 14, 10, 10, 14, 14, 14, 14],
  ]
  assert columns(features['gen'], packing.GEN, 'noise_ids') == [[1] * 4]


def test_noised_images_of_a_slab_see_each_other_and_share_a_timestep():
  features = tokenise('clean', 'above', 'middle', 'text', 'noised')
  wanted = 'visible_from', 'visible_to', 'positions', 'noise_ids'
  gen = columns(features['gen'], packing.GEN, *wanted)
  # Six tokens an image with its markers, four a text.
  assert gen == [
    [*[0] * 4, *[6] * 8, *[22] * 4],
    [*[28] * 4, *[18] * 8, *[28] * 4],
    [*[0] * 4, *[1] * 8, *[5] * 4],
    [*[0] * 4, *[1] * 8, *[2] * 4],
  ]
  order, start, stop = columns(
    features['und'], packing.UND, 'order', 'visible_from', 'visible_to'
  )
  assert order[2:6] == [6, 11, 12, 17]  # markers of the slab
  assert (start[2:6], stop[2:6]) == ([6] * 4, [18] * 4)


def test_codes_of_a_slab_follow_one_another():
  one_by_one = dataclasses.replace(GEOMETRY, causal_targets=True)
  features = packing.tokenise(
    example('clean', 'above', 'middle'), Letters(), one_by_one, read_slice
  )
  start, stop = columns(
    features['gen'], packing.GEN, 'visible_from', 'visible_to'
  )
  assert start == [0, 0, 0, 0, 7, 8, 9, 10, 13, 14, 15, 16]
  assert stop == [18] * 12


def test_latent_tokens_have_the_offset_of_their_span():
  slab = Example(
    'synthesis',
    tuple(
      dataclasses.replace(SPANS['clean'], offset=offset)
      for offset in (-1, 0, 2)
    ),
  )
  features = packing.tokenise(slab, Letters(), GEOMETRY, read_slice)
  assert columns(features['gen'], packing.GEN, 'latent_offsets') == [
    [*[-1] * 4, *[0] * 4, *[2] * 4]
  ]


def test_a_synthesis_example_counts_positions_as_bagel_does():
  features = tokenise('clean', 'vit', 'text', 'noised')
  und_positions, und_order = columns(
    features['und'], packing.UND, 'positions', 'order'
  )
  gen_positions, gen_order = columns(
    features['gen'], packing.GEN, 'positions', 'order'
  )
  # One per image, one per text token; the two image markers stand in und.
  assert und_positions == [0, 0, *[1] * 6, 2, 3, 4, 5, 6, 6]
  assert und_order == [0, 5, *range(6, 12), 12, 13, 14, 15, 16, 21]
  assert gen_positions == [0] * 4 + [6] * 4
  assert gen_order == [1, 2, 3, 4, 17, 18, 19, 20]
  latent, noise = columns(
    features['gen'], packing.GEN, 'latent_index', 'noise_ids'
  )
  assert latent == list(range(8))
  assert noise == [0] * 4 + [1] * 4


def test_a_noised_image_leaves_the_position_to_its_successor():
  und = tokenise('noised', 'clean', 'text')['und']
  assert columns(und, packing.UND, 'positions') == [[0, 0, 0, 0, 1, 2, 3, 4]]


def test_a_dropped_image_moves_the_position_and_a_dropped_text_does_not():
  full = ('clean', 'vit', 'text', 'noised')
  without_images = tokenise(*full, dropped=[0, 1])
  positions, order = columns(
    without_images['und'], packing.UND, 'positions', 'order'
  )
  assert positions == [2, 3, 4, 5, 6, 6]
  assert order == [0, 1, 2, 3, 4, 9]
  assert len(without_images['vit']) == 0
  # The noised target is now the only canvas.
  assert columns(without_images['gen'], packing.GEN, 'latent_index') == [
    [0, 1, 2, 3]
  ]
  without_text = tokenise(*full, dropped=[2])
  (positions,) = columns(without_text['gen'], packing.GEN, 'positions')
  assert positions == [0] * 4 + [2] * 4


def test_an_example_moves_right_by_what_stands_before_it():
  row = finished_row(
    tokenise('vit', 'noised', task_id=2),
    tokenise('vit', 'noised', 'answer', task_id=4),
  )
  und, gen = row['und'], row['gen']
  first = [*range(6), 6, 11]
  np.testing.assert_array_equal(und.order[:8], first)
  np.testing.assert_array_equal(
    und.order[8:20], [*(12 + i for i in first), 24, 25, 26, 27]
  )
  np.testing.assert_array_equal(
    und.visible_from[:20],
    [*[0] * 6, 6, 6, *[12] * 6, 18, 18, 24, 25, 26, 27],
  )
  np.testing.assert_array_equal(
    und.visible_to[:20], [*[12] * 8, *[28] * 6, 24, 24, *[28] * 4]
  )
  np.testing.assert_array_equal(
    und.positions[:20], [*[0] * 6, 1, 1, *[0] * 6, 1, 1, 1, 2, 3, 4]
  )
  np.testing.assert_array_equal(und.example_ids, [1] * 8 + [2] * 12 + [0] * 4)
  np.testing.assert_array_equal(row['task_ids'], [2] * 8 + [4] * 12 + [0] * 4)
  np.testing.assert_array_equal(
    row['vit_index'][:14],
    [-1, 0, 1, 2, 3, -1, -1, -1, -1, 4, 5, 6, 7, -1],
  )
  np.testing.assert_array_equal(gen.order[:8], [7, 8, 9, 10, 19, 20, 21, 22])
  np.testing.assert_array_equal(gen.visible_to[:8], [12] * 4 + [24] * 4)
  np.testing.assert_array_equal(row['latent_index'][:8], range(8))
  np.testing.assert_array_equal(row['noise_ids'], [1] * 4 + [2] * 4 + [0] * 4)
  np.testing.assert_array_equal(row['vit_visible_from'][:8], [0] * 4 + [4] * 4)
  np.testing.assert_array_equal(row['vit_visible_to'][:8], [4] * 4 + [8] * 4)


def test_answers_keep_their_labels_and_weights_in_a_row():
  row = finished_row(tokenise('text'), tokenise('answer', task_id=3))
  weights = np.zeros(24)
  weights[4:7] = 1
  np.testing.assert_array_equal(row['ntp_weight'], weights)
  assert row['ntp_weight'].dtype == np.float32
  np.testing.assert_array_equal(row['labels'][4:8], [10, 11, 2, 0])
  assert not row['labels'][:4].any()
  assert not row['labels'][8:].any()


def test_noised_images_are_numbered_over_the_row():
  row = finished_row(
    tokenise('clean', 'noised'), tokenise('noised'), capacity=CAPACITY
  )
  np.testing.assert_array_equal(row['noise_ids'], [0] * 4 + [1] * 4 + [2] * 4)
  both = tokenise('noised', 'noised')
  row = finished_row(tokenise('noised'), both)
  np.testing.assert_array_equal(row['noise_ids'], [1] * 4 + [2] * 4 + [3] * 4)


def test_padding_is_seen_by_nobody_and_counts_for_nothing():
  row = finished_row(tokenise('vit', 'noised', 'answer'))
  for layout, real in ((row['und'], 12), (row['gen'], 4)):
    for field in ('visible_from', 'visible_to', 'example_ids', 'order'):
      assert not getattr(layout, field)[real:].any()
  assert (row['vit_index'][12:] == -1).all()
  for field in ('token_ids', 'labels', 'ntp_weight', 'task_ids'):
    assert not row[field][12:].any()
  for field in ('latent_index', 'noise_ids'):
    assert not row[field][4:].any()
  assert not row['vit_visible_to'][4:].any()
  assert not row['vit_patches'][4:].any()
  assert not row['vae_images'][1:].any()


@pytest.mark.parametrize(
  ('field', 'size', 'feature'),
  [
    ('und', 13, "14 entries of 'und'"),
    ('gen', 7, "8 entries of 'gen'"),
    ('vit', 3, "4 entries of 'vit'"),
    ('images', 1, "2 entries of 'vae_images'"),
  ],
)
def test_an_example_that_does_not_fit_is_named(field, size, feature):
  fits = Capacity(und=14, gen=8, vit=4, images=2)
  features = tokenise('clean', 'vit', 'text', 'noised')
  packing.concatenate_row([features], fits)
  small = dataclasses.replace(fits, **{field: size})
  with pytest.raises(
    ValueError, match=rf'{feature} exceed the capacity of {size}: .*capacity'
  ):
    packing.concatenate_row([features], small)


def test_a_canvas_that_is_not_full_keeps_its_own_grid():
  """The latents of a narrow image lie in the left of the canvas."""
  row = packing.RowBuilder(Letters(), GEOMETRY, task_id=4)
  row.add_vae_image(np.ones((4, 2, 1), np.float32))
  row.add_noised_images([(np.ones((2, 4, 1), np.float32), 0)])
  features = row.features()
  latents, places = columns(
    features['gen'], packing.GEN, 'latent_index', 'latent_positions'
  )
  assert latents == [0, 2, 4, 5]
  assert places == [0, 5, 0, 1]
  np.testing.assert_array_equal(
    features['vae_images'][..., 0],
    [[[1, 1, 0, 0]] * 4, [[1] * 4] * 2 + [[0] * 4] * 2],
  )


def test_an_image_that_is_higher_than_wide_has_a_grid_of_its_own():
  """Three rows of two ViT patches; two rows of one latent token."""
  geometry = dataclasses.replace(GEOMETRY, vit_size=(6, 4), vae_size=(4, 2))
  pixels = np.arange(24, dtype=np.float32).reshape(6, 4) / 24
  features = packing.tokenise(
    example('vit', 'clean', 'noised'), Letters(), geometry, lambda ref: pixels
  )
  assert columns(features['vit'], packing.VIT, 'vit_positions') == [
    [0, 1, 3, 4, 6, 7]
  ]
  np.testing.assert_allclose(
    features['vit_patches'][2] * 24, [8, 9, 12, 13], atol=1e-5
  )
  latents, places = columns(
    features['gen'], packing.GEN, 'latent_index', 'latent_positions'
  )
  assert latents == [0, 1, 2, 3]
  assert places == [0, 5, 0, 5]
  assert features['vae_images'].shape == (2, 4, 2, 1)
  sizes = packing.measure(
    example('vit', 'clean', 'noised'), Letters(), geometry
  )
  assert (sizes.vit, sizes.gen) == (6, 4)
  batch = packing.pack_rows(
    [features], Capacity(und=12, gen=4, vit=6, images=2), geometry
  )
  assert (batch.image_patches, batch.image_latents) == (6, 2)


def test_grey_slices_are_repeated_over_the_channels():
  features = packing.tokenise(
    Example('synthesis', (SPANS['clean'],)),
    Letters(),
    dataclasses.replace(GEOMETRY, channels=3),
    lambda ref: np.eye(4, dtype=np.float32),
  )
  np.testing.assert_array_equal(
    features['vae_images'][0], np.stack([np.eye(4)] * 3, axis=-1)
  )


def test_rows_stack_into_a_batch():
  rows = [
    finished_row(tokenise('vit', 'noised')),
    finished_row(tokenise('text')),
  ]
  stacked = {
    name: np.stack([row[name] for row in rows])
    for name in rows[0]
    if name not in ('und', 'gen')
  }
  layouts = {
    name: type(rows[0][name])(
      *(
        np.stack([getattr(row[name], field) for row in rows])
        for field in packing.LAYOUT
      )
    )
    for name in ('und', 'gen')
  }
  batch = packing.to_batch(stacked | layouts, GEOMETRY)
  assert isinstance(batch, PackedBatch)
  assert batch.image_patches == GEOMETRY.image_patches
  cut = {**stacked, 'vit_visible_to': stacked['vit_visible_to'].copy()}
  cut['vit_visible_to'][0, 0] -= 1  # an image of another size
  assert packing.to_batch(cut | layouts, GEOMETRY).image_patches == 0
  assert batch.image_latents == GEOMETRY.image_latents
  partial = jax.tree.map(np.copy, layouts)
  partial['gen'].example_ids[0, 0] = 0  # an image that is smaller
  assert packing.to_batch(stacked | partial, GEOMETRY).image_latents == 0
  assert batch.token_ids.shape == (2, CAPACITY.und)
  assert batch.gen.order.shape == (2, CAPACITY.gen)
  assert batch.vit_patches.shape == (2, CAPACITY.vit, 4)
  assert batch.vae_images.shape == (2, CAPACITY.images, 4, 4, 1)
  promised = abstract_batch(2, CAPACITY, GEOMETRY)
  shapes = [(x.shape, x.dtype) for x in jax.tree.leaves(promised)]
  assert shapes == [(x.shape, x.dtype) for x in jax.tree.leaves(batch)]
