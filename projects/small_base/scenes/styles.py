"""Rendering styles, which map a view to grey values.

A style paints a grey value for each material, or edges, or depth, and then adds
blur, shading and noise. Small random changes of a picture depend on scene, view
and style only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from projects.small_base.scenes import solids
from projects.small_base.scenes.solids import SIDE, Cut

Grey = Float[np.ndarray, '64 64']

# Grey values in [0, 1] by material, the void first.
_TABLES = {
  'flat': (0.0, 0.3, 0.45, 0.6, 0.75, 0.9, 0.2, 1.0),
  'frost': (0.0, 0.46, 0.5, 0.54, 1.0, 0.42, 0.08, 0.52),
  'etched': (0.06, 0.5, 0.95, 0.35, 0.15, 0.7, 0.8, 0.25),
  'glow': (0.0, 0.08, 0.1, 0.9, 0.05, 0.35, 0.12, 0.15),
}


def _paint(cut: Cut, table: str | Sequence[float], tint: float = 0.04) -> Grey:
  values = _TABLES[table] if isinstance(table, str) else table
  values = np.asarray(values, np.float32)
  flat = values @ cut.materials.reshape(len(values), -1)
  return flat.reshape(SIDE, SIDE) + np.float32(tint) * cut.shade


def _solid(cut: Cut) -> Grey:
  """1 in solids, 0 in the void."""
  return 1 - cut.materials[0]


def _edges(image: Grey) -> Grey:
  """Size of the gradient, in grey values per pixel."""
  out = np.zeros_like(image)
  out[1:-1] += np.abs(image[2:] - image[:-2])
  out[:, 1:-1] += np.abs(image[:, 2:] - image[:, :-2])
  return out


def _slope(image: Grey) -> Grey:
  """Gradient towards the upper left, the direction of the light."""
  out = np.zeros_like(image)
  out[1:-1, 1:-1] = image[2:, 2:] - image[:-2, :-2]
  return out


def _blur_matrix(sigma: float) -> Float[np.ndarray, '64 64']:
  offset = np.subtract.outer(np.arange(SIDE), np.arange(SIDE))
  matrix = np.exp(-0.5 * (offset / sigma) ** 2)
  return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


_SOFT, _HAZE = _blur_matrix(0.7), _blur_matrix(1.6)


def _blur(image: Grey, matrix: Grey) -> Grey:
  return matrix @ image @ matrix.T


def _flat(cut, rng):
  return _paint(cut, 'flat')


def _frost(cut, rng):
  """Blurred, streaked and noisy."""
  image = _blur(_paint(cut, 'frost', 0.01), _SOFT)
  slant = rng.uniform(-0.5, 0.5)
  phase = rng.uniform(0, 6.3)
  line = np.arange(SIDE, dtype=np.float32)
  streaks = np.sin(0.55 * (line[:, None] + slant * line) + phase)
  noise = rng.standard_normal((SIDE, SIDE), np.float32)
  return image * 0.92 + 0.03 * streaks + 0.05 * noise


def _glow(cut, rng):
  return _blur(_paint(cut, 'glow', 0.03), _HAZE)


def _relief(cut, rng):
  return _solid(cut) * (0.5 + 0.02 * cut.cloud) + 0.9 * _slope(
    cut.dome * 0.6 + 0.4 * _paint(cut, 'flat')
  )


def _outline(cut, rng):
  return 0.9 * _edges(_paint(cut, 'flat')) + 0.05 * _solid(cut)


def _etched(cut, rng):
  image = _paint(cut, 'etched')
  return image + 0.06 * cut.grain * _solid(cut) - 0.35 * _edges(image)


def _depth(cut, rng):
  return 0.15 * _solid(cut) + 0.8 * cut.dome + 0.1 * _paint(cut, 'flat')


def _negative(cut, rng):
  return 1 - _paint(cut, 'flat')


@dataclasses.dataclass(frozen=True)
class Style:
  """A rendering style.

  Attributes:
    name: its name in questions.
    paint: maps a view to grey values in about [0, 1].
    noise: standard deviation of noise, which is added last.
    shading: largest slope of the brightness over half the picture.
  """

  name: str
  paint: Callable[[Cut, np.random.Generator], Grey]
  noise: float = 0.01
  shading: float = 0.1


# Only `flat` consists of plain grey values: a small ViT confuses styles that
# differ in their grey values only (README.md).
STYLES = {
  style.name: style
  for style in (
    Style('flat', _flat, 0.004, 0.0),
    Style('frost', _frost, 0.01, 0.2),
    Style('glow', _glow, 0.01, 0.0),
    Style('relief', _relief, 0.015),
    Style('outline', _outline, 0.01),
    Style('etched', _etched, 0.02, 0.2),
    Style('depth', _depth, 0.005, 0.1),
    Style('negative', _negative, 0.01),
  )
}
NAMES = tuple(STYLES)
# Styles that show each material in a grey value of its own.
TELLING = ('flat', 'negative', 'etched')
# Dyes are not named in questions: each scene has its own grey values.
DYES = ('dye_1', 'dye_2', 'dye_3')
# Groups of similar styles.
CONFUSABLE = (('flat', 'depth'), ('relief', 'outline'))


_NUMBERS = {name: i for i, name in enumerate((*NAMES, *DYES))}


def _dye(seed: int, name: str) -> Style:
  rng = np.random.default_rng((seed, _NUMBERS[name]))
  table = (0.0, *rng.uniform(0.03, 1, solids.MATERIALS - 1))
  soft, noise = rng.random() < 0.3, rng.choice((0.005, 0.02, 0.04))

  def paint(cut, rng):
    image = _paint(cut, table)
    return _blur(image, _SOFT) if soft else image

  return Style(name, paint, noise, 0.2)


def render(seed: int, view: int, style: str) -> Grey:
  """A view of a scene as a picture in [-1, 1]; deterministic."""
  if style not in _NUMBERS:
    raise ValueError(
      f'Unknown style {style!r}: expected one of {", ".join(_NUMBERS)}.'
    )
  rng = np.random.default_rng((seed, view, _NUMBERS[style]))
  chosen = STYLES.get(style) or _dye(seed, style)
  image = chosen.paint(solids.cut(seed, view), rng)
  if chosen.shading:
    slope = rng.uniform(-chosen.shading, chosen.shading, 2)
    line = np.linspace(-1, 1, SIDE)
    light = 1 + slope[0] * line[:, None] + slope[1] * line
    image = image * light.astype(np.float32)
  image = image * np.float32(rng.uniform(0.93, 1.07))
  image = image + chosen.noise * rng.standard_normal((SIDE, SIDE), np.float32)
  return np.clip(2 * image - 1, -1, 1).astype(np.float32)
