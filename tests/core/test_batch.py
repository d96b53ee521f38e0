import dataclasses

import pytest

from synermedgen_jax.core.batch import ImageGeometry

GEOMETRY = ImageGeometry(
  vit_side=64,
  vit_patch=16,
  vit_table=4,
  vae_side=48,
  latent_stride=8,
  latent_table=6,
  channels=1,
)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'vit_side': 63}, 'Image side 63 is not a multiple of 16'),
    ({'vae_side': 44}, 'Image side 44 is not a multiple of 8'),
    ({'vit_table': 3}, '4 tokens per side exceed the position table of 3'),
    ({'vae_side': 56}, '7 tokens per side exceed the position table of 6'),
  ],
)
def test_a_side_that_makes_no_whole_grid_in_its_table_is_refused(
  fields, message
):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(GEOMETRY, **fields)


def test_a_side_smaller_than_its_table_is_fine():
  assert dataclasses.replace(GEOMETRY, vit_side=16).vit_side == 16
