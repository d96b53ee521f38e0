import base64
import io
import re

import jinja2
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from synermedgen_jax.reporting import drawings, rendering
from synermedgen_jax.reporting.page_tables import Table

PAGE = {'count': 1, 'most_offset': '6', 'doubtful': {}, 'pictures': []}


def test_text_is_escaped_and_drawings_are_not():
  html = rendering.render(
    'inspection.html',
    **PAGE,
    bad={'<b>': ['a & b']},
    files=Table(['<i>'], [['<u>']]),
  )
  for tag in ('<b>', '<i>', '<u>'):
    assert tag not in html
    assert tag.replace('<', '&lt;').replace('>', '&gt;') in html
  assert 'a &amp; b' in html


def test_a_name_that_is_missing_is_an_error():
  with pytest.raises(jinja2.UndefinedError, match='files'):
    rendering.render('inspection.html', **PAGE, bad={})


def test_nested_values_have_keys_with_dots():
  values = {'a': {'b': 1, 'c': [2, 3]}, 'd': None, 'e': {}}
  assert list(rendering.flat(values)) == [
    ('a.b', '1'),
    ('a.c', '2, 3'),
    ('d', ''),
    ('e', ''),
  ]


def figure(color='#0072B2'):
  made = Figure(figsize=(2, 2))
  axis = made.subplots()
  axis.plot([0, 1], [0, 1], color=color)
  levels = np.arange(12).reshape(3, 4)
  axis.imshow(levels, cmap='gray', interpolation='none')
  axis.set_title('a < b')
  return made


def test_a_drawing_takes_the_colours_of_the_page():
  svg = drawings.to_svg(figure(), 'a "line"')
  assert 'stroke: var(--blue)' in svg
  assert '#0072b2' not in svg
  assert 'stroke: var(--ink)' in svg  # the axes
  assert 'a &lt; b' in svg
  assert 'aria-label="a &quot;line&quot;"' in svg
  assert '<style' not in svg
  assert 'http' not in svg
  assert 'stroke: #123456' in drawings.to_svg(figure('#123456'), 'other')


def test_equal_figures_are_equal_drawings():
  assert drawings.to_svg(figure(), 'x') == drawings.to_svg(figure(), 'x')


def test_an_image_keeps_its_pixels():
  svg = drawings.to_svg(figure(), 'x')
  (data,) = re.findall(r'data:image/png;base64,([^"]+)', svg)
  image = Image.open(io.BytesIO(base64.b64decode(data)))
  pixels = np.asarray(image.convert('L'))
  assert pixels.shape == (3, 4)
  expected = np.arange(12).reshape(3, 4) * 255 / 11
  if pixels[0, 0] > pixels[-1, 0]:  # a transform of the SVG mirrors it
    pixels = pixels[::-1]
  np.testing.assert_allclose(pixels, expected, atol=1)


def test_a_nonce_marks_scripts_and_only_where_one_is_given(tmp_path):
  (tmp_path / 'page.html').write_text("{% extends 'base.html' %}")
  template = rendering.environment(tmp_path).get_template('page.html')
  assert '<script nonce="N0NCE">' in template.render(nonce='N0NCE')
  assert 'nonce' not in template.render()
