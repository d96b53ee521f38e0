import dataclasses

import pytest

from synermedgen_jax.core.batch import Capacity, ImageGeometry, abstract_batch

GEOMETRY = ImageGeometry(
  vit_size=(64, 64),
  vit_patch=16,
  vit_table=4,
  vae_size=(48, 48),
  latent_stride=8,
  latent_table=6,
  channels=1,
)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'vit_size': (64, 63)}, r'vit_size \(64, 63\): 63 is not a .* of 16'),
    ({'vae_size': (44, 48)}, r'vae_size \(44, 48\): 44 is not a .* of 8'),
    ({'vae_size': (48, 0)}, r'vae_size \(48, 0\): 0 is not a positive'),
    ({'vae_size': (48,)}, r'vae_size \(48,\): expected height and width'),
    ({'vit_table': 3}, '4 tokens per side exceed the position table of 3'),
    (
      {'vae_size': (48, 56)},
      '7 tokens per side exceed the position table of 6',
    ),
  ],
)
def test_a_side_that_makes_no_whole_grid_in_its_table_is_refused(
  fields, message
):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(GEOMETRY, **fields)


def test_a_side_smaller_than_its_table_is_fine():
  assert dataclasses.replace(GEOMETRY, vit_size=(16, 16)).vit_size == (16, 16)


def test_a_400_by_256_image_costs_only_its_own_tokens():
  """25 x 16 latents of 16 pixels, 28 x 18 patches of 14; a square has 625."""
  geometry = ImageGeometry(
    vit_size=(392, 252),
    vit_patch=14,
    vit_table=70,
    vae_size=(400, 256),
    latent_stride=16,
    latent_table=64,
    channels=3,
  )
  assert geometry.latent_grid == (25, 16)
  assert geometry.image_latents == 400
  assert geometry.image_patches == 504
  batch = abstract_batch(
    1, Capacity(und=1, gen=800, vit=504, images=2), geometry
  )
  assert batch.vae_images.shape == (1, 2, 400, 256, 3)


def test_the_largest_capacity_holds_every_kind_of_any():
  sizes = [Capacity(1, 8, 2, 0), Capacity(4, 3, 2, 1)]
  assert Capacity.largest(iter(sizes)) == Capacity(4, 8, 2, 1)
  assert Capacity.largest([]) == Capacity(0, 0, 0, 0)
