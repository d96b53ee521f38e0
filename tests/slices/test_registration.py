"""Known rigid motions are undone."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_alignment import WINDOW, pair

from synermedgen_jax.slices.registration import moved, register_rigid


def motion(degrees, mm, about):
  """Rotates by angles about x, y, z through `about`, then shifts."""
  matrix = np.eye(4)
  matrix[:3, :3] = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
  matrix[:3, 3] = about + np.array(mm) - matrix[:3, :3] @ about
  return matrix


@pytest.mark.parametrize(
  ('degrees', 'mm'),
  [
    ((0, 0, 0), (0, 0, 0)),
    ((0, 0, 0), (9, -12, 8)),
    ((5, -4, 8), (0, 0, 0)),
    ((-3, 6, -5), (40, -10, 30)),
  ],
)
def test_a_rigid_motion_is_undone(degrees, mm):
  fixed, moving = pair((0, 0, 0))
  displaced = moved(moving, motion(degrees, mm, moving.corners.mean(0)))
  matrix = register_rigid(fixed, displaced, (WINDOW, WINDOW))
  np.testing.assert_allclose(
    moved(displaced, matrix).corners, moving.corners, atol=0.5
  )


def test_it_is_rigid_and_the_same_in_every_run():
  fixed, moving = pair((6, 3, -4))
  matrix, again = (
    register_rigid(fixed, moving, (WINDOW, WINDOW)) for _ in range(2)
  )
  np.testing.assert_array_equal(matrix, again)
  np.testing.assert_allclose(
    matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-5
  )
  assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-5)
