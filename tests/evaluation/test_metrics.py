import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from synermedgen_jax.evaluation import metrics

HU = (-1000.0, 1000.0)


def volumes(shape=(3, 32, 40), seed=0):
  """A smooth truth, a noisy prediction of it, and a mask; in [-1, 1]."""
  rng = np.random.default_rng(seed)
  truth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3))
  truth = np.clip(truth / np.abs(truth).max(), -1, 1).astype(np.float32)
  noise = 0.2 * rng.normal(size=shape)
  mask = np.zeros(shape, bool)
  mask[:, 4:-6, 7:-3] = True
  return (truth + noise).astype(np.float32), truth, mask


def skimage_map(x, y, data_range):
  return structural_similarity(
    x.astype(np.float64),
    y.astype(np.float64),
    data_range=data_range,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
    full=True,
  )


def case_metrics(prediction, truth, mask, **options):
  [scores] = metrics.case_metrics(prediction, truth, mask, **options)
  return scores


def unit(volume):
  return (np.clip(volume, -1, 1) + 1) / 2


def test_psnr_and_mae_by_hand():
  truth = np.zeros((2, 12, 12), np.float32)
  prediction = truth + np.float32(0.2)  # a tenth of the window of 2
  scores = case_metrics(prediction, truth, None, unit_range=HU)
  assert scores['psnr'] == pytest.approx(20, abs=1e-4)
  assert scores['mae'] == pytest.approx(200, rel=1e-5)
  suv = case_metrics(prediction, truth, None, unit_range=(0.0, 10.0))
  assert suv['mae'] == pytest.approx(1, rel=1e-5)


def test_psnr_is_of_the_case_and_not_a_mean_over_slices():
  truth = np.zeros((2, 12, 12), np.float32)
  prediction = truth.copy()
  prediction[1] = 0.2
  scores = case_metrics(prediction, truth, None, unit_range=HU)
  assert scores['psnr'] == pytest.approx(10 * np.log10(1 / 0.005), abs=1e-4)


def test_equal_volumes_score_the_most():
  _, truth, mask = volumes()
  scores = case_metrics(truth, truth, mask, unit_range=HU)
  best = {'ssim': 1, 'psnr': 100, 'mae': 0, 'roughness': 1}
  assert scores == pytest.approx(best, abs=1e-6)


def test_roughness_compares_steps_between_neighbours_in_the_mask():
  # On [0, 1], steps of 0.4 and 0.1 along the row; those of the columns are 0.
  truth = np.tile(np.float32([-1.0, -0.2, 0.0, 1.0]), (1, 12, 3))
  prediction = np.tile(np.float32([-0.6, -0.2, -0.1, -1.0]), (1, 12, 3))
  mask = np.zeros(truth.shape, bool)
  mask[:, 2:5, :3] = True
  scores = case_metrics(prediction, truth, mask, unit_range=HU)
  assert scores['roughness'] == pytest.approx(0.25 / 0.5, rel=1e-4)
  # A column of the mask, along which nothing changes, has the ratio 1.
  mask[:, :, 1:] = False
  scores = case_metrics(prediction, truth, mask, unit_range=HU)
  assert scores['roughness'] == 1
  # The full frame counts the steps between the tiles, too.
  scores = case_metrics(prediction, truth, None, unit_range=HU)
  rows = [np.abs(np.diff(unit(x)[0, 0])).sum() for x in (prediction, truth)]
  assert scores['roughness'] == pytest.approx(rows[0] / rows[1], rel=1e-3)


def test_values_beyond_the_window_are_clipped():
  prediction, truth, mask = volumes()
  beyond = np.where(prediction > 0.5, 7, prediction)
  at = np.where(prediction > 0.5, 1, prediction)
  scores = [case_metrics(p, truth, mask, unit_range=HU) for p in (beyond, at)]
  assert scores[0] == scores[1]


def test_ssim_within_the_mask_is_the_mean_of_the_full_maps_there():
  prediction, truth, mask = volumes()
  scores = case_metrics(prediction, truth, mask, unit_range=HU)
  maps = np.stack(
    [
      skimage_map(unit(x), unit(y), 1.0)[1]
      for x, y in zip(prediction, truth, strict=True)
    ]
  )
  assert scores['ssim'] == pytest.approx(maps[mask].mean(), abs=1e-5)


def test_ssim_of_the_full_frame_is_that_of_skimage():
  prediction, truth, _ = volumes()
  scores = case_metrics(prediction, truth, None, unit_range=HU)
  expected = np.mean(
    [
      skimage_map(unit(x), unit(y), 1.0)[0]
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
  inside, full = metrics.case_metrics(
    prediction, truth, mask, None, unit_range=HU
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
    case_metrics(prediction, truth, mask, unit_range=HU)


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
    case_metrics(prediction, truth, mask, unit_range=HU)


@pytest.mark.parametrize('metric', ['ssim', 'psnr', 'mae', 'roughness'])
def test_every_metric_states_range_mask_dimension_and_unit(metric):
  stated = metrics.definitions()[metric]
  assert {'range', 'mask', 'full_frame', 'dimension', 'unit'} <= set(stated)


def test_a_registered_metric_is_computed_beside_the_others(monkeypatch):
  monkeypatch.setattr(metrics, 'METRICS', dict(metrics.METRICS))
  prediction, truth, mask = volumes()

  def worst(images, mask):
    return np.abs(images.error if mask is None else images.error[mask]).max()

  metrics.register_metric('worst', worst, {'unit': '1; lower is better'})
  scores = case_metrics(prediction, truth, mask, unit_range=HU)
  assert list(scores) == ['ssim', 'psnr', 'mae', 'roughness', 'worst']
  assert scores['worst'] == pytest.approx(
    np.abs(unit(prediction) - unit(truth))[mask].max(), abs=1e-6
  )
  assert metrics.definitions()['worst'] == {'unit': '1; lower is better'}
  with pytest.raises(ValueError, match="'worst' is registered already"):
    metrics.register_metric('worst', worst, {'unit': '1'})


def test_a_metric_states_its_unit():
  with pytest.raises(ValueError, match='has no unit'):
    metrics.register_metric('bare', lambda images, mask: 0.0, {})
