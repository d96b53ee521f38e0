"""Measures of the lesions in each slice of a case.

A store keeps them in its manifest, instead of the lesion mask. Right is the
patient's: world x (RAS+) increases to the right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from synermedgen_jax.core.modalities import Modality

_SPECK = 30.0  # mm2: smaller pieces of a lesion are not counted
_RING = 2  # pixels around a lesion that its contrast is measured against


@dataclasses.dataclass(frozen=True)
class SliceLesions:
  """Measures of the lesions in one slice.

  Attributes:
    area: lesion area in mm2, partial pixels by their share.
    count: number of connected lesions above 30 mm2, counting pixels that are
      more than half lesion.
    right: share of the area to the patient's right of the body's midline.
    offset: mean distance from the body's midline in mm, positive to the
      patient's right.
    contrast: modality -> mean of the lesion minus the median of a ring of two
      pixels around it, in the unit of [-1, 1]. Modalities that do not cover the
      lesion are left out, and all of them if no pixel is more than half lesion.
  """

  area: float
  count: int
  right: float
  offset: float
  contrast: Mapping[Modality, float]

  def to_json(self) -> dict[str, Any]:
    """All fields as JSON values."""
    contrast = {m.value: value for m, value in self.contrast.items()}
    return {**dataclasses.asdict(self), 'contrast': contrast}

  @classmethod
  def from_json(cls, row: Mapping[str, Any]) -> SliceLesions:
    """The inverse; raises KeyError, TypeError or ValueError."""
    contrast = {**row['contrast']}
    return cls(
      float(row['area']),
      int(row['count']),
      float(row['right']),
      float(row['offset']),
      {Modality(name): float(value) for name, value in contrast.items()},
    )


def measure_lesions(
  lesion: Float[np.ndarray, 'z h w'],
  body: Bool[np.ndarray, 'z h w'],
  slices: Mapping[Modality, Float[np.ndarray, 'z h w']],
  measured: Mapping[Modality, Bool[np.ndarray, 'z h w']],
  affine: Float[np.ndarray, '4 4'],
) -> dict[int, SliceLesions]:
  """Measures the lesions of every slice that has one.

  The midline of the body is a line: at each level along the head-foot axis, the
  mean position of the body's voxels, so it does not depend on the plane.

  Args:
    lesion: share of lesion in each pixel.
    body: body mask with at least one voxel.
    slices: modality -> values in [-1, 1].
    measured: modality -> pixels that the volume covers.
    affine: (column, row, slice) to RAS+ mm.

  Returns:
    Index of the slice -> its lesions.
  """
  pixel = float(np.linalg.norm(np.cross(affine[:3, 0], affine[:3, 1])))
  distance = _from_midline(body, affine)
  lesions = {}
  for z in np.flatnonzero(lesion.any((1, 2))).tolist():
    share = lesion[z]
    area = float(share.sum()) * pixel
    if round(area, 1) <= 0:
      continue
    right = np.sum(share, where=distance[z] > 0) / share.sum()
    offset = (share * distance[z]).sum() / share.sum()
    lesions[z] = SliceLesions(
      area=round(area, 1),
      count=_count(share, pixel),
      right=round(float(right), 3),
      offset=round(float(offset), 1),
      contrast=_contrasts(
        share,
        {m: x[z] for m, x in slices.items()},
        {m: x[z] for m, x in measured.items()},
      ),
    )
  return lesions


def _from_midline(
  body: Bool[np.ndarray, 'z h w'], affine: Float[np.ndarray, '4 4']
) -> Float[np.ndarray, 'z h w']:
  """mm from the body's midline to each pixel, positive to the right."""
  k, j, i = np.indices(body.shape, dtype=np.float32, sparse=True)
  x = affine[0, 0] * i + affine[0, 1] * j + affine[0, 2] * k + affine[0, 3]
  x = np.broadcast_to(np.float32(x), body.shape)
  # Columns of the affine are (column, row, slice), axes of arrays the reverse.
  level = 2 - int(np.abs(affine[2, :3]).argmax())
  others = tuple(axis for axis in range(3) if axis != level)
  count = body.sum(others, keepdims=True)
  total = np.sum(x, axis=others, where=body, keepdims=True, dtype=np.float64)
  whole = total.sum() / count.sum()
  midline = np.where(count, total / np.maximum(count, 1), whole)
  return x - np.float32(midline)


def _count(share: Float[np.ndarray, 'h w'], pixel: float) -> int:
  labels, _ = ndimage.label(share > 0.5)
  sizes = np.bincount(labels.ravel())[1:] * pixel
  return int((sizes > _SPECK).sum())


def _contrasts(
  share: Float[np.ndarray, 'h w'],
  images: Mapping[Modality, Float[np.ndarray, 'h w']],
  measured: Mapping[Modality, Bool[np.ndarray, 'h w']],
) -> dict[Modality, float]:
  inside, any_part = share > 0.5, share > 0.1
  ring = ndimage.binary_dilation(any_part, iterations=_RING) & ~any_part
  contrasts = {}
  for modality, image in images.items():
    around = ring & measured[modality]
    covered = measured[modality][inside].all()
    if inside.any() and around.any() and covered:
      contrast = float(image[inside].mean() - np.median(image[around]))
      contrasts[modality] = round(contrast, 3)
  return contrasts
