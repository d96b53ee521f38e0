"""Outputs of other programs that cannot be what they are named."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from synermedgen_jax.evaluation.output_files import OutputError
from synermedgen_jax.evaluation.plausibility import (
  check_origin,
  check_resized,
  check_scale,
  fits,
  turned,
)

PATH = Path('a.npy')


def head(size=32, depth=3):
  """Slices of an asymmetric head, in [-1, 1]."""
  z, y, x = np.indices((depth, size, size)) / size
  inside = np.hypot((y - 0.45) / 0.36, (x - 0.5) / 0.3) < 1
  waves = np.sin(9 * x + 20 * z) * np.cos(7 * y) + y - 0.4
  return np.where(inside, np.clip(0.5 * waves, -0.9, 0.9), -1).astype('f4')


def test_what_is_symmetric_or_unlike_the_truth_is_not_called_turned():
  image = head()
  assert turned(image, image) == ''
  assert turned(np.zeros_like(image), image) == ''
  assert turned((image + image[:, ::-1]) / 2, image) != 'upside down'
  noise = np.random.default_rng(0).uniform(-1, 1, image.shape)
  assert turned(noise.astype(np.float32), image) == ''
  assert turned(image[:, ::-1], image) == 'upside down'


def scale_refused(values, truth):
  try:
    check_scale(PATH, 'PET of b1', np.float32(values), np.float32(truth))
  except OutputError as error:
    return str(error)
  return ''


# An SUV image: mostly 0.5 to 1.5, and a twentieth of hot voxels.
SUV = np.concatenate([np.linspace(0.5, 1.5, 950), np.linspace(4, 9, 50)])


@pytest.mark.parametrize(
  'values',
  [
    0.11 * SUV,  # 0 to 0.99
    SUV / 2.1,
    2.1 * SUV,
    SUV + 9,
    0.3 * SUV + np.random.default_rng(0).normal(0, 0.1, 1000),
    np.zeros(1000),
  ],
)
def test_another_scale_is_refused(values):
  message = scale_refused(values, SUV)
  assert message.startswith('a.npy: the PET of b1 has values from ')
  assert 'the truth from 0.51' in message


@pytest.mark.parametrize(
  'values',
  [
    SUV,
    1.9 * SUV,
    SUV / 1.9,
    np.full(1000, SUV.mean()),
    0.3 * SUV + 0.7 * SUV.mean() + np.random.default_rng(0).normal(0, 1, 1000),
    SUV[::-1],
    np.where(np.arange(1000) < 5, 3e4, SUV),  # a few artefacts
  ],
)
def test_a_poor_output_is_on_the_same_scale(values):
  assert scale_refused(values, SUV) == ''


def test_blurred_images_are_on_the_same_scale():
  truth = head()
  for sigma in (1, 2, 4):
    blurred = ndimage.gaussian_filter(truth, (0, sigma, sigma))
    body = truth > -1
    assert scale_refused(blurred[body], truth[body]) == ''


@pytest.mark.parametrize('count', [99, 100])
def test_a_scale_needs_100_voxels(count):
  values = np.linspace(0.5, 1.5, count)
  assert bool(scale_refused(9 * values, values)) == (count == 100)


def test_a_fit_is_1_where_an_image_covers_a_part_of_the_truth():
  truth = head()[0]
  stated, best = fits(truth[3:, 5:], truth)
  assert stated < 0.95
  assert best == pytest.approx(1, abs=1e-9)
  assert fits(truth, truth) == pytest.approx((1, 1))
  assert fits(truth[:20, :20], truth) == pytest.approx((1, 1))


def test_a_fit_is_the_cosine_with_black_as_zero():
  image, truth = np.array([[0.0, 2.0]]) - 1, np.array([[1.0, 1.0]]) - 1
  stated, best = fits(image, truth)
  assert stated == best == pytest.approx(1 / np.sqrt(2))


def test_a_black_image_fits_nothing():
  black = np.full((4, 4), -1.0)
  assert fits(black, np.zeros((6, 6))) == (0, 0)
  assert fits(np.zeros((4, 4)), np.full((6, 6), -1.0)) == (0, 0)


def test_an_image_with_a_border_fits_inside_it():
  truth = head()[0]
  padded = np.pad(truth, 4, constant_values=-1)
  stated, best = fits(padded, truth)
  assert stated < 0.95
  assert best == pytest.approx(1, abs=1e-9)


def resized_refused(images, resized, truth):
  try:
    check_resized(PATH, [*images], resized, truth)
  except OutputError as error:
    return str(error)
  return ''


def zoomed(images, size):
  """Slices of another size by linear interpolation."""
  scale = size / images.shape[-1]
  return np.stack(
    [
      ndimage.zoom(i, scale, order=1, grid_mode=True, mode='nearest')
      for i in images
    ]
  )


@pytest.mark.parametrize('sigma', [0, 2])
def test_crops_and_borders_are_told_from_another_size(sigma):
  truth = head()
  image = ndimage.gaussian_filter(truth, (0, sigma, sigma))
  for written in (
    image[:, 2:-2, 2:-2],
    image[:, 8:-8, 8:-8],
    np.pad(image, ((0, 0), (2, 2), (2, 2)), constant_values=-1),
  ):
    message = resized_refused(written, zoomed(written, 32), truth)
    assert message.startswith(
      f'a.npy: has {written.shape[-1]} pixels, the canvas 32'
    )
    assert 'appears cropped or padded' in message
    assert '--crop' in message
  for size in (16, 24, 28, 40, 64):
    written = zoomed(image, size)
    assert resized_refused(written, zoomed(written, 32), truth) == ''


def origin_refused(volume, truth):
  try:
    check_origin(PATH, volume, truth)
  except OutputError as error:
    return str(error)
  return ''


def test_a_crop_at_the_first_voxel_is_refused_if_it_fits_elsewhere():
  truth = head(depth=6)
  message = origin_refused(truth[:, 3:, 6:], truth)
  assert message.startswith('a.npy: has 26 x 29 x 6 voxels and the affine of')
  assert '32 x 32 x 6' in message
  assert 'the truth better elsewhere (1.000, here ' in message
  assert origin_refused(truth[2:], truth)


def test_a_crop_at_its_place_passes():
  truth = head(depth=6)
  assert origin_refused(truth[:4], truth) == ''
  assert origin_refused(truth[:, :29, :26], truth) == ''
  blurred = ndimage.gaussian_filter(truth, (0, 3, 3))
  assert origin_refused(blurred[:4], truth) == ''
