"""Error and overlap of bone, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.evaluation.bone import bone
from synermedgen_jax.evaluation.volume_checks import VolumeScoreError


def volume(*values):
  """A volume of two slices of one row."""
  return np.float32(values).reshape(2, 1, -1)


def masked(*values):
  return np.array(values, bool).reshape(2, 1, -1)


TRUTH = volume(200, 150, 149, 1000, 40, 900)
EVERYWHERE = np.ones(TRUTH.shape, bool)


def test_error_and_overlap_by_hand():
  synthesis = volume(230, 140, 160, 700, 300, 150)
  scores = bone(synthesis, TRUTH, EVERYWHERE)
  # Bone of the truth: 200, 150, 1000, 900. Errors: 30, 10, 300, 750.
  assert scores['bone_mae'] == pytest.approx(1090 / 4)
  # Bone of the synthesis: 230, 160, 700, 300, 150; three voxels are shared.
  assert scores['bone_dice'] == pytest.approx(2 * 3 / (5 + 4))


def test_150_hu_is_bone_and_a_lower_value_is_not():
  truth = volume(150, 149.5, 0, 0)
  scores = bone(volume(149.5, 150, 0, 0), truth, np.ones(truth.shape, bool))
  assert scores == {'bone_mae': 0.5, 'bone_dice': 0.0}
  scores = bone(volume(150, 149, 0, 0), truth, np.ones(truth.shape, bool))
  assert scores == {'bone_mae': 0.0, 'bone_dice': 1.0}


def test_bone_outside_the_mask_does_not_count():
  synthesis = volume(230, 0, 160, 3000, 300, 150)
  mask = masked(1, 0, 1, 0, 0, 1)
  scores = bone(synthesis, TRUTH, mask)
  # In the mask, bone of the truth: 200, 900; of the synthesis: 230, 160, 150.
  assert scores['bone_mae'] == pytest.approx((30 + 750) / 2)
  assert scores['bone_dice'] == pytest.approx(2 * 2 / (3 + 2))


def test_a_synthesis_without_bone_has_no_overlap():
  scores = bone(np.full_like(TRUTH, 50), TRUTH, EVERYWHERE)
  assert scores['bone_dice'] == 0
  assert scores['bone_mae'] == pytest.approx((150 + 100 + 950 + 850) / 4)


def test_values_outside_bone_change_nothing_unless_they_become_bone():
  synthesis = volume(230, 140, -1000, 700, 149, 150)
  other = volume(230, 140, 149, 700, -300, 150)
  scores = bone(synthesis, TRUTH, EVERYWHERE)
  assert scores == bone(other, TRUTH, EVERYWHERE)
  assert scores['bone_dice'] == pytest.approx(2 * 3 / (3 + 4))


@given(st.integers(0, 2**32 - 1))
def test_dice_does_not_depend_on_which_volume_is_the_truth(seed):
  rng = np.random.default_rng(seed)
  a, b = rng.uniform(-1000, 1000, (2, 3, 4, 5)).astype(np.float32)
  mask = rng.random(a.shape) < 0.8
  mask[0, 0, 0], a[0, 0, 0], b[0, 0, 0] = True, 500, 500
  scores = bone(a, b, mask)
  assert scores['bone_dice'] == bone(b, a, mask)['bone_dice']
  assert 0 < scores['bone_dice'] <= 1
  assert bone(b, b, mask) == {'bone_mae': 0, 'bone_dice': 1}


@pytest.mark.parametrize(
  ('truth', 'mask'),
  [
    (volume(149, 0, -1000, 100, 40, 0), EVERYWHERE),
    (TRUTH, masked(0, 0, 1, 0, 1, 0)),
    (TRUTH, EVERYWHERE & False),
  ],
)
def test_a_case_without_bone_is_refused(truth, mask):
  message = r'has no voxel of at least 150 HU in the mask\.$'
  with pytest.raises(VolumeScoreError, match=message):
    bone(TRUTH, truth, mask)
