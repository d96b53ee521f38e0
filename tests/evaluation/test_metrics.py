import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import structural_similarity

from synermedgen_jax.evaluation import metrics

HU = (-1000.0, 1000.0)
RATIOS = ('ssim', 'roughness', 'roughness_z', 'ssim_3d')
ACROSS = {'roughness_z', 'ssim_3d'}


def volumes(shape=(3, 32, 40), seed=0):
  """A smooth truth, a noisy prediction of it, and a mask; in [-1, 1]."""
  rng = np.random.default_rng(seed)
  truth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3))
  truth = np.clip(truth / np.abs(truth).max(), -1, 1).astype(np.float32)
  noise = 0.2 * rng.normal(size=shape)
  mask = np.zeros(shape, bool)
  mask[:, 4:-6, 7:-3] = True
  return (truth + noise).astype(np.float32), truth, mask


def skimage_map(x, y):
  return structural_similarity(
    x.astype(np.float64),
    y.astype(np.float64),
    data_range=1.0,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
    full=True,
  )


def case_metrics(prediction, truth, mask, *, unit_range=HU, indices=None):
  """Scores of slices that are adjacent by default."""
  if indices is None:
    indices = range(7, 7 + len(truth))
  [scores] = metrics.case_metrics(
    prediction, truth, mask, unit_range=unit_range, indices=np.array(indices)
  )
  return scores


def unit(volume):
  return (np.clip(volume, -1, 1) + 1) / 2


def test_psnr_and_mae_by_hand():
  truth = np.zeros((2, 12, 12), np.float32)
  prediction = truth + np.float32(0.2)  # a tenth of the window of 2
  scores = case_metrics(prediction, truth, None)
  assert scores['psnr'] == pytest.approx(20, abs=1e-4)
  assert scores['mae'] == pytest.approx(200, rel=1e-5)
  suv = case_metrics(prediction, truth, None, unit_range=(0.0, 10.0))
  assert suv['mae'] == pytest.approx(1, rel=1e-5)


def test_psnr_is_of_the_case_and_not_a_mean_over_slices():
  truth = np.zeros((2, 12, 12), np.float32)
  prediction = truth.copy()
  prediction[1] = 0.2
  scores = case_metrics(prediction, truth, None)
  assert scores['psnr'] == pytest.approx(10 * np.log10(1 / 0.005), abs=1e-4)


def test_equal_volumes_score_the_most():
  _, truth, mask = volumes()
  scores = case_metrics(truth, truth, mask)
  best = {'psnr': 100, 'mae': 0} | dict.fromkeys(RATIOS, 1)
  assert scores == pytest.approx(best, abs=1e-6)


def test_roughness_compares_steps_between_neighbours_in_the_mask():
  # On [0, 1], steps of 0.4 and 0.1 along the row; those of the columns are 0.
  truth = np.tile(np.float32([-1.0, -0.2, 0.0, 1.0]), (1, 12, 3))
  prediction = np.tile(np.float32([-0.6, -0.2, -0.1, -1.0]), (1, 12, 3))
  mask = np.zeros(truth.shape, bool)
  mask[:, 2:5, :3] = True
  scores = case_metrics(prediction, truth, mask)
  assert scores['roughness'] == pytest.approx(0.25 / 0.5, rel=1e-4)
  # A column of the mask, along which nothing changes, has the ratio 1.
  mask[:, :, 1:] = False
  scores = case_metrics(prediction, truth, mask)
  assert scores['roughness'] == 1
  # The full frame counts the steps between the tiles, too.
  scores = case_metrics(prediction, truth, None)
  rows = [np.abs(np.diff(unit(x)[0, 0])).sum() for x in (prediction, truth)]
  assert scores['roughness'] == pytest.approx(rows[0] / rows[1], rel=1e-3)


def levels(*values):
  """Slices of one grey level each, from [0, 1]."""
  slices = np.ones((len(values), 12, 12), np.float32)
  return slices * (2 * np.float32(values)[:, None, None] - 1)


def test_roughness_z_compares_steps_across_slices_in_the_mask():
  truth, prediction = levels(0, 0.5, 0.3, 1), levels(0.4, 0.6, 0.5, 0.5)
  scores = case_metrics(prediction, truth, None)
  # Mean steps of 0.3 / 3 over 1.4 / 3.
  assert scores['roughness_z'] == pytest.approx(0.3 / 1.4, rel=1e-4)
  assert scores['roughness'] == 1  # no slice changes within
  mask = np.zeros(truth.shape, bool)
  mask[:3, :6] = True
  mask[1:3, 6:] = True
  scores = case_metrics(prediction, truth, mask)
  # Steps of 0.2 and 0.5 at 6 rows, of 0.1 and 0.2 at 12.
  expected = (6 * 0.2 + 12 * 0.1) / (6 * 0.5 + 12 * 0.2)
  assert scores['roughness_z'] == pytest.approx(expected, rel=1e-4)


@given(st.floats(0.05, 1), st.floats(-0.5, 0.5), st.integers(2, 5))
def test_roughness_is_the_share_of_contrast_that_is_left(scale, offset, slices):
  truth = np.random.default_rng(slices).uniform(-1, 1, (slices, 12, 12))
  faint = (0.5 * scale * truth + offset).astype(np.float32)
  scores = case_metrics(faint, (0.5 * truth).astype(np.float32), None)
  for metric in ('roughness', 'roughness_z'):
    assert scores[metric] == pytest.approx(scale, rel=1e-3)


@pytest.mark.parametrize(
  ('sigma', 'lower', 'higher'),
  [
    ((2, 0, 0), 'roughness_z', 'roughness'),
    ((0, 2, 2), 'roughness', 'roughness_z'),
  ],
)
def test_a_blur_lowers_the_roughness_along_its_axes(sigma, lower, higher):
  truth = np.random.default_rng(0).uniform(-1, 1, (12, 16, 16))
  truth = truth.astype(np.float32)
  blurred = ndimage.gaussian_filter(truth, sigma)
  scores = case_metrics(blurred, truth, None)
  assert 2 * scores[lower] < scores[higher] < 1


def test_ssim_3d_sees_slices_that_do_not_continue_each_other():
  truth = ndimage.gaussian_filter(
    np.random.default_rng(0).normal(size=(12, 24, 24)), 2
  )
  truth = (truth / np.abs(truth).max() / 2).astype(np.float32)
  flicker = np.where(np.arange(12) % 2, 0.15, -0.15)[:, None, None]
  scores = case_metrics((truth + flicker).astype(np.float32), truth, None)
  assert scores['ssim'] > 0.9
  assert scores['ssim_3d'] < 0.7
  assert scores['roughness'] == pytest.approx(1, rel=1e-3)
  assert scores['roughness_z'] > 2


def test_ssim_3d_is_the_mean_in_the_mask_or_5_from_the_edge_of_slices():
  prediction, truth, mask = volumes((12, 32, 40))
  _, values = skimage_map(unit(prediction), unit(truth))
  inside = case_metrics(prediction, truth, mask)['ssim_3d']
  assert inside == pytest.approx(values[mask].mean(), abs=1e-6)
  full = case_metrics(prediction, truth, None)['ssim_3d']
  assert full == pytest.approx(values[:, 5:-5, 5:-5].mean(), abs=1e-6)


@pytest.mark.parametrize('indices', [(3, 5, 7), (3, 4, 6), (5, 4, 3)])
def test_slices_that_are_not_adjacent_have_no_scores_across_slices(indices):
  prediction, truth, mask = volumes()
  every = case_metrics(prediction, truth, mask)
  scores = case_metrics(prediction, truth, mask, indices=indices)
  assert scores == {k: v for k, v in every.items() if k not in ACROSS}


def test_one_slice_has_no_scores_across_slices():
  prediction, truth, mask = volumes((1, 32, 40))
  assert not ACROSS & case_metrics(prediction, truth, mask).keys()


def test_a_mask_without_neighbours_is_refused():
  prediction, truth, mask = volumes((2, 32, 40))
  mask[0], mask[1, :20] = False, False
  mask[0, :20] = True  # slices share no voxel of the body
  with pytest.raises(ValueError, match='no two neighbours'):
    case_metrics(prediction, truth, mask)


def test_values_beyond_the_window_are_clipped():
  prediction, truth, mask = volumes()
  beyond = np.where(prediction > 0.5, 7, prediction)
  at = np.where(prediction > 0.5, 1, prediction)
  scores = [case_metrics(p, truth, mask) for p in (beyond, at)]
  assert scores[0] == scores[1]


def test_ssim_within_the_mask_is_the_mean_of_the_full_maps_there():
  prediction, truth, mask = volumes()
  scores = case_metrics(prediction, truth, mask)
  maps = np.stack(
    [
      skimage_map(unit(x), unit(y))[1]
      for x, y in zip(prediction, truth, strict=True)
    ]
  )
  assert scores['ssim'] == pytest.approx(maps[mask].mean(), abs=1e-5)


def test_ssim_of_the_full_frame_is_that_of_skimage():
  prediction, truth, _ = volumes()
  scores = case_metrics(prediction, truth, None)
  expected = np.mean(
    [
      skimage_map(unit(x), unit(y))[0]
      for x, y in zip(prediction, truth, strict=True)
    ]
  )
  assert scores['ssim'] == pytest.approx(expected, abs=1e-5)


def test_errors_far_outside_the_mask_do_not_count():
  _, truth, _ = volumes()
  mask = np.zeros(truth.shape, bool)
  mask[:, 10:20, 10:20] = True
  prediction = truth.copy()
  prediction[:, 28:, 34:] = 1
  inside, full = (
    case_metrics(prediction, truth, region) for region in (mask, None)
  )
  assert inside['mae'] == 0
  assert inside['psnr'] == 100
  assert full['mae'] > 1
  assert full['psnr'] < 40


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda p, t, m: (p, t, np.zeros_like(m)), 'mask has no voxel'),
    (lambda p, t, m: (p * np.nan, t, m), 'prediction has voxels'),
    (lambda p, t, m: (p, t / 0.0, m), 'truth has voxels'),
  ],
)
@pytest.mark.filterwarnings('ignore:divide by zero', 'ignore:invalid value')
def test_what_cannot_be_scored_is_refused(change, message):
  prediction, truth, mask = change(*volumes())
  with pytest.raises(ValueError, match=message):
    case_metrics(prediction, truth, mask)


@pytest.mark.parametrize(
  'change',
  [
    lambda p, t, m: (p[:2], t, m),
    lambda p, t, m: (p, t, m[:2]),
    lambda p, t, m: (p, t, m.astype(int)),
  ],
)
def test_shapes_and_types_that_differ_are_refused(change):
  prediction, truth, mask = change(*volumes())
  # TypeError where array types are checked at run time.
  with pytest.raises((ValueError, TypeError)):
    case_metrics(prediction, truth, mask)


@pytest.mark.parametrize('metric', [*RATIOS, 'psnr', 'mae'])
def test_every_metric_states_range_mask_dimension_and_unit(metric):
  stated = metrics.definitions()[metric]
  assert {'range', 'mask', 'full_frame', 'dimension', 'unit'} <= set(stated)


def test_a_registered_metric_is_computed_beside_the_others(monkeypatch):
  monkeypatch.setattr(metrics, 'METRICS', dict(metrics.METRICS))
  prediction, truth, mask = volumes()

  def worst(images, mask):
    return np.abs(images.error if mask is None else images.error[mask]).max()

  metrics.register_metric('worst', worst, {'unit': '1; lower is better'})
  scores = case_metrics(prediction, truth, mask)
  names = ['ssim', 'psnr', 'mae', 'roughness', 'roughness_z', 'ssim_3d']
  assert list(scores) == [*names, 'worst']
  assert scores['worst'] == pytest.approx(
    np.abs(unit(prediction) - unit(truth))[mask].max(), abs=1e-6
  )
  assert metrics.definitions()['worst'] == {'unit': '1; lower is better'}
  with pytest.raises(ValueError, match="'worst' is registered already"):
    metrics.register_metric('worst', worst, {'unit': '1'})


def test_a_metric_states_its_unit():
  with pytest.raises(ValueError, match='has no unit'):
    metrics.register_metric('bare', lambda images, mask: 0.0, {})
