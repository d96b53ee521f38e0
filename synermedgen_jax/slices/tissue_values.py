"""Values of tissues: their ranges, and outputs that no body can have.

`implausible` judges a synthetic volume without a truth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

AIR_BELOW = -200.0  # HU; lung, gas and skin; fat is above -150
BONE_FROM = 150.0  # HU; above soft tissue, below spongy bone
TISSUES: Mapping[str, str] = {
  'air': f'air, below {AIR_BELOW:.0f} HU,',
  'soft': f'soft tissue, {AIR_BELOW:.0f} to {BONE_FROM:.0f} HU,',
  'bone': f'bone, at least {BONE_FROM:.0f} HU,',
}


def tissue_masks(
  ct: Float[np.ndarray, '_ _ _'], body: Bool[np.ndarray, '_ _ _']
) -> dict[str, Bool[np.ndarray, '_ _ _']]:
  """The voxels of each of `TISSUES`.

  Args:
    ct: a CT or CBCT in HU.
    body: body mask.
  """
  air, bone = ct < AIR_BELOW, ct >= BONE_FROM
  return {'air': body & air, 'soft': body & ~(air | bone), 'bone': body & bone}
