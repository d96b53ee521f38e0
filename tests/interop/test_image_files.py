"""Images from small files, with hand-made values."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from synermedgen_jax.interop.image_files import (
  FormatError,
  PictureBytes,
  PictureFile,
  encode_png,
)


def saved(image, kind='PNG', **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def read(data):
  return PictureBytes(data, 'edits.parquet: row 7: picture 1').read()


def test_a_grey_picture_keeps_one_channel():
  levels = np.asarray([[0, 255], [51, 102]], np.uint8)
  values = read(saved(Image.fromarray(levels)))
  assert values.dtype == np.float32
  np.testing.assert_allclose(values, [[-1, 1], [-0.6, -0.2]], atol=1e-6)


def test_a_colour_picture_has_three_channels():
  levels = np.asarray([[[255, 0, 51]]], np.uint8)
  np.testing.assert_allclose(
    read(saved(Image.fromarray(levels))), [[[1, -1, -0.6]]], atol=1e-6
  )


def test_sixteen_bits_are_not_cut_to_eight():
  levels = np.asarray([[0, 65535], [1000, 30000]], np.uint16)
  np.testing.assert_allclose(
    read(saved(Image.fromarray(levels))), levels / 32767.5 - 1, atol=1e-6
  )


def test_a_palette_is_looked_up():
  image = Image.new('P', (1, 1), 1)
  image.putpalette([0, 0, 0, 255, 0, 255])
  np.testing.assert_allclose(read(saved(image)), [[[1, -1, 1]]])


def test_black_and_white_are_grey():
  image = Image.fromarray(np.asarray([[True, False], [False, True]]))
  np.testing.assert_allclose(read(saved(image)), [[1, -1], [-1, 1]])


@pytest.mark.parametrize(
  ('mode', 'pixel', 'expected'),
  [
    ('RGBA', (255, 0, 0, 0), [1, 1, 1]),
    ('RGBA', (255, 0, 0, 255), [1, -1, -1]),
    ('LA', (0, 0), 1),
  ],
)
def test_transparent_pixels_lie_on_white(mode, pixel, expected):
  image = Image.new(mode, (1, 1), pixel)
  np.testing.assert_allclose(read(saved(image))[0, 0], expected)


def test_a_jpeg_is_read():
  image = Image.new('RGB', (9, 8), (128, 128, 128))
  values = read(saved(image, 'JPEG'))
  assert values.shape == (8, 9, 3)
  np.testing.assert_allclose(values, 0, atol=0.02)


@given(
  st.integers(1, 5), st.integers(1, 5), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_png_bytes_keep_values_within_rounding(height, width, colour, seed):
  shape = (height, width, 3) if colour else (height, width)
  values = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
  pixels = read(encode_png(values))
  np.testing.assert_allclose(pixels, values, atol=1.001 / 255)


def test_a_file_that_is_not_an_image_is_named():
  picture = saved(Image.new('L', (64, 64)))
  # Pillow would have another program read this one.
  postscript = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments'
  for data in (b'', b'not a picture', picture[:60], postscript):
    with pytest.raises(FormatError) as caught:
      read(data)
    message = str(caught.value)
    assert message.startswith('edits.parquet: row 7: picture 1 cannot be read')
    assert '\n' not in message


def test_a_file_is_named_with_the_line_that_asks_for_it(tmp_path):
  path = tmp_path / 'a.png'
  picture = PictureFile(path, 'talk.jsonl: line 3')
  with pytest.raises(FormatError, match=r'line 3: picture .*a\.png: No such'):
    picture.read()
  path.write_bytes(b'no')
  with pytest.raises(FormatError, match=r'line 3: picture .*a\.png cannot be'):
    picture.read()
  with pytest.raises(FormatError, match=r'line 3: picture .*: Is a directory'):
    PictureFile(tmp_path, 'talk.jsonl: line 3').read()
  path.write_bytes(encode_png(np.ones((2, 2), np.float32)))
  np.testing.assert_array_equal(picture.read(), np.ones((2, 2)))
