"""Errors per tissue, overlap and distance of bone, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from synermedgen_jax.evaluation.tissue import hd95, tissue
from synermedgen_jax.evaluation.volume_checks import VolumeScoreError

MM = (1.0, 1.0, 1.0)


def volume(*values):
  """A volume of two slices of one row."""
  return np.float32(values).reshape(2, 1, -1)


def masked(*values):
  return np.array(values, bool).reshape(2, 1, -1)


TRUTH = volume(200, 150, 149, 1000, 40, 900, -900, -201, -200, 0)
EVERYWHERE = np.ones(TRUTH.shape, bool)


def test_errors_and_biases_by_hand():
  synthesis = volume(230, 140, 160, 700, 300, 150, -800, -400, 0, 0)
  scores = tissue(synthesis, TRUTH, EVERYWHERE, MM)
  # Bone: 200, 150, 1000, 900. Errors: 30, -10, -300, -750.
  assert scores['bone_mae'] == pytest.approx(1090 / 4)
  assert scores['bone_bias'] == pytest.approx(-1030 / 4)
  # Air: -900, -201. Errors: 100, -199.
  assert scores['air_mae'] == pytest.approx(299 / 2)
  assert scores['air_bias'] == pytest.approx(-99 / 2)
  # Soft tissue: 149, 40, -200, 0. Errors: 11, 260, 200, 0.
  assert scores['soft_mae'] == scores['soft_bias'] == pytest.approx(471 / 4)
  # Bone of the synthesis: 230, 160, 700, 300, 150; three voxels are shared.
  assert scores['bone_dice'] == pytest.approx(2 * 3 / (5 + 4))


def test_150_hu_is_bone_and_a_lower_value_is_not():
  truth = volume(150, 149.5, -300, 0)
  inside = np.ones(truth.shape, bool)
  scores = tissue(volume(149.5, 150, -300, 0), truth, inside, MM)
  assert (scores['bone_mae'], scores['bone_dice']) == (0.5, 0)
  scores = tissue(volume(150, 149, -300, 0), truth, inside, MM)
  assert (scores['bone_mae'], scores['bone_dice']) == (0, 1)


def test_voxels_outside_the_mask_do_not_count():
  synthesis = volume(230, 0, 160, 3000, 300, 150, -800, -400, 0, 0)
  mask = masked(1, 0, 1, 0, 0, 1, 1, 0, 0, 0)
  scores = tissue(synthesis, TRUTH, mask, MM)
  # In the mask, bone of the truth: 200, 900; of the synthesis: 230, 160, 150.
  assert scores['bone_mae'] == pytest.approx((30 + 750) / 2)
  assert scores['bone_dice'] == pytest.approx(2 * 2 / (3 + 2))
  assert scores['air_bias'] == 100
  assert scores['soft_bias'] == 11


@given(st.integers(0, 2**32 - 1))
def test_overlap_and_distance_do_not_depend_on_which_volume_is_the_truth(seed):
  rng = np.random.default_rng(seed)
  a, b = rng.uniform(-1000, 1000, (2, 3, 4, 5)).astype(np.float32)
  mask = rng.random(a.shape) < 0.8
  for at, value in enumerate((500, -500, 0)):
    mask[0, 0, at], a[0, 0, at], b[0, 0, at] = True, value, value
  scores, other = tissue(a, b, mask, MM), tissue(b, a, mask, MM)
  for name in ('bone_dice', 'bone_hd95'):
    assert scores[name] == other[name]
  assert 0 < scores['bone_dice'] <= 1
  equal = tissue(b, b, mask, MM)
  assert equal.pop('bone_dice') == 1
  assert not any(equal.values())


def box(shape, *sides):
  mask = np.zeros(shape, bool)
  mask[tuple(slice(*side) for side in sides)] = True
  return mask


@pytest.mark.parametrize('axis', range(3))
def test_boxes_two_voxels_apart_are_at_twice_the_spacing(axis):
  spacing = [4.0, 4.0, 4.0]
  spacing[axis] = 1.5
  sides = [(4, 10)] * 3
  a = box((16, 16, 16), *sides)
  sides[axis] = (6, 12)
  assert hd95(a, box((16, 16, 16), *sides), tuple(spacing)) == pytest.approx(3)


def naive_hd95(a, b, spacing):
  """From the coordinates of all surface voxels."""

  def surface(mask):
    inner = ndimage.binary_erosion(mask, border_value=1)
    return np.argwhere(mask & ~inner) * spacing

  distances = np.linalg.norm(surface(a)[:, None] - surface(b)[None], axis=-1)
  both = [*distances.min(0), *distances.min(1)]
  return np.percentile(both, 95)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.9]))
def test_the_distance_is_that_of_all_pairs_of_surface_voxels(seed, density):
  rng = np.random.default_rng(seed)
  a, b = rng.random((2, 5, 7, 8)) < density
  spacing = (3.0, 0.7, 1.1)
  a[2, 2, 2], a[2, 2, 3], b[2, 4, 4], b[2, 4, 5] = True, False, True, False
  assert hd95(a, b, spacing) == pytest.approx(
    naive_hd95(a, b, spacing), rel=1e-5
  )


def test_a_synthesis_without_bone_has_no_overlap_and_is_a_diagonal_away():
  scores = tissue(np.full_like(TRUTH, 50), TRUTH, EVERYWHERE, (3.0, 2.0, 1.0))
  assert scores['bone_dice'] == 0
  assert scores['bone_mae'] == pytest.approx((150 + 100 + 950 + 850) / 4)
  # Two slices of one row of five voxels.
  assert scores['bone_hd95'] == pytest.approx(np.hypot(3, 4))


@pytest.mark.parametrize(
  ('truth', 'mask', 'lacking'),
  [
    (np.minimum(TRUTH, 149), EVERYWHERE, 'bone, at least 150 HU,'),
    (TRUTH, masked(0, 0, 1, 0, 1, 0, 1, 0, 0, 0), 'bone, at least 150 HU,'),
    (np.maximum(TRUTH, -200), EVERYWHERE, 'air, below -200 HU,'),
    (TRUTH, masked(1, 1, 0, 0, 0, 0, 1, 0, 0, 0), 'soft tissue, -200 to 150'),
    (TRUTH, EVERYWHERE & False, 'air'),
  ],
)
def test_a_case_that_lacks_a_tissue_is_refused(truth, mask, lacking):
  with pytest.raises(VolumeScoreError, match=f'has no voxel of {lacking}'):
    tissue(TRUTH, truth, mask, MM)
