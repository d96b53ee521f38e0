"""The anatomy of a pelvis and of a whole body.

Sizes are rounded adult averages; `Canvas` varies them per subject.
"""

from __future__ import annotations

import numpy as np

from synermedgen_jax.phantoms.anatomy_head import paint_head
from synermedgen_jax.phantoms.canvas import (
  BOTH,
  Blob,
  Canvas,
  Triple,
  superellipse,
)

_PELVIC_SOFT: tuple[Blob, ...] = (
  ('muscle', (52, 26, 72), (21, 23, 60), 0),
  ('muscle', (58, 0, 0), (8, 36, 40), -12),
  ('vessel', (56, 46, 25), (7, 6, 70), 0),
  ('vessel', (46, 34, 40), (7, 6, 60), 0),
  ('vessel', (82, 80, -45), (6, 6, 50), 0),
)


def paint_pelvis(c: Canvas) -> None:
  """Paints a male or female pelvis from the ischia to the iliac wings."""
  x, y, z = c.points
  rng = c.rng
  wide, deep = rng.uniform(160, 185), rng.uniform(104, 124)
  trunk = superellipse(x, y, wide - 0.0012 * np.square(z + 5), deep)
  trunk = np.minimum(trunk, -c.ellipsoid((0, -118, -62), (10, 36, 95)))
  c.paint('skin', trunk)
  c.paint('fat', trunk - 3)
  # Planes of fat separate the muscles of the wall.
  wall = trunk - rng.uniform(13, 26) - 9 * np.abs(x) / wide
  planes = 22 * np.abs(c.field(38)) - 2.0
  c.paint('muscle', np.minimum(wall, planes))
  cavity = c.ellipsoid((0, 8, 40), (86, 72, 92), jitter=0.5)
  cavity = np.minimum(cavity, z + 32)  # the pelvic floor
  c.paint('fat', np.minimum(cavity, trunk - 30))
  c.blobs(_PELVIC_SOFT, BOTH)
  _paint_hips(c)
  _paint_pelvic_organs(c, cavity)


def _paint_hips(c: Canvas) -> None:
  """Sacrum, hip bones and femurs around the level of the femoral heads."""
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
  """A loop of bowel at a random place around `centre`, sometimes with gas."""
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
  """Paints a body from mid-thigh to the brain, arms raised, with tumours."""
  x, y, z = c.points
  rng = c.rng
  girth = rng.uniform(0.92, 1.12)
  wide, deep, middle = (np.interp(z, _OUTLINE[:, 0], v) for v in _OUTLINE.T[1:])
  torso = 1 / (1 + np.exp((z - 300) / 12))
  girth = 1 + (girth - 1) * torso
  body = superellipse(x, y - middle, wide * girth, deep * girth)
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
  """One to eight lesions with high uptake, anywhere in the trunk."""
  rng = c.rng
  for _ in range(rng.integers(1, 9)):
    place = (*rng.uniform((-110, -60), (110, 60)), rng.uniform(-200, 260))
    depth = c.ellipsoid(place, tuple(rng.uniform(9, 24, 3)))
    depth = depth + 4 * c.field(24)
    c.paint('tumour', np.minimum(depth, wall - 12))
