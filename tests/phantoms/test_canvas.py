import numpy as np
import pytest

from synermedgen_jax.phantoms.canvas import (
  Canvas,
  Grid,
  smooth_field,
  superellipse,
)


def straight_canvas(grid: Grid) -> Canvas:
  """A canvas without this subject's pose and bend."""
  canvas = Canvas(np.random.default_rng(0), grid, bend=0.0)
  canvas.points = np.stack(np.meshgrid(*grid.axes(), indexing='ij'))
  return canvas


# One line of voxels along x: -4, -2, 0, 2, 4 mm.
LINE = Grid((5, 1, 1), (2.0, 2.0, 2.0))


def test_voxel_centres_lie_about_the_grids_centre():
  x, y, z = Grid((3, 2, 1), (2.0, 5.0, 1.0), (10.0, 0.0, -4.0)).axes()
  np.testing.assert_array_equal(x, [8, 10, 12])
  np.testing.assert_array_equal(y, [-2.5, 2.5])
  np.testing.assert_array_equal(z, [-4])


def test_the_depth_of_a_sphere_is_the_way_to_its_surface():
  canvas = straight_canvas(LINE)
  depth = canvas.ellipsoid((0, 0, 0), (3, 3, 3), jitter=0)[:, 0, 0]
  np.testing.assert_allclose(depth[[0, 1, 3, 4]], [-1, 1, 1, -1], atol=1e-4)


def test_the_depth_of_a_capsule_counts_from_its_axis_and_ends():
  canvas = straight_canvas(LINE)
  depth = canvas.capsule((-10, 1, 0), (1, 1, 0), 2.0)[:, 0, 0]
  # Beside the axis a millimetre away; past its end by 1 and by 3 mm.
  expected = [1, 1, 1, 2 - 2**0.5, 2 - 10**0.5]
  np.testing.assert_allclose(depth, expected, atol=1e-5)


def test_a_superellipse_ends_at_its_half_axes():
  depth = superellipse(np.asarray([0.0, 6.0, 0.0]), np.asarray([0, 0, 4]), 6, 4)
  np.testing.assert_allclose(depth, [4, 0, 0], atol=1e-6)


def test_later_paint_covers_earlier_paint_with_soft_edges():
  canvas = straight_canvas(LINE)
  x = canvas.points[0]
  canvas.paint('fat', 3 - np.abs(x))  # its edge halves the voxel at +-3
  canvas.paint('muscle', x - 1.5, amount=0.5)
  shares = {k: v[:, 0, 0] for k, v in canvas.fractions().items()}
  np.testing.assert_allclose(shares['muscle'], [0, 0, 0, 0.375, 0.5])
  np.testing.assert_allclose(shares['fat'], [0, 1, 1, 0.625, 0])
  np.testing.assert_allclose(shares['air'], [1, 0, 0, 0, 0.5])


def test_blobs_are_mirrored_to_both_sides():
  canvas = straight_canvas(Grid((9, 3, 3), (1.0, 1.0, 1.0)))
  canvas.blobs((('liver', (3, 0, 0), (1.5, 1.5, 1.5), 0),), sides=(-1, 1))
  liver = canvas.fractions()['liver'][:, 1, 1]
  assert liver[1] > 0.5
  assert liver[7] > 0.5
  assert liver[4] == 0


def test_a_smooth_field_is_standardised_and_smooth():
  grid = Grid((40, 30, 20), (1.0, 1.0, 2.0))
  field = smooth_field(np.random.default_rng(0), grid, knot=10.0)
  assert field.shape == grid.shape
  assert field.mean() == pytest.approx(0, abs=1e-4)
  assert field.std() == pytest.approx(1, abs=1e-4)
  assert np.diff(field, axis=0).std() < 0.25  # 1.4 if it were noise


def test_a_pose_is_a_function_of_the_generator():
  first, same, other = (
    Canvas(np.random.default_rng(seed), LINE, bend=2.0).points
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, same)
  assert not np.allclose(first, other)
