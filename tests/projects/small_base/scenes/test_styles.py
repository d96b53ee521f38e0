"""Styles: pictures in range, deterministic, and distinguishable."""

import itertools

import numpy as np
import pytest

from projects.small_base.scenes import solids, styles


@pytest.mark.parametrize('name', styles.NAMES)
def test_a_picture_is_grey_in_range_and_the_same_every_time(name):
  picture = styles.render(3, 9, name)
  assert picture.shape == (64, 64)
  assert picture.dtype == np.float32
  assert -1 <= picture.min() < picture.max() <= 1
  np.testing.assert_array_equal(picture, styles.render(3, 9, name))


@pytest.mark.parametrize(
  ('one', 'other'), itertools.combinations(styles.NAMES, 2)
)
def test_styles_of_one_view_differ_more_than_their_jitter(one, other):
  """A view in two styles is further apart than grey values are jittered."""
  distances = [
    np.abs(styles.render(seed, 10, one) - styles.render(seed, 10, other)).mean()
    for seed in range(8)
  ]
  assert np.mean(distances) > 0.03


def test_an_unknown_style_is_refused():
  with pytest.raises(ValueError, match='flat, frost'):
    styles.render(0, 0, 'oil')


@pytest.mark.parametrize('name', styles.NAMES)
def test_telling_styles_have_a_grey_value_for_every_material(name):
  """Mean greys over pixels of one material differ between materials."""
  seen = [[] for _ in range(solids.MATERIALS)]
  for seed, view in itertools.product(range(40), (8, 14)):
    picture = styles.render(seed, view, name)
    for material, share in enumerate(solids.cut(seed, view).materials):
      seen[material].extend(picture[share > 0.99])
  greys = np.sort([np.mean(values) for values in seen])
  assert (np.diff(greys).min() > 0.08) == (name in styles.TELLING)
