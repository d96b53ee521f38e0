import pytest

from synermedgen_jax.core.size import parse_size, size_text


@pytest.mark.parametrize(
  ('text', 'size'),
  [('256', (256, 256)), ('400x256', (400, 256)), (' 8X16 ', (8, 16))],
)
def test_height_comes_first(text, size):
  assert parse_size(text) == size
  assert parse_size(size_text(size)) == size


@pytest.mark.parametrize(
  'text', ['', '0', '0x8', '8x0', '-8', '8x', '8x8x8', 'a', '1.5', '8,8']
)
def test_anything_else_is_refused(text):
  with pytest.raises(ValueError, match=f'^{text}: expected HEIGHTxWIDTH'):
    parse_size(text)
