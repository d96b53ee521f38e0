"""Slice grids and resampling, tied by world coordinates."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from volume_files import affine_of, turned

from synermedgen_jax.slices import grids
from synermedgen_jax.slices.grids import (
  Grid,
  field_of_view,
  from_slices,
  resample,
  slice_grid,
  to_slices,
)
from synermedgen_jax.slices.volumes import Volume

ORIENTATIONS = [
  ''.join(axes)
  for order in itertools.permutations(['RL', 'AP', 'SI'])
  for axes in itertools.product(*order)
]


def labelled():
  """Marks at corners of the patient; axes run right, anterior, superior."""
  data = np.zeros((3, 5, 2), np.float32)
  data[2, 4, 1] = 1  # right, anterior, top
  data[0, 4, 1] = 2  # left, anterior, top
  data[2, 0, 1] = 3  # right, posterior, top
  data[1, 1, 0] = 4  # middle, nearly posterior, bottom
  return Volume(data, affine_of((2, 2, 7), (-3, 10, 50)))


@pytest.mark.parametrize('axes', ORIENTATIONS)
def test_anterior_is_up_and_patient_right_is_left_however_stored(axes):
  volume = turned(labelled(), axes)
  grid = slice_grid(volume, (5, 5))
  slices = to_slices(resample(volume, grid, fill=-1))
  expected = [
    [
      [-1, 0, 0, 0, -1],
      [-1, 0, 0, 0, -1],
      [-1, 0, 0, 0, -1],
      [-1, 0, 4, 0, -1],
      [-1, 0, 0, 0, -1],
    ],
    [
      [-1, 1, 0, 2, -1],
      [-1, 0, 0, 0, -1],
      [-1, 0, 0, 0, -1],
      [-1, 0, 0, 0, -1],
      [-1, 3, 0, 0, -1],
    ],
  ]
  np.testing.assert_allclose(slices, expected, atol=1e-5)
  # Column 0, row 0 of the lowest slice: one pixel right of the patient's right.
  np.testing.assert_allclose(grid.affine @ [0, 0, 0, 1], [3, 18, 50, 1])


def test_places_end_half_a_voxel_beyond_the_outermost_centres():
  data = np.array([[[10.0], [10.0]], [[0.0], [0.0]]], np.float32)
  volume = Volume(data, affine_of((4, 4, 4)))  # x = 0: 10, x = 4: 0
  result = to_slices(resample(volume, slice_grid(volume, (4, 4)), fill=np.nan))
  np.testing.assert_allclose(result[0], 4 * [[0, 2.5, 7.5, 10]], atol=1e-5)
  wider = Grid((6, 1, 1), affine_of((4, 4, 4), (-8, 0, 0)))
  np.testing.assert_array_equal(
    resample(volume, wider, fill=-7)[:, 0, 0], [-7, -7, 10, 0, -7, -7]
  )
  np.testing.assert_array_equal(
    resample(volume, wider, fill=None)[:, 0, 0], [10, 10, 10, 0, 0, 0]
  )


@st.composite
def geometries(draw):
  """An affine as scanners write them: any axes, tilted a little."""
  axes = draw(st.sampled_from(ORIENTATIONS))
  spacing = [draw(st.floats(1, 4)) for _ in range(3)]
  tilt = [draw(st.floats(-15, 15)) for _ in range(3)]
  origin = [draw(st.floats(-900, 900)) for _ in range(3)]
  rotation = Rotation.from_euler('xyz', tilt, degrees=True).as_matrix()
  affine = affine_of(spacing, origin)
  affine[:3, :3] = rotation @ affine[:3, :3]
  shape = tuple(draw(st.integers(3, 7)) for _ in range(3))
  return turned(Volume(np.zeros(shape, np.float32), affine), axes)


def world(grid):
  """[x, y, z, 3]: where the places of a grid lie, in mm."""
  index = np.moveaxis(np.indices(grid.shape), 0, -1)
  return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


@settings(max_examples=30, deadline=None)
@given(volume=geometries(), axis=st.integers(0, 2))
def test_ramp_over_the_world_is_sampled_exactly(volume, axis):
  """World coordinates survive: a voxel's value is where it lies."""
  ramp = world(Grid.of(volume))[..., axis].astype(np.float32)
  volume = Volume(ramp, volume.affine)
  grid = slice_grid(volume, (7 * 4, 7 * 4))  # never coarser than the voxels
  result = resample(volume, grid, fill=np.nan)
  back = np.linalg.inv(volume.affine)
  index = world(grid) @ back[:3, :3].T + back[:3, 3]
  last = np.array(volume.data.shape) - 1
  within = ((index >= 0) & (index <= last)).all(-1)
  assert within.any()
  error = np.abs(result - world(grid)[..., axis])[within]
  assert error.max() < 2e-3


@settings(max_examples=30, deadline=None)
@given(volume=geometries())
def test_no_slice_is_lost_to_rounding(volume):
  grid = slice_grid(volume, (13, 13))
  inside = np.isfinite(to_slices(resample(volume, grid, fill=np.nan)))
  assert len(inside) in volume.data.shape
  assert inside[:, 6, 6].all()


@pytest.mark.parametrize('canvas', [12, 40, 80])
def test_marked_place_keeps_its_world_coordinates(canvas):
  data = np.zeros((40, 30, 20), np.float32)
  data[21:24, 11:14, 8:11] = 1
  volume = turned(Volume(data, affine_of((1.5, 1.5, 3), (-31, 12, 77))), 'SPL')
  grid = slice_grid(volume, (canvas, canvas))
  weight = resample(volume, grid, fill=0)
  centre = (world(grid) * weight[..., None]).sum((0, 1, 2)) / weight.sum()
  expected = (-31 + 22 * 1.5, 12 + 12 * 1.5, 77 + 9 * 3)
  np.testing.assert_allclose(centre, expected, atol=0.1)


@settings(max_examples=40, deadline=None)
@given(
  axes=st.sampled_from(ORIENTATIONS),
  order=st.sampled_from('CF'),
  steps=st.tuples(*3 * [st.floats(0.4, 4)]),
  first=st.tuples(*3 * [st.floats(-6, 6)]),
  shape=st.tuples(*3 * [st.integers(1, 9)]),
  fill=st.sampled_from([None, -7.0, np.nan]),
)
def test_axis_by_axis_is_the_same_as_in_three_dimensions(
  axes, order, steps, first, shape, fill
):
  """Finer, coarser, beyond the volume, and in any order in memory."""
  rng = np.random.default_rng(0)
  data = rng.normal(size=(7, 5, 6)).astype(np.float32)
  volume = turned(Volume(data, affine_of((2, 3, 4), (1, 2, 3))), axes)
  volume = Volume(np.asarray(volume.data, order=order), volume.affine)
  before = volume.data.copy()
  grid = Grid(shape, affine_of(np.multiply(steps, (2, 3, 4)), first))
  apart = resample(volume, grid, fill=fill)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(grids, '_parallel_axes', lambda to_voxel: None)
    together = resample(volume, grid, fill=fill)
  np.testing.assert_allclose(apart, together, atol=2e-5)
  assert apart.dtype == np.float32
  assert not np.shares_memory(apart, volume.data)
  np.testing.assert_array_equal(volume.data, before)


def test_resample_equals_trilinear_interpolation_by_hand():
  rng = np.random.default_rng(1)
  volume = Volume(
    rng.normal(size=(5, 6, 7)).astype(np.float32),
    affine_of((2, 3, 4), (1, 2, 3)),
  )
  affine = affine_of((1, 1, 1), (3, 5, 8))
  affine[:3, :3] = Rotation.from_euler('xyz', [10, 20, 30], True).as_matrix()
  grid = Grid((4, 4, 4), affine)
  result = resample(volume, grid, fill=np.nan)
  for place in np.ndindex(*grid.shape):
    at = np.linalg.inv(volume.affine) @ affine @ [*place, 1]
    low = np.floor(at[:3]).astype(int)
    expected = sum(
      np.prod([1 - abs(a - i) for a, i in zip(at, corner, strict=False)])
      * volume.data[corner]
      for corner in itertools.product(*((i, i + 1) for i in low))
    )
    np.testing.assert_allclose(result[place], expected, atol=1e-4)


def test_coarser_grid_does_not_alias():
  stripes = np.zeros((64, 64, 2), np.float32)
  stripes[::2] = 1  # every second column: picking voxels gives 0 or 1
  volume = Volume(stripes, affine_of())
  result = resample(volume, slice_grid(volume, (20, 20)), fill=np.nan)
  # At the rim the outermost column goes on for ever.
  np.testing.assert_allclose(result[2:-2], 0.5, atol=0.01)


def test_coarser_grid_does_not_blur_between_slices():
  data = np.zeros((32, 32, 5), np.float32)
  data[:, :, 2] = 1
  volume = Volume(data, affine_of((1, 1, 3)))
  result = to_slices(resample(volume, slice_grid(volume, (8, 8)), fill=np.nan))
  np.testing.assert_allclose(result.mean((1, 2)), [0, 0, 1, 0, 0], atol=1e-5)


def test_slices_turn_back_into_the_volume():
  data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  assert to_slices(data).shape == (4, 3, 2)
  np.testing.assert_array_equal(from_slices(to_slices(data)), data)


@pytest.mark.parametrize(
  ('plane', 'place'),
  [
    # Of the mark at the patient's right, anterior, top: slice, row, column.
    ('axial', (1, 0, 0)),  # top slice, anterior row, right column
    ('coronal', (0, 0, 0)),  # foremost slice, top row, right column
    ('sagittal', (0, 0, 0)),  # rightmost slice, top row, anterior column
  ],
)
@pytest.mark.parametrize('axes', ['RAS', 'PIR', 'LSA'])
def test_planes_lie_as_a_radiologist_looks_at_them(plane, place, axes):
  data = np.zeros((2, 2, 2), np.float32)
  data[1, 1, 1] = 1
  volume = turned(Volume(data, affine_of((2, 2, 2))), axes)
  result = to_slices(
    resample(volume, slice_grid(volume, (2, 2), plane), fill=-1)
  )
  assert result.shape == (2, 2, 2)
  assert np.argwhere(result > 0.5).tolist() == [list(place)]


@pytest.mark.parametrize(
  ('plane', 'expected'),
  [('axial', (60, 20)), ('coronal', (200, 20)), ('sagittal', (200, 60))],
)
def test_the_field_of_view_is_height_by_width(plane, expected):
  volume = Volume(np.zeros((10, 20, 40), np.float32), affine_of((2, 3, 5)))
  assert field_of_view(volume, plane) == pytest.approx(expected)
  assert field_of_view(turned(volume, 'PIR'), plane) == pytest.approx(expected)


def test_a_canvas_of_the_volumes_shape_has_no_padding():
  """Coronal slices 200 mm high and 20 mm wide on 40 x 4 pixels of 5 mm."""
  volume = Volume(np.zeros((10, 20, 40), np.float32), affine_of((2, 3, 5)))
  grid = slice_grid(volume, (40, 4), 'coronal')
  assert grid.shape == (4, 40, 20)
  np.testing.assert_allclose(
    np.linalg.norm(grid.affine[:3, :3], axis=0), [5, 5, 3]
  )
  assert np.isfinite(resample(volume, grid, fill=np.nan)).all()
  wider = slice_grid(volume, (40, 10), 'coronal')
  sampled = to_slices(resample(volume, wider, fill=np.nan))
  assert np.isfinite(sampled).any((0, 1)).tolist() == [
    *[False] * 3,
    *[True] * 4,
    *[False] * 3,
  ]
