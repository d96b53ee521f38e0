"""Errors of a synthetic CT per tissue, and the overlap and distance of bone.

Bone and gas are small parts of the body, so the MAE over the body mask says
little about them. `slices/tissue_values.py` has the ranges of the tissues.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from synermedgen_jax.evaluation.volume_checks import (
  Mask,
  Spacing,
  Volume,
  require,
)
from synermedgen_jax.slices.tissue_values import (
  AIR_BELOW,
  BONE_FROM,
  TISSUES,
  tissue_masks,
)

_PERCENTILE = 95


def tissue(
  synthesis: Volume, truth: Volume, mask: Mask, spacing: Spacing
) -> dict[str, float]:
  """MAE and bias in air, soft tissue and bone; Dice and HD95 of bone.

  A voxel belongs to the tissue that the acquired CT has there. The bias is the
  mean of synthesis minus truth. Dice is 2 |A and B| / (|A| + |B|) of the voxels
  in the mask that are bone in the synthesis, A, and in the acquired CT, B.

  Args:
    synthesis: synthetic CT or CBCT in HU.
    truth: acquired CT or CBCT in HU.
    mask: body mask.
    spacing: mm between the voxel centres along each axis.

  Returns:
    air_mae, air_bias, soft_mae, soft_bias, bone_mae, bone_bias in HU, bone_dice
    from 0 to 1, bone_hd95 in mm, see `hd95`.

  Raises:
    VolumeScoreError: shapes differ, a value is not finite, or the acquired CT
      lacks a tissue in the mask.
  """
  require(synthesis, truth, mask, without_tissue)
  scores = {}
  for name, voxels in tissue_masks(truth, mask).items():
    error = synthesis[voxels].astype(np.float64) - truth[voxels]
    scores[f'{name}_mae'] = float(np.abs(error).mean())
    scores[f'{name}_bias'] = float(error.mean())
  ours, theirs = (mask & (volume >= BONE_FROM) for volume in (synthesis, truth))
  overlap = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
  return scores | {
    'bone_dice': float(overlap),
    'bone_hd95': hd95(ours, theirs, spacing),
  }


def hd95(a: Mask, b: Mask, spacing: Spacing) -> float:
  """95th percentile of the distances between the surfaces of two objects.

  The surface of an object is its voxels with a neighbour, through a face, that
  is not of the object; beyond the volume there are no neighbours. The distance
  of each to the nearest surface voxel of the other object is taken in both
  directions, and the percentile is that of all distances together.

  Args:
    a, b: voxels of the objects.
    spacing: mm between the voxel centres along each axis.

  Returns:
    mm. The diagonal of the volume, from the first to the last voxel centre, if
    one object has no surface; 0 if neither has.
  """
  surfaces = [_surface(mask, spacing) for mask in (a, b)]
  inside = [sitk.GetArrayViewFromImage(s).astype(bool) for s in surfaces]
  present = [voxels.any() for voxels in inside]
  if not all(present):
    steps = (np.array(a.shape) - 1) * spacing
    return float(np.linalg.norm(steps)) if any(present) else 0.0
  distances = [
    _distances(surface)[voxels]
    for surface, voxels in zip(surfaces, reversed(inside), strict=True)
  ]
  return float(np.percentile(np.concatenate(distances), _PERCENTILE))


def _surface(mask: Mask, spacing: Spacing) -> sitk.Image:
  image = sitk.GetImageFromArray(mask.astype(np.uint8))
  image.SetSpacing([float(step) for step in reversed(spacing)])  # x, y, z
  return sitk.LabelContour(image, fullyConnected=False)


def _distances(surface: sitk.Image) -> np.ndarray:
  """mm from every voxel to the nearest voxel of a surface."""
  signed = sitk.SignedMaurerDistanceMap(
    surface, squaredDistance=False, useImageSpacing=True
  )
  # Negative inside a surface of several voxels: these are at distance 0.
  return np.maximum(sitk.GetArrayFromImage(signed), 0)


def without_tissue(truth: Volume, mask: Mask) -> str:
  """Why `tissue` cannot score a case."""
  for name, voxels in tissue_masks(truth, mask).items():
    if not voxels.any():
      return f'has no voxel of {TISSUES[name]} in the mask'
  return ''


DEFINITION = {
  'range': 'HU, clipped to the window of the store',
  'mask': 'voxels of the body mask of a case, by their tissue in the acquired '
  'volume; bone_dice and bone_hd95: bone of the synthesis and of the acquired '
  'volume, both in the body mask; a case that lacks a tissue is refused',
  'dimension': '3-D, all usable slices of a case on the grid of the store',
  'tissues': f'air below {AIR_BELOW:.0f} HU, bone from {BONE_FROM:.0f} HU, '
  'soft tissue between; the limits are choices of this project: bone is above '
  'soft tissue and below spongy bone; contrast medium, calcification and metal '
  'of that density count as bone',
  'bias': 'mean of synthesis minus truth',
  'hd95': '95th percentile of the distances between surface voxels and the '
  'nearest one of the other volume, of both directions together, with the '
  'spacing of the store; the diagonal of the volume if the synthesis has no '
  'bone',
  'unit': 'mae, bias in HU, bone_dice from 0 to 1, bone_hd95 in mm; lower is '
  'better, of bias nearer to 0, of bone_dice higher',
}
