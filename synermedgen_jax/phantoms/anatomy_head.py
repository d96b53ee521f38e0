"""The anatomy of a head: skull, face, brain and its lesions.

Sizes are rounded adult averages; `Canvas` varies them per subject.
"""

from __future__ import annotations

import numpy as np

from synermedgen_jax.phantoms.canvas import BOTH, Blob, Canvas

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
  """Paints a head from the orbits to the centrum semiovale.

  Args:
    c: canvas to paint on.
    lesions: number of brain lesions.
  """
  _, y, z = c.points
  rng = c.rng
  vault = c.ellipsoid((0, -2, 6), (67, 85, 76), jitter=0.4)
  # The skull base climbs in two steps: posterior, middle, anterior fossa.
  floor = -58 + 18 / (1 + np.exp(-(y + 20) / 5))
  floor += 22 / (1 + np.exp(-(y - 32) / 5))
  # Steeper than the true depth, because bone and cisterns of the base are thin.
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
  # Sulci follow the zero crossings of a random field and close with depth. The
  # fissure separates the hemispheres at x = 0, except at or below the callosum.
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
