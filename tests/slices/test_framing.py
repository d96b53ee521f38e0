"""Where a canvas lies about a body whose place is written down."""

import numpy as np
import pytest
from volume_files import turned

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.grids import resample, slice_grid, to_slices
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

CT = Modality.CT


def ct(*boxes, shape=(60, 40, 3), spacing=(2.0, 2.0, 5.0)) -> Volume:
  """Air, and boxes of tissue given as slices of voxels; stored LPS."""
  data = np.full(shape, -1000, np.float32)
  for box in boxes:
    data[box] = 40
  return Volume(data, np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]))


# 24 by 12 voxels, 48 by 24 mm, its middle at voxel 21.5, 11.5.
BOX = np.s_[10:34, 6:18, :]


def framed(volume, canvas=(26, 26), **options):
  return SliceSpec(canvas, frame='body', **options).grid(volume, CT)


def body_of(volume, grid):
  """First and last column and row with tissue, as pixels' outer edges."""
  tissue = to_slices(resample(volume, grid, fill=-1000)) > -400
  rows, columns = (np.flatnonzero(tissue.any((0, a))) for a in (2, 1))
  return np.array([columns[0], columns[-1] + 1, rows[0], rows[-1] + 1])


def test_the_body_fills_the_canvas_and_lies_in_its_middle():
  volume = ct(BOX)
  grid = framed(volume, (104, 104))
  pixel = np.linalg.norm(grid.affine[:3, 0])
  # The longer side, a pixel of 128 that show 120 mm at either end, and 2 %.
  assert 104 * pixel == pytest.approx((48 + 2 * 120 / 128) * 1.04, abs=2)
  np.testing.assert_allclose(grid.affine[:3, 1], [0, -pixel, 0], atol=1e-9)
  left, right, top, bottom = body_of(volume, grid)
  assert abs(left - (104 - right)) <= 3
  assert abs(top - (104 - bottom)) <= 3
  assert 2 * (bottom - top) == pytest.approx(right - left, abs=5)


def test_a_body_twice_as_wide_as_high_fills_a_canvas_of_its_shape():
  """24 mm high and 48 mm wide; a pixel of the detection is more of the 24."""
  volume = ct(BOX)
  grid = framed(volume, (52, 104))
  assert grid.shape == (104, 52, 3)
  pixel = (24 + 2 * 120 / 128) * 1.04 / 52
  np.testing.assert_allclose(
    np.linalg.norm(grid.affine[:3, :2], axis=0), pixel, atol=0.01
  )
  left, right, top, bottom = body_of(volume, grid)
  for first, last, side, mm in ((left, right, 104, 48), (top, bottom, 52, 24)):
    assert abs(first - (side - last)) <= 3
    assert last - first == pytest.approx(mm / pixel, abs=2)


def test_slices_stay_those_of_the_volume():
  grid, whole = framed(ct(BOX)), slice_grid(ct(BOX), (26, 26))
  assert grid.shape == whole.shape
  np.testing.assert_array_equal(grid.affine[:3, 2], whole.affine[:3, 2])
  assert grid.affine[2, 3] == whole.affine[2, 3]


def test_one_frame_holds_the_body_of_every_slice():
  volume = ct(np.s_[10:22, 6:18, 0], np.s_[40:52, 6:18, 2])
  left, right, *_ = body_of(volume, framed(volume, (52, 52)))
  assert 0 <= left <= 4
  assert 48 <= right <= 52


@pytest.mark.parametrize('axes', ['RAS', 'PIR'])
def test_however_the_array_is_stored_the_frame_is_the_same(axes):
  np.testing.assert_allclose(
    framed(turned(ct(BOX), axes)).affine, framed(ct(BOX)).affine, atol=1e-6
  )


def test_the_plane_is_that_which_is_asked_for():
  grid = framed(ct(BOX, shape=(60, 40, 20)), plane='coronal')
  assert grid.shape == (26, 26, 40)
  # 100 mm from foot to head, all of them body.
  assert 26 * np.linalg.norm(grid.affine[:3, 1]) == pytest.approx(
    (100 + 2 * 120 / 128) * 1.04, abs=4
  )


@pytest.mark.parametrize('boxes', [(), (np.s_[:, :, :],), (np.s_[:, 5:15, :],)])
def test_a_frame_is_never_wider_than_the_volume(boxes):
  grid, whole = framed(ct(*boxes)), slice_grid(ct(), (26, 26))
  np.testing.assert_allclose(grid.affine[:3, :3], whole.affine[:3, :3])


@pytest.mark.parametrize('low', [-2000, -400, -160])
def test_the_window_of_a_store_does_not_move_the_frame(low):
  narrow = framed(ct(BOX), windows={CT: Window(low, 240)})
  np.testing.assert_array_equal(narrow.affine, framed(ct(BOX)).affine)


def test_a_volume_without_signal_is_framed_as_a_whole():
  dark = Volume(np.full((60, 40, 3), -5, np.float32), ct().affine)
  spec = SliceSpec((26, 26), frame='body')
  grid = spec.grid(dark, Modality.MR)
  np.testing.assert_array_equal(grid.affine, slice_grid(dark, (26, 26)).affine)


def test_the_whole_volume_is_the_default():
  grid = SliceSpec((26, 26)).grid(ct(BOX), CT)
  np.testing.assert_array_equal(
    grid.affine, slice_grid(ct(BOX), (26, 26)).affine
  )
