"""Packing for inference: sizes, separate noised spans, rows."""

import dataclasses

import numpy as np
import pytest
from packing_fakes import GEOMETRY, Letters, example, tokenise

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input import packing

SYNTHESIS = ('clean', 'vit', 'text', 'noised')


@pytest.mark.parametrize(
  ('names', 'dropped'),
  [
    (('vit', 'text', 'answer'), ()),
    (SYNTHESIS, ()),
    (SYNTHESIS, (2,)),
    (SYNTHESIS, (0, 1)),
    (('clean', 'clean', 'vit', 'vit'), (3,)),
  ],
)
def test_the_measure_is_what_tokens_fill(names, dropped):
  size = packing.measure(
    example(*names), Letters(), GEOMETRY, dropped=frozenset(dropped)
  )
  features = tokenise(*names, dropped=dropped)
  assert packing.feature_capacity(size) == {
    name: len(part) for name, part in features.items()
  }


def test_conditions_and_target_are_the_whole_in_two():
  whole = tokenise(*SYNTHESIS)
  conditions, target = packing.split_target(whole, GEOMETRY)
  for name in ('und', 'gen', 'vit', 'vit_patches'):
    parts = np.concatenate([conditions[name], target[name]])
    np.testing.assert_array_equal(parts, whole[name])
  # Two markers and four latents, after 6 + 6 + 4 tokens.
  order = packing.UND.index('order')
  assert target['und'][:, order].tolist() == [16, 21]
  assert target['gen'][:, order].tolist() == [17, 18, 19, 20]
  assert len(target['vit']) == 0
  # The target's pixels are left out, the source's are not.
  assert len(target['vae_images']) == 0
  np.testing.assert_array_equal(
    conditions['vae_images'], whole['vae_images'][:1]
  )


def test_a_slab_is_parted_with_all_of_its_images():
  whole = tokenise('clean', 'clean', 'text', 'above', 'middle')
  conditions, target = packing.split_target(whole, GEOMETRY)
  assert [len(target[n]) for n in ('und', 'gen', 'vae_images')] == [4, 8, 0]
  # Two images of six tokens, and a text of four.
  order = packing.UND.index('order')
  assert target['und'][:, order].tolist() == [16, 21, 22, 27]
  np.testing.assert_array_equal(
    conditions['vae_images'], whole['vae_images'][:2]
  )


def test_conditions_see_the_target_coming_but_it_stays_hidden():
  conditions, target = packing.split_target(tokenise(*SYNTHESIS), GEOMETRY)
  start = packing.UND.index('visible_from')
  stop = packing.UND.index('visible_to')
  assert (conditions['und'][:, stop] == 22).all()
  assert (target['und'][:, start] == 16).all()


@pytest.mark.parametrize(
  'names',
  [
    ('clean', 'vit'),
    ('noised', 'text', 'clean'),
    ('noised', 'text', 'noised'),
  ],
)
def test_only_a_noised_image_at_the_end_can_be_parted(names):
  with pytest.raises(ValueError, match='one noised image or slab, at its end'):
    packing.split_target(tokenise(*names), GEOMETRY)


def test_rows_hold_one_example_each():
  capacity = Capacity(und=12, gen=4, vit=4, images=1)
  batch = packing.pack_rows(
    [tokenise('text'), tokenise('vit', 'text'), tokenise('clean')],
    capacity,
    GEOMETRY,
  )
  assert batch.vae_images.shape == (3, 1, 4, 4, 1)
  np.testing.assert_array_equal(
    (batch.und.example_ids > 0).sum(axis=1), [4, 10, 2]
  )
  assert batch.und.example_ids.max() == 1
  np.testing.assert_array_equal(
    (batch.gen.visible_to > 0).sum(axis=1), [0, 0, 4]
  )


def test_an_example_that_does_not_fit_is_refused():
  size = packing.measure(example('vit', 'text'), Letters(), GEOMETRY)
  small = dataclasses.replace(size, und=size.und - 1)
  with pytest.raises(ValueError, match="'und' exceed the capacity of 9"):
    packing.pack_rows([tokenise('vit', 'text')], small, GEOMETRY)
