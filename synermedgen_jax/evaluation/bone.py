"""Error and overlap of bone in a synthetic CT.

Bone is a small part of the body, so the MAE over the body mask says little
about it. A voxel of the body mask is bone if it has at least `BONE` HU. This
threshold is a choice of this project: above soft tissue and below spongy bone.
"""

from __future__ import annotations

import numpy as np

from synermedgen_jax.evaluation.volume_checks import Mask, Volume, require

BONE = 150.0  # HU, inclusive


def bone(synthesis: Volume, truth: Volume, mask: Mask) -> dict[str, float]:
  """MAE in the bone of the acquired CT, and Dice of both volumes' bone.

  Dice is 2 |A and B| / (|A| + |B|) of the voxels in the mask that are bone in
  the synthesis, A, and in the acquired CT, B.

  Args:
    synthesis: synthetic CT in HU.
    truth: acquired CT in HU.
    mask: body mask.

  Returns:
    bone_mae in HU, bone_dice from 0 to 1.

  Raises:
    VolumeScoreError: shapes differ, a value is not finite, or the acquired CT
      has no bone in the mask.
  """
  require(synthesis, truth, mask, without_bone)
  ours, theirs = (mask & (volume >= BONE) for volume in (synthesis, truth))
  error = synthesis[theirs].astype(np.float64) - truth[theirs]
  return {
    'bone_mae': float(np.abs(error).mean()),
    'bone_dice': float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())),
  }


def without_bone(truth: Volume, mask: Mask) -> str:
  """Why `bone` cannot score a case."""
  if (truth[mask] >= BONE).any():
    return ''
  return f'has no voxel of at least {BONE:.0f} HU in the mask'
