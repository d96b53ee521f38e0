import numpy as np
import pytest
from skimage.metrics import structural_similarity

from synermedgen_jax.evaluation.ssim import (
  slice_ssim_map,
  volume_ssim_map,
)


def volumes(shape, seed=0):
  """Two related volumes in [0, 1]."""
  rng = np.random.default_rng(seed)
  x = rng.uniform(size=shape).astype(np.float32)
  y = np.clip(x + 0.2 * rng.normal(size=shape), 0, 1).astype(np.float32)
  return x, y


def naive_map(x, y, data_range, axes):
  """SSIM voxel by voxel, from weighted moments of mirrored windows."""
  line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
  single = np.array([1.0])
  lines = [line if axis in axes else single for axis in range(x.ndim)]
  weights = lines[0]
  for other in lines[1:]:
    weights = weights[..., None] * other
  weights = weights / weights.sum()
  pads = [(5, 5) if axis in axes else (0, 0) for axis in range(x.ndim)]
  x, y = (np.pad(v.astype(float), pads, mode='symmetric') for v in (x, y))
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  size = weights.shape
  result = np.empty([n - k + 1 for n, k in zip(x.shape, size, strict=True)])
  for start in np.ndindex(result.shape):
    window = tuple(slice(s, s + k) for s, k in zip(start, size, strict=True))
    a, b = x[window], y[window]
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    var_a = (weights * (a - mean_a) ** 2).sum()
    var_b = (weights * (b - mean_b) ** 2).sum()
    cov = (weights * (a - mean_a) * (b - mean_b)).sum()
    result[start] = ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / (
      (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
  return result


# Maps, the axes of their windows, and the error of their precision.
MAPS = [(volume_ssim_map, (0, 1, 2), 1e-9), (slice_ssim_map, (1, 2), 2e-4)]


@pytest.mark.parametrize('slices', [1, 2, 4, 12])
@pytest.mark.parametrize(('ssim_map', 'axes', 'error'), MAPS)
def test_the_map_is_that_of_every_voxels_own_window(
  slices, ssim_map, axes, error
):
  x, y = volumes((slices, 11, 13))
  values = ssim_map(x, y, data_range=1.0)
  np.testing.assert_allclose(values, naive_map(x, y, 1.0, axes), atol=error)


@pytest.mark.parametrize(
  ('scale', 'offset', 'data_range'),
  [(1, 0, 1.0), (2, -1, 2.0), (255, 0, 255.0), (2000, -1000, 2000.0)],
)
@pytest.mark.parametrize(('ssim_map', 'axes', 'error'), MAPS)
def test_the_map_is_that_of_skimage(
  ssim_map, axes, error, scale, offset, data_range
):
  def theirs(a, b):
    return structural_similarity(
      a,
      b,
      data_range=data_range,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      full=True,
    )[1]

  x, y = (v * scale + offset for v in volumes((13, 16, 15)))
  in_3d = len(axes) == 3
  expected = theirs(x, y) if in_3d else np.stack(list(map(theirs, x, y)))
  values = ssim_map(x, y, data_range=data_range)
  np.testing.assert_allclose(values, expected, atol=max(error, 1e-6))


@pytest.mark.parametrize('ssim_map', [slice_ssim_map, volume_ssim_map])
@pytest.mark.parametrize('slices', [1, 2, 30])
def test_equal_images_have_an_ssim_of_one_everywhere(ssim_map, slices):
  x, _ = volumes((slices, 12, 14))
  np.testing.assert_allclose(ssim_map(x, x, data_range=1.0), 1, atol=1e-6)


def test_no_order_of_images_or_slices_changes_the_values():
  x, y = volumes((5, 12, 14))
  values = volume_ssim_map(x, y, data_range=1.0)
  assert values.max() < 1
  np.testing.assert_allclose(
    volume_ssim_map(y, x, data_range=1.0), values, atol=1e-12
  )
  turned = volume_ssim_map(x[::-1], y[::-1], data_range=1.0)
  np.testing.assert_allclose(turned[::-1], values, atol=1e-12)


@pytest.mark.parametrize('ssim_map', [slice_ssim_map, volume_ssim_map])
def test_flat_images_differ_in_luminance_alone(ssim_map):
  quarter = np.full((3, 16, 16), 0.25, np.float32)
  # (2 x y + c1) / (x^2 + y^2 + c1) for x = 1/4 and y = 3/4.
  values = ssim_map(quarter, quarter + 0.5, data_range=1.0)
  np.testing.assert_allclose(values, 0.3751 / 0.6251, rtol=1e-3)
  # x = 0 and y = 1.
  values = ssim_map(0 * quarter, 4 * quarter, data_range=1.0)
  np.testing.assert_allclose(values, 1e-4 / 1.0001, rtol=1e-3)


@pytest.mark.parametrize('ssim_map', [slice_ssim_map, volume_ssim_map])
@pytest.mark.parametrize('shape', [(20, 10, 32), (20, 32, 10)])
def test_rows_and_columns_fewer_than_the_window_are_refused(ssim_map, shape):
  image = np.zeros(shape, np.float32)
  with pytest.raises(ValueError, match='at least 11 x 11'):
    ssim_map(image, image, data_range=1.0)


@pytest.mark.parametrize('ssim_map', [slice_ssim_map, volume_ssim_map])
def test_images_of_other_shapes_are_refused(ssim_map):
  x, y = np.zeros((2, 16, 16), np.float32), np.zeros((2, 16, 17), np.float32)
  # TypeError where array types are checked at run time.
  with pytest.raises((ValueError, TypeError)):
    ssim_map(x, y, data_range=1.0)
