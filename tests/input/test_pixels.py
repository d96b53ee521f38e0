import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.input import pixels

SIDES = st.integers(1, 40)


def test_the_shorter_side_gets_a_black_border_on_both_ends():
  wide = np.asarray([[0.1, 0.2, 0.3, 0.4]], np.float32)
  black = [-1, -1, -1, -1]
  np.testing.assert_allclose(
    pixels.letterbox(wide, (7, 7)), [black, [0.1, 0.2, 0.3, 0.4], black, black]
  )
  np.testing.assert_allclose(
    pixels.letterbox(wide, (4, 8)), [[0.1, 0.2, 0.3, 0.4], black]
  )
  tall = np.zeros((3, 1, 3), np.float32)
  expected = np.full((3, 3, 3), -1.0)
  expected[:, 1] = 0
  np.testing.assert_allclose(pixels.letterbox(tall, (2, 2)), expected)


def test_an_image_of_the_same_shape_is_only_resized():
  """The first axis is the height: two columns of two rows become 4 x 2."""
  image = np.asarray([[-1, 1]] * 2, np.float32)
  result = pixels.to_pixels(np.repeat(image, 2, axis=0), (8, 4), 1)
  assert result.shape == (8, 4, 1)
  assert (result[:, 0] < -0.9).all()
  assert (result[:, 3] > 0.9).all()


def test_a_circle_stays_a_circle():
  """40 pixels across in 120 x 40, shown in an image of 60 x 60: 20 across."""
  y, x = np.mgrid[:120, :40] - np.array([59.5, 19.5])[:, None, None]
  circle = np.where(y**2 + x**2 < 18**2, 1.0, -1.0).astype(np.float32)
  image = pixels.to_pixels(circle, (60, 60), 1)[..., 0] > 0
  assert image.any(0).sum() == image.any(1).sum() == 18


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_flat_image_comes_back_whatever_the_shapes(h, w, y, x):
  flat = np.full((h, w), 0.25, np.float32)
  image = pixels.to_pixels(flat, (8 * y, 8 * x), 1)
  assert image.shape == (8 * y, 8 * x, 1)
  back = pixels.from_pixels(np.full((8 * y, 8 * x), 0.25, np.float32), (h, w))
  np.testing.assert_allclose(back, flat, atol=1e-6)


@pytest.mark.parametrize('size', [(40, 20), (20, 40), (64, 30), (33, 33)])
def test_a_smooth_image_comes_back(size):
  rows, columns = (np.linspace(0, 3, n) for n in (25, 16))
  image = np.sin(rows)[:, None] * np.cos(columns)
  image = image.astype(np.float32)
  there = pixels.to_pixels(image, size, 1)[..., 0]
  back = pixels.from_pixels(there, image.shape)
  assert back.shape == (25, 16)
  assert np.abs(back - image)[2:-2, 2:-2].max() < 0.05


def test_colour_stays_for_a_model_that_has_it():
  colour = np.zeros((4, 4, 3), np.float32)
  colour[:, :2, 0] = 1
  np.testing.assert_array_equal(pixels.to_pixels(colour, (4, 4), 3), colour)
  small = pixels.to_pixels(colour, (2, 2), 3)
  assert small.shape == (2, 2, 3)
  assert small[0, 0, 0] > 0.9
  assert (small[..., 1:] == 0).all()
  grey = pixels.to_pixels(colour[..., 0], (4, 4), 3)
  np.testing.assert_array_equal(grey, np.repeat(colour[..., :1], 3, axis=-1))


def test_resizing_keeps_a_flat_slice_and_the_range():
  flat = np.full((6, 6), 0.25, np.float32)
  np.testing.assert_allclose(pixels.resize(flat, (4, 3)), 0.25, atol=1e-6)
  step = np.where(np.arange(8) < 4, -1.0, 1.0).astype(np.float32)
  larger = pixels.resize(np.tile(step, (8, 1)), (20, 30))
  assert larger.shape == (20, 30)
  assert (larger.min(), larger.max()) == (-1.0, 1.0)


def test_patches_run_by_rows_with_channels_innermost():
  image = np.arange(16, dtype=np.float32).reshape(2, 4, 2)
  np.testing.assert_array_equal(
    pixels.patchify(image, 2),
    [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]],
  )
