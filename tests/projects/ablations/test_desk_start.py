"""The start of `desk` is that of `small` with smaller ViT patches."""

import dataclasses

import numpy as np
import pytest

from projects.ablations.desk_start import finer_tokens
from synermedgen_jax.models.layers import sincos_table
from synermedgen_jax.models.presets import preset

OLD, NEW = preset('small'), preset('desk')


@pytest.fixture
def params():
  rng = np.random.default_rng(0)
  return {
    'vit/patch_embedding/kernel': rng.standard_normal((32 * 32, 128)),
    'vit/patch_embedding/bias': rng.standard_normal(128),
    'vit/position_embedding': rng.standard_normal((4, 128)),
    'vit_pos_embed': rng.standard_normal((4, 96)),
    'lm_head/kernel': rng.standard_normal((96, 512)),
  }


def test_a_small_patch_sums_its_sixteen_places(params):
  fine = finer_tokens(params, OLD, NEW)['vit/patch_embedding/kernel']
  assert fine.shape == (64, 128)
  coarse = params['vit/patch_embedding/kernel'].reshape(32, 32, 128)
  # Pixel (1, 2) of a small patch has the places (1, 2), (1, 10), ... (25, 26).
  expected = sum(
    coarse[8 * i + 1, 8 * j + 2] for i in range(4) for j in range(4)
  )
  np.testing.assert_allclose(fine[1 * 8 + 2], expected / 4)


def test_positions_are_those_of_the_large_patch_around(params):
  made = finer_tokens(params, OLD, NEW)
  fine = made['vit/position_embedding'].reshape(8, 8, 128)
  coarse = params['vit/position_embedding'].reshape(2, 2, 128)
  for row in range(8):
    for column in range(8):
      np.testing.assert_array_equal(
        fine[row, column], coarse[row // 4, column // 4]
      )
  np.testing.assert_array_equal(made['vit_pos_embed'], sincos_table(8, 96, 2.0))


def test_nothing_else_changes(params):
  made = finer_tokens(params, OLD, NEW)
  for name in ('vit/patch_embedding/bias', 'lm_head/kernel'):
    assert made[name] is params[name]
  assert made.keys() == params.keys()


def test_models_that_differ_otherwise_are_refused(params):
  wider = dataclasses.replace(NEW, latent_patch=4)
  with pytest.raises(ValueError, match='differ in more than the ViT patch'):
    finer_tokens(params, OLD, wider)
