"""Known shifts between two contrasts of one body are found."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from volume_files import affine_of, turned

from synermedgen_jax.slices.alignment import Offset, estimate_offset
from synermedgen_jax.slices.coarse_alignment import measured_part
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


@pytest.mark.parametrize('mm', [(45, 0, 0), (0, 0, -60), (-30, 30, 30)])
def test_a_far_shift_is_exact_to_a_coarse_voxel(mm):
  result = offset(*pair(mm))
  assert not result.orientation
  np.testing.assert_allclose(result.mm, mm, atol=6)


@pytest.mark.parametrize(
  ('flipped', 'orientation'),
  [
    ((0,), 'mirrored left to right'),
    ((2,), 'mirrored head to foot'),
    ((0, 1), 'turned by 180° about the head-foot axis'),
  ],
)
def test_another_orientation_is_named(flipped, orientation):
  first, second = pair((0, 0, 0))
  for volume in (first, second):  # no symmetric outline
    volume.data[:14, :16, :18] = 0
  result = offset(first, Volume(np.flip(second.data, flipped), second.affine))
  assert result.orientation == orientation
  assert result.distance == np.inf


@settings(max_examples=8)
@example(turn=((), ''), mm=(0.0, 12.0, 0.0))  # beyond a fifth of the body
@given(
  turn=st.sampled_from(
    [
      ((0,), 'mirrored left to right'),
      ((1,), 'mirrored front to back'),
      ((2,), 'mirrored head to foot'),
      ((0, 1), 'turned by 180° about the head-foot axis'),
      ((0, 2), 'turned by 180° about the front-back axis'),
      ((1, 2), 'turned by 180° about the left-right axis'),
      ((), ''),
    ]
  ),
  mm=st.tuples(*3 * [st.floats(-30, 30)]),
)
def test_an_orientation_is_named_at_any_shift(turn, mm):
  """A nearly symmetric body, at shifts by fractions of any grid's voxel."""
  flipped, orientation = turn
  x, y, z = np.indices((64, 64, 40)) - 31.5
  inside = (x / 25) ** 2 + (y / 20) ** 2 < 1
  first = np.where(inside, 0.5, 0.0)
  second = np.where(inside, 0.6, 0.0)
  for *centre, radius, a, b in (
    (10, 6, -4, 7, 1.0, 0.3),
    (-11, -4, -15, 6, 0.1, 0.2),
    (-3, 9, -9, 5, 0.6, 1.0),
    (2, -10, -2, 4, 0.8, 0.4),
  ):
    ball = sum(
      (at - middle) ** 2 for at, middle in zip((x, y, z), centre, strict=True)
    )
    ball = (ball < radius**2) & inside
    first[ball], second[ball] = a, b
  affine = affine_of((2, 2, 3))
  moved = affine_of((2, 2, 3), mm)
  result = offset(
    Volume(first.astype(np.float32), affine),
    Volume(np.flip(second, flipped).astype(np.float32), moved),
  )
  assert result.orientation == orientation
  if not orientation:
    np.testing.assert_allclose(result.mm, mm, atol=2.0)


def test_planes_that_were_not_measured_are_no_air():
  """Part of a limb: filled up with zeros, and turned, they would fit air."""
  rng = np.random.default_rng(0)
  noise = ndimage.gaussian_filter(rng.standard_normal((40, 40, 44)), 3)
  level = 0.5 + 0.4 * noise / np.abs(noise).max()
  limb = np.where(np.abs(np.arange(40) - 20) < 13, 1, 0)[:, None, None] * level
  affine = np.diag([4.0, 4.0, 4.0, 1.0])
  other = np.where(limb > 0, 1 - limb, 0)
  other[:, :, :12] = other[:, :, 34:] = 0
  blurred = ndimage.gaussian_filter(other, 0.5)
  part = Volume(blurred[5:35].astype(np.float32), affine)
  placed = part.affine.copy()
  placed[0, 3] = 5 * 4
  result = offset(
    Volume(limb.astype(np.float32), affine), Volume(part.data, placed)
  )
  assert result.distance == 0


def test_the_measured_part_keeps_its_place():
  data = np.full((6, 5, 4), -2000.0, np.float32)
  data[1:4, 2:5, 1] = 0.5
  affine = affine_of((2, 3, 4), (10, 20, 30))
  part = measured_part(Volume(data, affine), WINDOW)
  assert part.data.shape == (3, 3, 1)
  assert (part.data == 0.5).all()
  np.testing.assert_allclose(part.affine[:3, 3], (12, 26, 34))
  constant = measured_part(Volume(np.zeros((3, 3, 3)), affine), WINDOW)
  assert constant.data.shape == (3, 3, 3)


def test_volumes_apart_have_no_offset():
  assert offset(*pair((500, 0, 0))) is None


def test_an_offset_is_told_in_patient_terms():
  assert str(Offset((-6.2, 0.3, 11.8), 0.1)) == '6 mm left, 12 mm superior'
  assert str(Offset((0.0, -3.0, 0.2), 0.1)) == '3 mm posterior'
  assert str(Offset((0.2, 0.0, 0.0), 0.1)) == 'none'
