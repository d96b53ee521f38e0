"""Digital anatomy: seeded tissue fractions of a head, a pelvis and a body.

Shapes are signed depths in mm, positive inside, on points of a canonical
patient frame (x right, y anterior, z superior). A subject is a random pose and
a smooth random bend of that frame, plus its own organ sizes. Shapes are painted
over each other with soft edges, so a voxel on a border is part of both tissues:
the partial-volume effect. Sizes are rounded from ordinary adult anatomy.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

Triple = tuple[float, float, float]
# One row of an organ table: tissue, centre (mm), radii (mm), yaw (degrees).
Blob = tuple[str, Triple, Triple, float]


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
  """A smooth random field on `grid`, mean 0 and deviation 1.

  Random cubic B-spline coefficients every `knot` mm; separable, so cheap.
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
  """One subject's posed points, and the shapes painted on them so far."""

  def __init__(self, rng: np.random.Generator, grid: Grid, bend: float):
    """`bend`: deviation of the smooth deformation, in mm."""
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
    """The same canvas with coordinates counted from `origin`."""
    moved = copy.copy(self)
    offset = np.asarray(origin, np.float32)[:, None, None, None]
    moved.points = self.points - offset
    return moved

  def field(self, knot: float) -> np.ndarray:
    return smooth_field(self.rng, self.grid, knot)

  def ellipsoid(
    self, centre: Triple, radii: Triple, yaw: float = 0.0, jitter: float = 1.0
  ) -> np.ndarray:
    """Depth inside an ellipsoid turned by `yaw` degrees about z.

    First-order distance (1 - f) / |grad f|, right near the surface, where it
    matters. `jitter` scales this subject's random change of place and size.
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
    """Depth inside a tube of `radius` mm from `start` to `end`."""
    start, end = (np.asarray(p, np.float32) for p in (start, end))
    along = end - start
    away = self.points - start[:, None, None, None]
    share = np.tensordot(along / (along @ along), away, axes=1).clip(0, 1)
    for axis in range(3):
      away[axis] -= share * along[axis]
    return radius - np.sqrt(np.square(away).sum(axis=0))

  def paint(self, tissue: str, depth: np.ndarray, amount: float = 1.0) -> None:
    """Covers what is inside `depth` with `tissue`, half a voxel soft."""
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
    """Tissue fractions of every voxel; they sum to one."""
    left = np.ones(self.grid.shape, np.float32)
    shares: dict[str, np.ndarray] = {}
    for tissue, cover in reversed(self._layers):
      part = left * cover
      shares[tissue] = shares[tissue] + part if tissue in shares else part
      left = left - part
    shares['air'] = shares.get('air', 0) + left
    return shares


BOTH = (-1, 1)
_VENTRICLES: tuple[Blob, ...] = (
  ('csf', (9, 24, 13), (5, 17, 9), -18),
  ('csf', (12, -8, 21), (6, 26, 7), 8),
  ('csf', (22, -38, 9), (7, 19, 9), 18),
  ('csf', (32, -14, -16), (3, 15, 4), -10),
  ('choroid', (20, -29, 11), (3.5, 8, 3.5), 25),
)
_MIDLINE: tuple[Blob, ...] = (
  ('csf', (0, -5, 2), (2.5, 14, 9), 0),
  ('csf', (0, -12, -25), (19, 18, 10), 0),
  ('white', (0, -20, -30), (12, 11, 28), 0),
  ('vessel', (0, -4, -30), (2.5, 2.5, 22), 0),
  ('vessel', (0, -14, 13), (3, 14, 2.5), 0),
  ('vessel', (0, 22, -2), (3, 3, 16), 0),
)
_DEEP_GREY: tuple[Blob, ...] = (
  ('grey', (15, 16, 14), (5, 13, 9), -15),
  ('grey', (27, 2, 2), (6, 17, 10), -12),
  ('grey', (11, -16, 6), (9, 13, 9), 15),
)
_ORBITS: tuple[Blob, ...] = (
  ('cortical', (32, 58, -31), (22, 27, 20), 14),
  ('fat', (32, 61, -31), (19, 26, 17), 14),
  ('muscle', (19, 58, -31), (2.5, 18, 5), 10),
  ('muscle', (43, 56, -31), (2.5, 18, 5), 22),
  ('white', (27, 52, -31), (2.2, 16, 2.5), 14),
  ('csf', (33, 72, -31), (12.5, 12.5, 12), 0),
)
_FACE: tuple[Blob, ...] = (
  ('cortical', (32, -12, -36), (30, 9, 9), 35),
  ('cortical', (55, -24, -38), (12, 17, 18), 0),
  ('mucosa', (55, -26, -38), (8, 12, 13), 0),
  ('air', (55, -26, -38), (6, 10, 11), 0),
  ('mucosa', (30, 54, -63), (19, 19, 17), 0),
  ('air', (30, 54, -63), (16, 16, 14), 0),
)
_NOSE: tuple[Blob, ...] = (
  ('cortical', (0, 58, -36), (15, 30, 19), 0),
  ('mucosa', (0, 58, -37), (13, 28, 20), 0),
  ('cortical', (0, 12, -42), (20, 19, 17), 0),
  ('mucosa', (0, 16, -37), (13, 11, 8), 0),
  ('air', (0, 16, -37), (10, 8, 6), 0),
  ('mucosa', (0, 79, -8), (16, 6, 11), 0),
  ('air', (0, 79, -8), (13, 4, 9), 0),
)


def paint_head(c: Canvas, lesions: int) -> None:
  """A head from the orbits to the centrum semiovale, with brain lesions."""
  _, y, z = c.points
  rng = c.rng
  vault = c.ellipsoid((0, -2, 6), (67, 85, 76), jitter=0.4)
  # The skull base climbs in two steps: posterior, middle, anterior fossa.
  floor = -58 + 18 / (1 + np.exp(-(y + 20) / 5))
  floor += 22 / (1 + np.exp(-(y - 32) / 5))
  # Steeper than true depth: the base's bone and cisterns are thin.
  inner = np.minimum(vault, 1.7 * (z - floor))
  face = c.ellipsoid((0, 6, -44), (72, 90, 72), jitter=0.5)
  scalp = rng.uniform(4, 8)
  skull = rng.uniform(5.5, 8.5) + 1.2 * c.field(24)
  head = np.maximum(vault + skull + scalp, face)
  c.paint('skin', head)
  c.paint('fat', head - 2)
  c.paint('muscle', head - scalp)
  c.paint('cortical', inner + skull)
  c.paint('marrow', 0.24 * skull - np.abs(inner + skull / 2))
  c.blobs(_NOSE)
  for side in BOTH:
    c.paint('air', c.ellipsoid((side * 6, 58, -37), (4, 24, 17)))
  c.blobs(_FACE, BOTH)
  c.blobs(_ORBITS, BOTH)
  _paint_brain(c, inner)
  _paint_dura(c, vault, inner)
  for _ in range(lesions):
    _paint_brain_lesion(c, inner)


def _paint_brain(c: Canvas, inner: np.ndarray) -> None:
  """Cortex, white matter, deep nuclei, ventricles, brainstem, cerebellum."""
  x, y, z = c.points
  rng = c.rng
  cranium = inner - 0.8
  c.paint('csf', cranium)
  cortex = cranium - rng.uniform(1.0, 3.0)
  # Sulci are where a random field crosses zero, closing with depth; the
  # hemispheres part along x = 0 except through the callosum and below.
  sulcus = 7 * np.abs(c.field(9.5)) + 0.3 * np.clip(cortex - 10, 0, None)
  core = c.ellipsoid((0, -4, 4), (34, 40, 20), jitter=0.5)
  fissure = np.abs(x) + np.clip(core + 4, 0, None)
  sylvian = c.ellipsoid((0, 8, -3), (40, 60, 60), jitter=0.3)
  sylvian = np.abs(sylvian) + np.abs(z - 0.25 * y + 4) + 0.4 * np.abs(y - 10)
  open_space = np.minimum(np.minimum(cortex, sulcus), fissure)
  open_space = np.minimum(open_space, sylvian - 4)
  ribbon = rng.uniform(0.8, 1.4)
  c.paint('grey', np.minimum(open_space - ribbon, cortex))
  c.paint('white', np.minimum(open_space - ribbon - 3.8, cortex - 4))
  c.blobs(_DEEP_GREY, BOTH)
  c.blobs(_VENTRICLES, BOTH, size=rng.uniform(0.75, 1.45))
  hind = c.ellipsoid((0, -56, -36), (50, 30, 25), jitter=0.5)
  hind = np.minimum(hind, cortex)
  c.paint('csf', np.minimum(hind + 1.2, cranium))
  c.paint('grey', hind)
  # Folia: thin onion layers around the arbor vitae.
  c.paint('white', np.minimum(hind - 5, 1.2 * np.cos(hind / 1.5)), 0.5)
  c.blobs(_MIDLINE)
  for side in BOTH:
    c.paint('white', c.ellipsoid((side * 18, -52, -36), (15, 11, 10)))
    c.paint('vessel', c.capsule((side * 12, 12, -14), (side * 42, 8, -8), 2.2))
    c.paint(
      'vessel', c.capsule((side * 12, 14, -45), (side * 12, 12, -12), 2.8)
    )
  c.paint('csf', c.ellipsoid((0, -38, -32), (6, 5, 10)))


def _paint_dura(c: Canvas, vault: np.ndarray, inner: np.ndarray) -> None:
  """Dura, falx, venous sinuses and the veins of the convexity."""
  x, y, z = c.points
  c.paint('dura', 0.9 - np.abs(inner))
  falx = np.minimum(0.7 - np.abs(x), np.minimum(26 - vault, inner))
  c.paint('dura', np.minimum(falx, np.maximum(z - 10, -y - 40)))
  veins = np.minimum(2.4 - np.abs(inner - 2), 5 * (c.field(7) - 1.1))
  c.paint('vessel', np.minimum(veins, z + 25))
  sagittal = np.minimum(5 - np.abs(x), 3.5 - np.abs(inner - 2))
  c.paint('vessel', np.minimum(sagittal, np.maximum(20 - y, z - 20)))
  transverse = np.minimum(4 - np.abs(z + 24), 4 - np.abs(inner - 2))
  c.paint('vessel', np.minimum(transverse, -y - 30))
  c.paint('vessel', c.capsule((0, -38, 10), (0, -76, -14), 2.8))


def _paint_brain_lesion(c: Canvas, inner: np.ndarray) -> None:
  """A glioma-like lesion: oedema, an enhancing rim, a necrotic core."""
  rng = c.rng
  side, angle = rng.choice(BOTH), rng.uniform(-2.2, 1.4)
  centre = (
    side * (26 + 14 * np.cos(angle)),
    6 + 42 * np.sin(angle),
    rng.uniform(-8, 46),
  )
  size = rng.uniform(8, 17)
  radii = size * rng.uniform(0.8, 1.25, 3)
  depth = c.ellipsoid(centre, tuple(radii)) + 0.18 * size * c.field(9)
  swelling = depth + rng.uniform(5, 14) + 3.5 * c.field(12)
  c.paint('oedema', np.minimum(swelling, inner - 7), 0.85)
  inside = np.minimum(depth, inner - 3)
  c.paint('rim', inside)
  c.paint('necrosis', inside - rng.uniform(3, 5))


_PELVIC_SOFT: tuple[Blob, ...] = (
  ('muscle', (52, 26, 72), (21, 23, 60), 0),
  ('muscle', (58, 0, 0), (8, 36, 40), -12),
  ('vessel', (56, 46, 25), (7, 6, 70), 0),
  ('vessel', (46, 34, 40), (7, 6, 60), 0),
  ('vessel', (82, 80, -45), (6, 6, 50), 0),
)


def paint_pelvis(c: Canvas) -> None:
  """A pelvis from the ischia to the iliac wings, male or female."""
  x, y, z = c.points
  rng = c.rng
  wide, deep = rng.uniform(160, 185), rng.uniform(104, 124)
  trunk = _superellipse(x, y, wide - 0.0012 * np.square(z + 5), deep)
  trunk = np.minimum(trunk, -c.ellipsoid((0, -118, -62), (10, 36, 95)))
  c.paint('skin', trunk)
  c.paint('fat', trunk - 3)
  # Muscles are lobes of the wall, parted by planes of fat.
  wall = trunk - rng.uniform(13, 26) - 9 * np.abs(x) / wide
  planes = 22 * np.abs(c.field(38)) - 2.0
  c.paint('muscle', np.minimum(wall, planes))
  cavity = c.ellipsoid((0, 8, 40), (86, 72, 92), jitter=0.5)
  cavity = np.minimum(cavity, z + 32)  # the pelvic floor
  c.paint('fat', np.minimum(cavity, trunk - 30))
  c.blobs(_PELVIC_SOFT, BOTH)
  _paint_hips(c)
  _paint_pelvic_organs(c, cavity)


def _superellipse(x, y, wide, deep, power: float = 2.4) -> np.ndarray:
  """Depth inside a rounded rectangle of half-axes `wide` and `deep`, in mm."""
  level = (np.abs(x) / wide) ** power + (np.abs(y) / deep) ** power
  return (1 - level ** (1 / power)) * np.minimum(wide, deep)


def _paint_hips(c: Canvas) -> None:
  """Sacrum, hip bones and femurs about the level of the femoral heads."""
  c.bone(c.ellipsoid((0, -66, 62), (50, 24, 52)), 4)
  c.paint('csf', c.ellipsoid((0, -78, 80), (13, 7, 40)))
  c.bone(c.ellipsoid((0, -82, 2), (13, 9, 26)), 4)
  for side in BOTH:
    c.bone(c.ellipsoid((side * 86, -8, 78), (11, 62, 62), -42 * side, 0.5), 4)
    c.bone(c.ellipsoid((side * 78, -4, 6), (25, 36, 34), 0, 0.5), 4)
    c.bone(c.ellipsoid((side * 66, -38, -42), (17, 18, 34), 0, 0.5), 4)
    c.bone(c.capsule((side * 5, 62, -30), (side * 70, 26, 0), 10), 4)
    c.bone(c.capsule((side * 8, 54, -42), (side * 60, -30, -68), 9), 4)
    c.bone(c.capsule((side * 118, -6, -8), (side * 128, 0, -220), 17), 6)
    c.bone(c.ellipsoid((side * 128, -14, 0), (16, 22, 20)), 4)
    joint = c.ellipsoid((side * 92, 2, 4), (27, 27, 27), jitter=0.2)
    c.paint('disc', joint)
    c.paint('cortical', joint - 2.5)
    c.bone(c.capsule((side * 98, 2, 2), (side * 122, -8, -8), 16), 4)
    c.paint('marrow', joint - 5)
  c.paint('disc', c.ellipsoid((0, 60, -32), (5, 12, 18)))


def _paint_pelvic_organs(c: Canvas, cavity: np.ndarray) -> None:
  rng = c.rng
  inside = cavity - 4
  for _ in range(16):
    _paint_bowel(c, inside, (0, 20, 76), (66, 50, 36))
  low = rng.uniform(-8, 4)
  rectum = c.capsule((0, -52, -48), (rng.uniform(-12, 12), -40, 48), 16)
  c.paint('bowel', rectum)
  c.paint('gas', c.ellipsoid((0, -46, rng.uniform(-20, 30)), (9, 9, 26)))
  if rng.uniform() < 0.5:
    c.paint('gland', c.ellipsoid((0, 14, -28), (27, 21, 22)))
    c.paint('muscle', c.ellipsoid((0, -14, 0), (26, 8, 9)))
    if rng.uniform() < 0.7:
      side = rng.choice(BOTH)
      c.paint('tumour', c.ellipsoid((side * 12, 4, -30), (9, 8, 9)))
  else:
    c.paint('uterus', c.ellipsoid((low, -8, 34), (32, 26, 30), low))
    c.paint('urine', c.ellipsoid((low, -6, 36), (12, 5, 17), low), 0.7)
    c.paint('uterus', c.ellipsoid((0, -10, -8), (17, 14, 22)))
  size = rng.uniform(0.75, 1.25)
  bladder = c.ellipsoid(
    (0, 34, 6 + 18 * size), (42 * size, 28 * size, 30 * size)
  )
  c.paint('muscle', bladder)
  c.paint('urine', bladder - 4)
  for _ in range(rng.integers(0, 4)):
    side, radius = rng.choice(BOTH), rng.uniform(6, 12)
    place = (
      side * rng.uniform(45, 62),
      rng.uniform(10, 50),
      rng.uniform(0, 70),
    )
    c.paint('tumour', c.ellipsoid(place, (radius, radius, radius)))


def _paint_bowel(
  c: Canvas, inside: np.ndarray, centre: Triple, reach: Triple, size=1.0
) -> None:
  """A loop of bowel at a random place about `centre`, now and then with gas."""
  rng = c.rng
  place = centre + np.asarray(reach) * rng.uniform(-1, 1, 3)
  radii = size * rng.uniform(12, 24, 3)
  loop = np.minimum(c.ellipsoid(place, radii, rng.uniform(0, 180)), inside)
  c.paint('bowel', loop)
  if rng.uniform() < 0.5:
    c.paint('gas', np.minimum(loop - 5, c.points[1] - place[1] + 4))


# The trunk's outline by height z: half width, half depth, middle in y (mm).
_OUTLINE = np.asarray([
  (-340, 150, 88, 0), (-230, 178, 112, 0), (-170, 172, 112, 4),
  (-90, 150, 102, 4), (0, 155, 108, 2), (90, 162, 114, 0), (190, 168, 108, 0),
  (255, 178, 88, -8), (290, 150, 74, -16), (315, 78, 64, -14),
  (340, 60, 62, -6), (700, 60, 62, -6),
], np.float32)  # fmt: skip
_CHEST: tuple[Blob, ...] = (
  ('vessel', (0, 8, 232), (36, 30, 44), 0),
  ('fat', (4, 26, 190), (34, 44, 70), 0),
  ('vessel', (-14, -44, 150), (12, 12, 110), 0),
  ('vessel', (22, -8, 190), (11, 11, 60), 0),
  ('bowel', (-2, -28, 170), (9, 8, 110), 0),
  ('gas', (2, -8, 280), (9, 9, 75), 0),
  ('gas', (24, -14, 208), (15, 7, 12), 30),
  ('gas', (-24, -14, 204), (15, 7, 12), -30),
)
_ABDOMEN: tuple[Blob, ...] = (
  ('liver', (82, 10, 72), (76, 82, 76), 12),
  ('liver', (10, 48, 84), (72, 38, 42), 14),
  ('spleen', (-108, -42, 70), (26, 44, 48), 25),
  ('bowel', (-56, 36, 66), (44, 36, 40), -30),
  ('vessel', (-8, -30, -20), (11, 11, 110), 0),
  ('vessel', (22, -26, -10), (12, 10, 110), 0),
  ('bowel', (-16, 4, 14), (62, 12, 14), -14),
)


def paint_body(c: Canvas) -> None:
  """A body from mid-thigh to the brain, arms up, with tumours."""
  x, y, z = c.points
  rng = c.rng
  girth = rng.uniform(0.92, 1.12)
  wide, deep, middle = (np.interp(z, _OUTLINE[:, 0], v) for v in _OUTLINE.T[1:])
  torso = 1 / (1 + np.exp((z - 300) / 12))
  girth = 1 + (girth - 1) * torso
  body = _superellipse(x, y - middle, wide * girth, deep * girth)
  legs = 84 - np.hypot(np.abs(x) - 84, y - 4)
  body = np.where(z < -298, legs, np.minimum(body, 356 - z))
  body = body.astype(np.float32)
  paint_head(c.at((0, 2, 438)), 0)
  c.paint('skin', body)
  c.paint('fat', body - 2.5)
  wall = body - 5 - rng.uniform(7, 20) * torso
  c.paint('muscle', np.minimum(wall, 26 * np.abs(c.field(45)) - 2))
  cavity = np.minimum(wall - 16, np.minimum(y + 56, 240 - z))
  cavity = np.minimum(cavity, z + 240)
  c.paint('fat', np.minimum(cavity, 100 - z))
  _paint_trunk_bones(c, wall)
  _paint_hips(c.at((0, 0, -226)))
  _paint_chest(c, wall)
  _paint_abdomen(c, cavity)
  _paint_spine(c)
  _paint_tumours(c, wall)


def _paint_trunk_bones(c: Canvas, wall: np.ndarray) -> None:
  """Ribs, sternum, shoulders and jaw."""
  _, y, z = c.points
  # Ribs run down and forward, so an axial slice cuts several.
  rib = 9 * np.cos(2 * np.pi * (z + 0.45 * y) / 34) + 0.5
  cage = np.minimum(4.5 - np.abs(wall - 8), np.minimum(z - 10, 270 - z))
  c.bone(np.minimum(rib, cage), 3)
  c.bone(c.ellipsoid((0, 84, 190), (18, 8, 68)), 3)
  for side in BOTH:
    c.bone(c.capsule((side * 18, 50, 262), (side * 140, -20, 282), 7), 3)
    c.bone(c.ellipsoid((side * 108, -68, 225), (42, 8, 55), -side * 24), 3)
    c.bone(c.ellipsoid((side * 148, -22, 262), (23, 24, 26)), 3)
    c.bone(c.capsule((side * 46, 4, 376), (side * 12, 66, 362), 6), 3)


def _paint_chest(c: Canvas, wall: np.ndarray) -> None:
  """Lungs with their vessels, mediastinum and heart."""
  for side in BOTH:
    lung = c.ellipsoid((side * 78, -4, 172), (64, 88, 112), jitter=0.5)
    lung = np.minimum(lung, wall - 17)
    c.paint('lung', lung)
    c.paint('vessel', np.minimum(lung - 8, 4 * (c.field(11) - 1.9)), 0.8)
  c.blobs(_CHEST)
  heart = c.ellipsoid((-26, 26, 132), (52, 42, 46), -35)
  c.paint('fat', heart + 5)
  c.paint('vessel', heart)
  muscle = c.ellipsoid((-42, 20, 126), (36, 30, 38), -35)
  c.paint('heart', muscle)
  c.paint('vessel', muscle - 10)


def _paint_abdomen(c: Canvas, cavity: np.ndarray) -> None:
  rng = c.rng
  for tissue, centre, radii, yaw in _ABDOMEN:
    depth = np.minimum(c.ellipsoid(centre, radii, yaw), cavity + 8)
    c.paint(tissue, depth)
  c.paint('gas', c.ellipsoid((-50, 56, 74), (24, 13, 20)))
  for side in BOTH:
    kidney = c.ellipsoid((side * 62, -44, 4), (27, 24, 54), side * 20)
    c.paint('kidney', kidney)
    c.paint('urine', c.ellipsoid((side * 54, -40, 2), (9, 8, 20)), 0.6)
    c.paint('muscle', c.ellipsoid((side * 44, -50, -90), (20, 22, 90)))
  for _ in range(30):
    _paint_bowel(c, cavity - 3, (0, 25, -95), (110, 58, 95), 1.5)
  c.paint('bowel', c.capsule((0, -52, -262), (0, -46, -170), 16))
  size = rng.uniform(0.75, 1.25)
  bladder = c.ellipsoid((0, 30, -208), (36 * size, 28 * size, 28 * size))
  c.paint('muscle', bladder + 3)
  c.paint('urine', bladder)
  c.paint('gland', c.ellipsoid((0, 10, -248), (22, 18, 16)))


def _paint_spine(c: Canvas) -> None:
  """Vertebrae, discs and canal from the sacrum to the skull base."""
  z = c.points[2]
  top = 380 - z
  body = np.minimum(c.ellipsoid((0, -62, 90), (24, 20, 420), 0, 0.2), top)
  arch = np.minimum(c.ellipsoid((0, -92, 90), (26, 16, 420), 0, 0.2), top)
  body, arch = np.minimum(body, z + 190), np.minimum(arch, z + 190)
  joint = 8 * np.cos(2 * np.pi * z / 37)
  c.bone(np.minimum(arch, joint + 5), 4)
  c.paint('disc', body)
  c.bone(np.minimum(body, joint + 6), 3)
  canal = c.ellipsoid((0, -86, 120), (9, 8, 330), 0, 0.2)
  c.paint('csf', np.minimum(canal, top))


def _paint_tumours(c: Canvas, wall: np.ndarray) -> None:
  """Up to eight hot lesions: lung, nodes, liver, bone."""
  rng = c.rng
  for _ in range(rng.integers(1, 9)):
    place = (*rng.uniform((-110, -60), (110, 60)), rng.uniform(-200, 260))
    depth = c.ellipsoid(place, tuple(rng.uniform(9, 24, 3)))
    depth = depth + 4 * c.field(24)
    c.paint('tumour', np.minimum(depth, wall - 12))
