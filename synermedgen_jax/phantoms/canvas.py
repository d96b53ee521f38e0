"""A canvas in the patient frame, on which tissues are painted as shapes.

Shapes are signed depths in mm, positive inside, at points of a canonical
patient frame (x right, y anterior, z superior). Each subject has a random pose
and a smooth random deformation of that frame. Later shapes cover earlier ones
with soft edges, so a border voxel contains both tissues, as by the
partial-volume effect.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

Triple = tuple[float, float, float]
# One row of an organ table: tissue, centre (mm), radii (mm), yaw (degrees).
Blob = tuple[str, Triple, Triple, float]
BOTH = (-1, 1)  # sides of the body, as factors of x


@dataclasses.dataclass(frozen=True)
class Grid:
  """A voxel grid; `spacing` and `centre` (in the patient frame) are in mm."""

  shape: tuple[int, int, int]
  spacing: Triple
  centre: Triple = (0.0, 0.0, 0.0)

  def axes(self) -> list[np.ndarray]:
    """Voxel centres along each axis, in mm of the patient frame."""
    return [
      (c + (np.arange(n) - (n - 1) / 2) * s).astype(np.float32)
      for n, s, c in zip(self.shape, self.spacing, self.centre, strict=True)
    ]


def smooth_field(
  rng: np.random.Generator, grid: Grid, knot: float
) -> np.ndarray:
  """A smooth random field on `grid`, float32, mean 0 and deviation 1.

  A separable cubic B-spline with random coefficients every `knot` mm.
  """
  bases = []
  for size, spacing in zip(grid.shape, grid.spacing, strict=True):
    place = np.arange(size) * spacing / knot + 1.0 + rng.uniform()
    t = np.abs(place[:, None] - np.arange(int(place[-1]) + 3))
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    bases.append(np.where(t < 1, near, far).astype(np.float32))
  field = rng.standard_normal([b.shape[1] for b in bases]).astype(np.float32)
  for basis in bases:  # each turn consumes the first axis, appends the new one
    field = np.tensordot(field, basis, axes=(0, 1))
  return (field - field.mean()) / (field.std() + 1e-6)


class Canvas:
  """Points of one subject, and the shapes painted so far.

  Attributes:
    rng: draws all random numbers of the subject.
    grid: voxel grid.
    points: (3, *grid.shape), canonical x, y, z of every voxel in mm.
  """

  def __init__(self, rng: np.random.Generator, grid: Grid, bend: float):
    """Draws a pose and a deformation.

    Args:
      rng: random generator of the subject.
      grid: voxel grid.
      bend: standard deviation of the smooth deformation, in mm.
    """
    self.rng = rng
    self.grid = grid
    self._layers: list[tuple[str, np.ndarray]] = []
    points = np.stack(np.meshgrid(*grid.axes(), indexing='ij'))
    turn = Rotation.from_euler(
      'zyx', rng.uniform(-1, 1, 3) * (9, 4, 4), degrees=True
    ).as_matrix()
    scale = rng.uniform(0.93, 1.06) * rng.uniform(0.95, 1.05, 3)
    reach = np.asarray(grid.shape) * grid.spacing
    centre = rng.uniform(-0.03, 0.03, 3) * reach * (1, 1, 0.5)
    matrix = (turn / scale[:, None]).astype(np.float32)
    offset = centre.astype(np.float32)[:, None, None, None]
    self.points = np.tensordot(matrix, points - offset, axes=1)
    for axis in range(3):
      self.points[axis] += bend * self.field(0.28 * float(reach.max()))

  def at(self, origin: Triple) -> Canvas:
    """The same canvas with coordinates relative to `origin`."""
    moved = copy.copy(self)
    offset = np.asarray(origin, np.float32)[:, None, None, None]
    moved.points = self.points - offset
    return moved

  def field(self, knot: float) -> np.ndarray:
    """A random field on the canvas; see `smooth_field`."""
    return smooth_field(self.rng, self.grid, knot)

  def ellipsoid(
    self, centre: Triple, radii: Triple, yaw: float = 0.0, jitter: float = 1.0
  ) -> np.ndarray:
    """Depth in mm inside an ellipsoid turned by `yaw` degrees about z.

    The depth is the first-order distance (1 - f) / |grad f|, accurate near the
    surface. `jitter` scales the random change of position and size.
    """
    rng = self.rng
    radii = np.asarray(radii) * (1 + jitter * rng.uniform(-0.12, 0.12, 3))
    centre = centre + jitter * rng.uniform(-0.1, 0.1, 3) * np.minimum(radii, 30)
    x, y, z = (
      p - np.float32(c) for p, c in zip(self.points, centre, strict=True)
    )
    if yaw:
      angle = np.float32(np.radians(yaw))
      cos, sin = np.cos(angle), np.sin(angle)
      x, y = cos * x + sin * y, cos * y - sin * x
    level = slope = np.float32(1e-6)
    for p, radius in zip((x, y, z), radii.astype(np.float32), strict=True):
      u2 = np.square(p / radius)
      level, slope = level + u2, slope + u2 / radius**2
    level = np.sqrt(level)
    return (1 - level) * level / np.sqrt(slope)

  def capsule(self, start: Triple, end: Triple, radius: float) -> np.ndarray:
    """Depth in mm inside a tube of `radius` mm from `start` to `end`."""
    start, end = (np.asarray(p, np.float32) for p in (start, end))
    along = end - start
    away = self.points - start[:, None, None, None]
    share = np.tensordot(along / (along @ along), away, axes=1).clip(0, 1)
    for axis in range(3):
      away[axis] -= share * along[axis]
    return radius - np.sqrt(np.square(away).sum(axis=0))

  def paint(self, tissue: str, depth: np.ndarray, amount: float = 1.0) -> None:
    """Covers positive `depth` with `tissue`; the edge is one voxel wide.

    Args:
      tissue: a key of `scanners.TISSUES`.
      depth: signed depth in mm at every voxel.
      amount: opacity, in (0, 1].
    """
    edge = np.float32(self.grid.spacing[0])
    self._layers.append(
      (tissue, np.float32(amount) * np.clip(depth / edge + 0.5, 0, 1))
    )

  def blobs(self, table: tuple[Blob, ...], sides=(1,), size=1.0) -> None:
    """Paints the ellipsoids of `table` on each side (-1 mirrors in x)."""
    for tissue, (x, y, z), radii, yaw in table:
      for side in sides:
        radii_now = tuple(r * size for r in radii)
        depth = self.ellipsoid((side * x, y, z), radii_now, side * yaw)
        self.paint(tissue, depth)

  def bone(self, depth: np.ndarray, shell: float) -> None:
    """Paints a bone: a cortical shell of `shell` mm around marrow."""
    self.paint('cortical', depth)
    self.paint('marrow', depth - shell)

  def fractions(self) -> dict[str, np.ndarray]:
    """Tissue -> its fraction of every voxel; fractions sum to one."""
    left = np.ones(self.grid.shape, np.float32)
    shares: dict[str, np.ndarray] = {}
    for tissue, cover in reversed(self._layers):
      part = left * cover
      shares[tissue] = shares[tissue] + part if tissue in shares else part
      left = left - part
    shares['air'] = shares.get('air', 0) + left
    return shares


def superellipse(
  x: np.ndarray, y: np.ndarray, wide, deep, power: float = 2.4
) -> np.ndarray:
  """Depth inside a rounded rectangle of half-axes `wide` and `deep`, in mm."""
  level = (np.abs(x) / wide) ** power + (np.abs(y) / deep) ** power
  return (1 - level ** (1 / power)) * np.minimum(wide, deep)
