"""Ground truth of a phantom's slices, from its anatomy.

The subject's tissues are painted again and resampled onto the slices of the
store. Left and right are the patient's: world x (RAS+) increases to the right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synermedgen_jax.phantoms.scanners import Fractions
from synermedgen_jax.slices.grids import Grid, resample, to_slices
from synermedgen_jax.slices.store import Case
from synermedgen_jax.slices.volumes import Volume

LESION = ('oedema', 'rim', 'necrosis', 'tumour')
# Organ -> tissues that it is painted with.
ORGANS = {
  'brain': ('grey', 'white'),
  'lung': ('lung',),
  'liver': ('liver',),
  'spleen': ('spleen',),
  'kidney': ('kidney',),
  'heart': ('heart',),
  'bowel': ('bowel',),
  'bladder': ('urine',),
  'uterus': ('uterus',),
  'prostate': ('gland',),
}
_SPECK = 30.0  # mm2: smaller pieces of a lesion are not counted


@dataclasses.dataclass(frozen=True)
class Finding:
  """Ground truth of one slice.

  Attributes:
    lesion: fraction of lesion in each pixel.
    lesion_mm2: lesion area in mm2.
    lesions: number of connected lesions of more than 30 mm2, counting pixels
      that are more than half lesion.
    right: share of the lesion area to the patient's right of the body's centre;
      0.5 without a lesion.
    offset: mm from the body's centre to the lesion's, positive to the right; 0
      without a lesion.
    organs: area in mm2 of each organ in `ORGANS`.
  """

  lesion: Float[np.ndarray, 'h w']
  lesion_mm2: float
  lesions: int
  right: float
  offset: float
  organs: Mapping[str, float]


def findings(
  case: Case, fractions: Fractions, affine: Float[np.ndarray, '4 4']
) -> list[Finding]:
  """Computes the ground truth of each slice of a case.

  Args:
    case: case of the store, which gives the grid of the slices.
    fractions: tissue -> fractions, from `cohorts.render_anatomy`.
    affine: from indices of the fractions to RAS+ mm.
  """
  depth, height, width = case.shape
  to_world = np.asarray(case.affine)
  grid = Grid((width, height, depth), to_world)

  def sliced(tissues: tuple[str, ...]) -> np.ndarray:
    parts = [fractions[t] for t in tissues if t in fractions]
    if not parts:
      return np.zeros(case.shape, np.float32)
    volume = Volume(np.asarray(sum(parts), np.float32), affine)
    return to_slices(resample(volume, grid, fill=0.0))

  lesion = sliced(LESION)
  body = 1 - sliced(('air',))
  area = float(np.linalg.norm(np.cross(to_world[:3, 0], to_world[:3, 1])))
  organs = {
    name: sliced(tissues).sum((1, 2)) * area for name, tissues in ORGANS.items()
  }
  # World x of every pixel.
  k, j, i = np.indices(case.shape, sparse=True)
  x = to_world[0, 0] * i + to_world[0, 1] * j + to_world[0, 2] * k
  x = x + to_world[0, 3]
  # Outside the painted grid, all fractions are 0, that of air included.
  inside = sliced(tuple(fractions)) > 0.5
  body = body * inside
  return [
    _finding(
      lesion[z],
      body[z],
      x[z],
      area,
      {n: float(v[z]) for n, v in organs.items()},
    )
    for z in range(depth)
  ]


def _finding(
  lesion: np.ndarray,
  body: np.ndarray,
  x: np.ndarray,
  area: float,
  organs: Mapping[str, float],
) -> Finding:
  """The ground truth of one slice.

  Args:
    lesion, body: fraction of each pixel.
    x: world x of each pixel in mm.
    area: area of a pixel in mm2.
    organs: areas in mm2.
  """
  x = np.broadcast_to(x, lesion.shape)
  total = float(lesion.sum())
  middle = float((x * body).sum() / max(float(body.sum()), 1e-6))
  right, offset = 0.5, 0.0
  if total > 0:
    right = float(lesion[x > middle].sum()) / total
    offset = float((x * lesion).sum()) / total - middle
  labels, count = ndimage.label(lesion > 0.5)
  sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * area
  return Finding(
    lesion=lesion,
    lesion_mm2=total * area,
    lesions=int((sizes > _SPECK).sum()),
    right=right,
    offset=offset,
    organs=organs,
  )
