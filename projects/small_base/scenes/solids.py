"""Scenes of solids, and their cuts by a plane, from which pictures are drawn.

A scene is a pile of solids of several materials in a cube of side 2. A view is
its cut at one height, so neighbouring views differ in detail: outlines swell
and shrink, small solids come and go. Nothing is modelled on real objects.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

SIDE = 64  # pixels
VIEWS = 24  # number of heights at which a scene is cut
MATERIALS = 8  # the first is the void around all solids
KINDS = ('nested', 'scattered', 'woven', 'banded')

_REACH = 0.8  # height of the highest cut
_WAVES = 20  # number of waves in a texture
_KEPT = 96  # scenes and cuts in a cache


@dataclasses.dataclass(frozen=True)
class Cut:
  """One view of a scene, before a style paints it.

  Attributes:
    materials: share of each material in a pixel; they add up to 1.
    shade: tint of each solid, in about [-1, 1]; 0 in the void.
    dome: depth of a pixel in its solid, 0 at the rim, 1 at the centre.
    cloud: coarse texture of mean 0 and variance 1.
    grain: fine texture of mean 0 and variance 1.
  """

  materials: Float[np.ndarray, '8 64 64']
  shade: Float[np.ndarray, '64 64']
  dome: Float[np.ndarray, '64 64']
  cloud: Float[np.ndarray, '64 64']
  grain: Float[np.ndarray, '64 64']


@dataclasses.dataclass(frozen=True)
class Waves:
  """A sum of plane waves in space: a texture, or a warp."""

  frequency: Float[np.ndarray, 'w 3']
  phase: Float[np.ndarray, ' w']

  def at(self, height: float) -> Float[np.ndarray, '64 64']:
    """Values on the pixels of the plane at `height`, of variance 1."""
    x = self.frequency[:, :1] * _LINE + (
      self.phase + self.frequency[:, 2] * height
    ).reshape(-1, 1)
    y = self.frequency[:, 1:2] * _LINE
    # Sums cos(x + y) over all waves with one matrix product.
    left = np.concatenate([np.cos(y), -np.sin(y)])
    right = np.concatenate([np.cos(x), np.sin(x)])
    return (left.T @ right) * np.float32((2 / len(self.phase)) ** 0.5)


@dataclasses.dataclass(frozen=True)
class Scene:
  """Solids in the order in which they cover each other, `n` of them.

  Attributes:
    kind: one of `KINDS`.
    materials: material of each solid.
    center: x, y, z.
    axes: half-axes along its own x and y, and along z.
    turn: cosine and sine of its angle in the plane.
    drift: shift of x and y from its centre to its top.
    boxy: 1 for a box with round corners, 0 for an ellipsoid.
    hollow: the part of its radius that is left as it was before; 0 = solid.
    shade: its tint.
    warp_x, warp_y: bend the plane.
    cloud, grain: textures.
  """

  kind: str
  materials: np.ndarray
  center: Float[np.ndarray, 'n 3']
  axes: Float[np.ndarray, 'n 3']
  turn: Float[np.ndarray, 'n 2']
  drift: Float[np.ndarray, 'n 2']
  boxy: Float[np.ndarray, ' n']
  hollow: Float[np.ndarray, ' n']
  shade: Float[np.ndarray, ' n']
  warp: float
  warp_x: Waves
  warp_y: Waves
  cloud: Waves
  grain: Waves


_LINE = ((np.arange(SIDE, dtype=np.float32) + 0.5) * (2 / SIDE) - 1)[None]


def _waves(rng: np.random.Generator, low: float, high: float, n: int) -> Waves:
  """Waves of `low` to `high` radians per unit of length, in any direction."""
  direction = rng.normal(size=(n, 3)) * (1, 1, 0.5)
  direction /= np.linalg.norm(direction[:, :2], axis=1, keepdims=True)
  frequency = direction * rng.uniform(low, high, (n, 1))
  phase = rng.uniform(0, 2 * np.pi, n)
  return Waves(frequency.astype(np.float32), phase.astype(np.float32))


def kind_of(seed: int) -> str:
  """Kind of the scene with this seed."""
  return KINDS[seed % len(KINDS)]


@functools.lru_cache(_KEPT)
def scene(seed: int) -> Scene:
  """The scene with this seed; deterministic."""
  rng = np.random.default_rng((seed, 17))
  kind = kind_of(seed)
  parts = _PARTS[kind](rng)
  parts = np.asarray(parts, np.float32)
  angle = parts[:, 7]
  return Scene(
    kind=kind,
    materials=parts[:, 0].astype(np.int64),
    center=parts[:, 1:4],
    axes=parts[:, 4:7],
    turn=np.stack([np.cos(angle), np.sin(angle)], 1),
    drift=rng.normal(0, 0.5, (len(parts), 2)).astype(np.float32)
    * parts[:, 4:6].min(1, keepdims=True),
    boxy=parts[:, 8],
    hollow=parts[:, 9],
    shade=rng.uniform(-1, 1, len(parts)).astype(np.float32),
    warp=float(rng.uniform(0.02, 0.07)),
    warp_x=_waves(rng, 2, 7, 4),
    warp_y=_waves(rng, 2, 7, 4),
    cloud=_waves(rng, 3, 14, _WAVES),
    grain=_waves(rng, 25, 80, _WAVES),
  )


def _solid(rng, material, x, y, z, a, b, c, *, boxy=0.3, hollow=0.0):
  """One row of a scene's table of parts."""
  turn = rng.uniform(0, np.pi)
  return (material, x, y, z, a, b, c, turn, rng.random() < boxy, hollow)


def _filling(rng, count: int, radius: float, small: float, large: float):
  """Solids at random positions within `radius`, the larger ones first."""
  parts = []
  sizes = np.sort(np.exp(rng.uniform(np.log(small), np.log(large), count)))
  for size in sizes[::-1]:
    angle, r = rng.uniform(0, 2 * np.pi), radius * rng.random() ** 0.5
    aspect = np.exp(rng.uniform(-0.6, 0.6))
    parts.append(
      _solid(
        rng,
        rng.integers(1, MATERIALS),
        r * np.cos(angle),
        r * np.sin(angle),
        rng.uniform(-1, 1),
        size * aspect,
        size / aspect,
        rng.uniform(0.15, 0.7),
        hollow=rng.uniform(0.5, 0.85) * (rng.random() < 0.3),
      )
    )
  return parts


def _nested(rng):
  """One large solid in shells, with others inside."""
  a, b = rng.uniform(0.6, 0.9), rng.uniform(0.45, 0.85)
  x, y = rng.uniform(-0.08, 0.08, 2)
  turn = rng.normal(0, 0.3)
  shape = rng.random() < 0.2
  parts, scale = [], 1.0
  for material in rng.choice(
    np.arange(1, MATERIALS), rng.integers(2, 5), False
  ):
    row = (a * scale, b * scale, 1.7)
    parts.append((material, x, y, rng.normal(0, 0.2), *row, turn, shape, 0.0))
    scale *= rng.uniform(0.82, 0.95)
  inside = _filling(rng, rng.integers(8, 15), min(a, b) * scale, 0.05, 0.3)
  return parts + inside


def _scattered(rng):
  """Separate solids in the void, some of which extend over all heights."""
  parts = _filling(rng, rng.integers(10, 17), 0.75, 0.07, 0.4)
  return [(*p[:3], p[3] * 0.3, *p[4:6], 1.5, *p[7:]) for p in parts[:3]] + (
    parts[3:]
  )


def _woven(rng):
  """Rods that extend over the heights, and rings, in a flat solid."""
  parts = []
  if rng.random() < 0.7:
    size = rng.uniform(0.6, 0.95, 2)
    parts.append(
      _solid(rng, rng.integers(1, MATERIALS), 0, 0, 0, *size, 2.0, boxy=0.6)
    )
  for _ in range(rng.integers(6, 11)):
    x, y = rng.uniform(-0.65, 0.65, 2)
    length, width = rng.uniform(0.15, 0.6), rng.uniform(0.03, 0.09)
    material = rng.integers(1, MATERIALS)
    parts.append(
      _solid(rng, material, x, y, rng.uniform(-1, 1), length, width, 0.7)
    )
  for _ in range(rng.integers(2, 6)):
    x, y = rng.uniform(-0.6, 0.6, 2)
    size = rng.uniform(0.1, 0.3)
    hollow = rng.uniform(0.5, 0.85)
    material, z = rng.integers(1, MATERIALS), rng.uniform(-0.8, 0.8)
    parts.append(_solid(rng, material, x, y, z, size, size, 0.8, hollow=hollow))
  return parts


def _banded(rng):
  """Bands across a large solid, with small solids on them."""
  parts = _nested(rng)[: rng.integers(1, 3)]
  turn = rng.uniform(0, np.pi)
  for offset in np.linspace(-0.6, 0.6, rng.integers(3, 7)):
    offset += rng.normal(0, 0.05)
    x, y = -offset * np.sin(turn), offset * np.cos(turn)
    size = rng.uniform(0.3, 0.7), rng.uniform(0.03, 0.12)
    row = (rng.integers(1, MATERIALS), x, y, rng.uniform(-0.6, 0.6), *size)
    parts.append((*row, rng.uniform(0.5, 1.2), turn, 1.0, 0.0))
  return parts + _filling(rng, rng.integers(4, 9), 0.6, 0.05, 0.2)


_PARTS = {
  'nested': _nested,
  'scattered': _scattered,
  'woven': _woven,
  'banded': _banded,
}


@functools.lru_cache(_KEPT)
def cut(seed: int, view: int) -> Cut:
  """The cut of a scene at one of `VIEWS` heights."""
  if not 0 <= view < VIEWS:
    raise ValueError(f'A scene has views 0 to {VIEWS - 1}, got {view}.')
  s = scene(seed)
  height = _REACH * (2 * view / (VIEWS - 1) - 1)
  t = (height - s.center[:, 2]) / s.axes[:, 2]
  seen = np.flatnonzero(np.abs(t) < 0.98)
  cover, dome = _cover(s, seen, t[seen].astype(np.float32), height)
  # Later solids cover earlier ones.
  weights, through = np.empty_like(cover), np.ones(SIDE**2, np.float32)
  for i in reversed(range(len(seen))):
    np.multiply(cover[i], through, out=weights[i])
    through = through - weights[i]
  rows = np.zeros((MATERIALS + 2, len(seen)), np.float32)
  rows[s.materials[seen], np.arange(len(seen))] = 1
  rows[MATERIALS] = s.shade[seen]
  mixed = rows @ weights
  mixed[0] = through
  mixed[MATERIALS + 1] = (weights * dome).sum(0)
  mixed = mixed.reshape(-1, SIDE, SIDE)
  return Cut(
    mixed[:MATERIALS],
    mixed[MATERIALS],
    mixed[MATERIALS + 1],
    s.cloud.at(height),
    s.grain.at(height),
  )


def _cover(s: Scene, seen: np.ndarray, t: np.ndarray, height: float):
  """Share of each pixel that each solid covers, and the pixel's depth in it.

  Args:
    s: the scene.
    seen: indices of the solids that the plane intersects.
    t: height of the plane in each, -1 at the bottom and 1 at the top.
    height: height of the plane.

  Returns:
    (solids, pixels) each, in [0, 1].
  """
  boxy = s.boxy[seen]
  swell = np.where(boxy > 0, (1 - t**4) ** 0.25, (1 - t**2) ** 0.5)
  axes = s.axes[seen, :2] * swell[:, None]
  center = s.center[seen, :2] + s.drift[seen] * t[:, None]
  # Positions of pixels along the axes of a solid, in units of its radii. They
  # are affine in x and y of the warped plane.
  plane = np.ones((3, SIDE**2), np.float32)
  plane[0] = (_LINE + s.warp * s.warp_x.at(height)).ravel()
  plane[1] = (_LINE.T + s.warp * s.warp_y.at(height)).ravel()
  cos, sin = s.turn[seen].T
  turns = np.array([[cos, sin], [-sin, cos]], np.float32) / axes.T[:, None]
  shift = -(turns * center.T).sum(1, keepdims=True)
  along = np.concatenate([turns, shift], 1).astype(np.float32)
  u, v = along.transpose(0, 2, 1) @ plane
  u *= u
  v *= v
  square = boxy > 0
  u[square] *= u[square]
  v[square] *= v[square]
  level = u + v  # 1 at the rim
  # Converts a level near the rim to pixels: its slope is the exponent / radius.
  sharp = axes.min(1) * (SIDE / 2) / np.where(square, 4, 2)
  sharp = np.maximum(sharp, 0.3)[:, None].astype(np.float32)
  cover = np.clip((1 - level) * sharp + 0.5, 0, 1)
  hollow = s.hollow[seen]
  for i in np.flatnonzero(hollow):
    inner = hollow[i] ** (4 if square[i] else 2)
    cover[i] -= np.clip((inner - level[i]) * (sharp[i] / inner) + 0.5, 0, 1)
  np.clip(cover, 0, 1, out=cover)
  return cover, np.clip(1 - level, 0, 1)
