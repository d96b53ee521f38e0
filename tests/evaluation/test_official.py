"""Scores of challenges: values of their programs, and what is refused."""

import functools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.evaluation import official
from synermedgen_jax.evaluation.volume_checks import VolumeScoreError

DATA = Path(__file__).parents[1] / 'data'
GOLDEN = json.loads((DATA / 'official_metrics.json').read_text())['values']
PROGRAMS = {
  'synthrad2023': official.synthrad2023,
  'synthrad2025': official.synthrad2025,
  'synthrad2025_3000': functools.partial(official.synthrad2025, high=3000.0),
}


def analytic():
  """The analytic volumes of the golden file: synthesis, truth, mask."""
  z, y, x = np.meshgrid(*map(np.arange, (40, 64, 48)), indexing='ij')
  truth = 600 * np.sin(x / 7) * np.cos(y / 9) + 400 * np.sin(z / 5) - 100
  synthesis = truth + 60 * np.cos(x / 3) + 40 * np.sin(y / 4 + z / 3)
  block = (slice(20, 24),) * 3
  truth[block], synthesis[block] = 3500, 2500
  truth[10, 10, 10] = -1500
  mask = (
    ((x - 24) / 20) ** 2 + ((y - 32) / 26) ** 2 + ((z - 20) / 17) ** 2
  ) <= 1
  return synthesis.astype(np.float32), truth.astype(np.float32), mask


def real(name):
  return nib.load(DATA / name).get_fdata(dtype=np.float32)


def ct():
  truth = real('sts/STS_035/ct.nii.gz')
  return np.roll(truth, 1, axis=0), truth, truth > -500


def mr():
  truth = real('openms/patient26/t1ce.nii.gz')
  mask = truth > np.percentile(truth, 60)
  return np.float32(1.2) * np.roll(truth, 1, axis=0), truth, mask


def small(seed=0, shape=(9, 10, 11)):
  """Positive noise, a noisy copy of it, and a mask that reaches no face."""
  rng = np.random.default_rng(seed)
  truth = rng.uniform(0, 1000, shape).astype(np.float32)
  synthesis = truth + rng.normal(0, 100, shape).astype(np.float32)
  mask = np.zeros(shape, bool)
  mask[1:-1, 1:-1, 1:-1] = True
  return synthesis, truth, mask


@pytest.mark.parametrize('volumes', [analytic, ct])
@pytest.mark.parametrize('program', PROGRAMS)
def test_synthrad_scores_are_those_of_the_challenge(volumes, program):
  scores = PROGRAMS[program](*volumes())
  golden = GOLDEN[volumes.__name__][program]
  assert scores == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize('volumes', [analytic, mr])
def test_brasyn_is_that_of_the_challenge_in_and_outside_the_tumour(volumes):
  synthesis, truth, mask = volumes()
  scores = {
    'tumor': official.brasyn(synthesis, truth, mask)['ssim'],
    'non_tumor': official.brasyn(synthesis, truth, ~mask)['ssim'],
  }
  golden = GOLDEN[volumes.__name__]['brasyn']
  assert scores == pytest.approx(golden, rel=1e-5)


def naive_brasyn(synthesis, truth, mask):
  """SSIM voxel by voxel, from windows of 11 x 11 x 11 voxels."""

  def prepared(volume):
    ordered = np.sort(volume.astype(np.float64), axis=None)
    position = np.arange(ordered.size) / (ordered.size - 1)
    low, high = (np.interp(q, position, ordered) for q in (0.005, 0.995))
    low = max(low, 0)
    volume = np.minimum(np.maximum(volume, low), high)
    return np.where(mask, (volume - low) / (high - low), 0)

  x, y = prepared(synthesis), prepared(truth)
  span = max(x.max() - x.min(), y.max() - y.min())
  c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
  line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
  weights = line[:, None, None] * line[:, None] * line
  weights /= weights.sum()
  x, y = (np.pad(volume, 5, mode='reflect') for volume in (x, y))
  values = []
  for z, row, column in np.ndindex(mask.shape):
    window = np.s_[z : z + 11, row : row + 11, column : column + 11]
    a, b = x[window], y[window]
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    var_a = (weights * (a - mean_a) ** 2).sum()
    var_b = (weights * (b - mean_b) ** 2).sum()
    cov = (weights * (a - mean_a) * (b - mean_b)).sum()
    values.append(
      (2 * mean_a * mean_b + c1)
      * (2 * cov + c2)
      / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
  return np.mean(values)


@pytest.mark.parametrize('offset', [0, -500])
def test_brasyn_is_that_of_explicit_windows(offset):
  synthesis, truth, mask = small()
  volumes = synthesis + np.float32(offset), truth + np.float32(offset), mask
  score = official.brasyn(*volumes)['ssim']
  assert score == pytest.approx(naive_brasyn(*volumes), rel=1e-9)


def test_a_black_synthesis_has_a_brasyn_score():
  _, truth, mask = small()
  flat = np.full_like(truth, 7)
  score = official.brasyn(flat, truth, mask)['ssim']
  assert score == official.brasyn(flat * 0, truth, mask)['ssim']
  assert 0 < score < 0.5


def test_brasyn_ignores_the_scale_of_the_synthesis():
  synthesis, truth, mask = small()
  scores = [official.brasyn(k * synthesis, truth, mask) for k in (1, 4)]
  assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_a_small_volume_is_extended_by_its_outermost_voxels():
  volumes = small()  # of 9, 10 and 11 voxels
  pad = [(44, 44), (43, 44), (43, 43)]  # to 97
  extended = [np.pad(volume, pad, mode='edge') for volume in volumes]
  scores = official.synthrad2025(*volumes)
  assert scores['ms_ssim'] == official.synthrad2025(*extended)['ms_ssim']


@pytest.mark.parametrize(
  'function', [official.synthrad2023, official.synthrad2025]
)
def test_errors_outside_the_mask_do_not_count(function):
  synthesis, truth, mask = small()
  other = np.where(mask, synthesis, 3000).astype(np.float32)
  assert function(other, truth, mask) == function(synthesis, truth, mask)


def test_values_above_the_range_count_in_mae_alone():
  _, truth, mask = small()
  truth = truth + np.float32(4000)
  scores = official.synthrad2023(truth + np.float32(50), truth, mask)
  assert scores == pytest.approx({'mae': 50, 'psnr': 100, 'ssim': 1})


def only(index, shape=(9, 10, 11)):
  mask = np.zeros(shape, bool)
  mask[index] = True
  return mask


@pytest.mark.parametrize(
  ('function', 'mask', 'message'),
  [
    (
      official.synthrad2023,
      only(0),
      'no body voxel at least 3 voxels from every',
    ),
    (
      official.synthrad2023,
      only(()) & False,
      'no body voxel at least 3 voxels',
    ),
    # The voxel of the coarsest scale is the middle one: 4, 5, 5.
    (official.synthrad2025, ~only((4, 5, 5)), 'coarsest of five scales'),
    (official.brasyn, only(()) & False, 'no voxel in the mask'),
  ],
)
def test_a_mask_without_a_voxel_to_score_is_refused(function, mask, message):
  synthesis, truth, _ = small()
  with pytest.raises(VolumeScoreError, match=message):
    function(synthesis, truth, mask)


def test_the_middle_voxel_is_enough_for_ms_ssim():
  synthesis, truth, _ = small()
  mask = only((4, 5, 5))
  assert 0 < official.synthrad2025(synthesis, truth, mask)['ms_ssim'] <= 1


def test_brasyn_refuses_a_constant_truth():
  synthesis, truth, mask = small()
  with pytest.raises(VolumeScoreError, match='constant in the mask'):
    official.brasyn(synthesis, truth * 0 + 5, mask)
