"""Known shifts between two contrasts of one body are found."""

import numpy as np
import pytest
from scipy import ndimage
from volume_files import affine_of, turned

from synermedgen_jax.slices.alignment import Offset, estimate_offset
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

WINDOW = Window(0.0, 1.0)


def anatomy(seed=0):
  """Blobs of several sizes in an ellipsoid, from 0.2 to 1; zero around it."""
  rng = np.random.default_rng(seed)
  shape = (44, 40, 36)
  noise = sum(
    ndimage.gaussian_filter(rng.standard_normal(shape), s) * s**1.5
    for s in (2, 4)
  )
  level = 0.2 + 0.8 * (noise - noise.min()) / np.ptp(noise)
  places = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
  radius = places / (np.array(shape) * 0.42)[:, None, None, None]
  return np.where((radius**2).sum(0) < 1, level, 0).astype(np.float32)


def pair(mm, axes='RAS'):
  """A body, and another contrast of it that is placed `mm` off."""
  body = anatomy()
  other = np.where(body > 0, 1 - 0.7 * body**2, 0).astype(np.float32)
  spacing, origin = (3, 3, 4), np.array((-60, 20, 100))
  moved = Volume(other, affine_of(spacing, origin + mm))
  return Volume(body, affine_of(spacing, origin)), turned(moved, axes)


def offset(*volumes) -> Offset:
  return estimate_offset(*volumes, (WINDOW, WINDOW))


@pytest.mark.parametrize(
  'mm', [(9, 0, 0), (0, -12, 0), (0, 0, 8), (-6, 9, 4), (0, 0, 2)]
)
@pytest.mark.parametrize('axes', ['RAS', 'PIL'])
def test_a_shift_is_found_in_patient_axes(mm, axes):
  result = offset(*pair(mm, axes))
  np.testing.assert_allclose(result.mm, mm, atol=1.0)
  assert result.distance == pytest.approx(np.linalg.norm(mm), abs=1.0)


def test_volumes_that_correspond_are_not_moved():
  result = offset(*pair((0, 0, 0)))
  assert result.distance == 0
  np.testing.assert_allclose(result.mm, 0, atol=0.5)


def test_what_has_nothing_in_common_is_not_called_shifted():
  first, _ = pair((0, 0, 0))
  noise = np.random.default_rng(1).random(first.data.shape, np.float32)
  assert offset(first, Volume(noise, first.affine)).distance == 0


def test_a_single_slice_is_not_moved_along_its_axis():
  first, second = pair((0, 0, 0))
  thin = Volume(second.data[:, :, 17:19], second.affine @ np.diag([1, 1, 1, 1]))
  lifted = thin.affine.copy()
  lifted[2, 3] += 17 * 4
  assert abs(offset(first, Volume(thin.data, lifted)).mm[2]) <= 2


def test_volumes_apart_have_no_offset():
  assert offset(*pair((500, 0, 0))) is None


def test_an_offset_is_told_in_patient_terms():
  assert str(Offset((-6.2, 0.3, 11.8), 0.1)) == '6 mm left, 12 mm superior'
  assert str(Offset((0.0, -3.0, 0.2), 0.1)) == '3 mm posterior'
  assert str(Offset((0.2, 0.0, 0.0), 0.1)) == 'none'
