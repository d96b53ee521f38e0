"""Slices of other programs: their colour, depth and size."""

import numpy as np
import pytest
from PIL import Image

from synermedgen_jax.evaluation.output_files import OutputError, OutputFile
from synermedgen_jax.evaluation.output_slices import place, read_slice
from synermedgen_jax.slices.windows import Window

WINDOW = Window(-1000, 1000)
GREY = np.uint8(np.arange(100).reshape(10, 10))


def file_of(path, **columns):
  return OutputFile(path, str(path.parent), **columns)


def picture(folder, pixels, mode=None):
  path = folder / 'a.png'
  image = Image.fromarray(pixels)
  (image.convert(mode) if mode else image).save(path)
  return file_of(path)


def array(folder, values, **columns):
  np.save(folder / 'a.npy', values)
  return file_of(folder / 'a.npy', **columns)


def refused(file, *phrases):
  with pytest.raises(OutputError) as caught:
    read_slice(file, WINDOW)
  message = str(caught.value)
  assert message.startswith(f'{file.path}: ')
  assert '\n' not in message
  for phrase in phrases:
    assert phrase in message


def test_levels_of_a_picture_are_shares_of_the_window(tmp_path):
  read = read_slice(picture(tmp_path, np.uint8([[0, 51], [204, 255]])), WINDOW)
  np.testing.assert_allclose(
    read.values, [[-1000, -600], [600, 1000]], atol=0.1
  )
  assert read.steps == ('8-bit',)
  assert not read.in_unit


def test_numbers_of_an_array_are_kept_beyond_the_window(tmp_path):
  read = read_slice(array(tmp_path, np.float32([[-3024, 2500]])), WINDOW)
  assert read.values.tolist() == [[-3024, 2500]]
  assert read.in_unit
  assert read.steps == ()


def test_a_stated_range_is_mapped_to_the_stated_window(tmp_path):
  file = array(
    tmp_path, np.float32([[0, 0.5, 2]]), range=(0, 1), window=(-100, 300)
  )
  read = read_slice(file, WINDOW)
  assert read.values.tolist() == [[-100, 100, 700]]
  assert not read.in_unit


def jet(levels):
  """Red, green and blue of the colour map of that name."""
  share = levels[..., None] / 255
  channels = 1.5 - np.abs(4 * share - np.array([3, 2, 1]))
  return np.uint8(255 * np.clip(channels, 0, 1))


def test_a_colour_map_is_refused(tmp_path):
  refused(
    picture(tmp_path, jet(2 * GREY)), 'differ by up to 255', 'write grey images'
  )


def tinted(pixels, levels):
  """A grey image with some pixels that are redder by some levels."""
  image = np.stack([GREY] * 3, axis=-1)
  image.reshape(-1, 3)[:pixels, 0] += np.uint8(levels)
  return image


@pytest.mark.parametrize(('pixels', 'levels'), [(1, 100), (100, 32)])
def test_a_tint_is_averaged(tmp_path, pixels, levels):
  read = read_slice(picture(tmp_path, tinted(pixels, levels)), WINDOW)
  assert read.colour == pytest.approx(levels, abs=0.01)
  assert read.steps == ('8-bit', 'rgb')
  # A third of the levels, of 2000 HU in 255.
  added = levels / 3 * 2000 / 255
  assert read.values[0, 0] == pytest.approx(added - 1000, abs=0.01)


@pytest.mark.parametrize(('pixels', 'levels'), [(2, 100), (100, 33)])
def test_more_colour_is_refused(tmp_path, pixels, levels):
  refused(picture(tmp_path, tinted(pixels, levels)), f'up to {levels} of 255')


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_opaque_pictures_are_read(tmp_path, mode):
  read = read_slice(picture(tmp_path, GREY, mode), WINDOW)
  np.testing.assert_allclose(
    read.values, GREY / 255 * 2000.0 - 1000, rtol=0, atol=0.01
  )


def test_transparent_pixels_are_refused(tmp_path):
  pixels = np.stack([GREY] * 3 + [np.full_like(GREY, 255)], axis=-1)
  pixels[0, 0, 3] = 254
  refused(picture(tmp_path, pixels), 'transparent pixels', 'alpha channel')


def test_a_16_bit_picture_without_a_window_is_refused(tmp_path):
  refused(picture(tmp_path, np.uint16(GREY) * 600), '16-bit', 'window')


def test_a_16_bit_picture_is_read_under_its_window(tmp_path):
  file = picture(tmp_path, np.uint16([[0, 1000, 65535]]))
  file = file_of(file.path, window=(-1000.0, 64535.0))
  read = read_slice(file, WINDOW)
  np.testing.assert_allclose(read.values, [[-1000, 0, 64535]], atol=0.01)
  assert read.steps == ()


def image_of(height, width):
  return np.zeros((height, width), np.float32)


@pytest.mark.parametrize(
  ('shape', 'message'),
  [
    ((1, 1), 'has 1 pixels, the canvas 8x16: less than half'),
    ((3, 6), 'has 3x6 pixels, the canvas 8x16: less than half'),
    ((8, 8), 'has 8 pixels, the canvas 8x16: another aspect ratio'),
  ],
)
def test_an_image_of_such_a_size_is_refused(tmp_path, shape, message):
  file = file_of(tmp_path / 'a.png')
  with pytest.raises(OutputError) as caught:
    place(file, image_of(*shape), (8, 16), None)
  assert str(caught.value).startswith(f'{file.path}: {message}')


@pytest.mark.parametrize('shape', [(4, 8), (16, 32), (64, 128)])
def test_half_the_canvas_and_more_is_resized(tmp_path, shape):
  placed, resized = place(
    file_of(tmp_path / 'a.png'), image_of(*shape) + 0.5, (8, 16), None
  )
  assert resized
  np.testing.assert_allclose(placed, np.full((8, 16), 0.5), atol=1e-6)


def test_values_beyond_the_window_are_resized_too(tmp_path):
  placed, _ = place(
    file_of(tmp_path / 'a.npy'), image_of(16, 32) + 40, (8, 16), None
  )
  np.testing.assert_allclose(placed, np.full((8, 16), 40), rtol=1e-6)


def test_a_crop_is_placed_in_its_box(tmp_path):
  shown = image_of(4, 5) - 1
  shown[1:3, 2:5] = 0
  file = file_of(tmp_path / 'a.png', crop='source')
  placed, resized = place(file, image_of(2, 3) + 0.5, (4, 5), shown)
  assert not resized
  expected = [
    [-1, -1, -1, -1, -1],
    [-1, -1, 0.5, 0.5, 0.5],
    [-1, -1, 0.5, 0.5, 0.5],
    [-1, -1, -1, -1, -1],
  ]
  assert placed.tolist() == expected
