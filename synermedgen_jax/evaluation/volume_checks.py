"""Checks of two volumes and a mask before a score compares them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core.errors import UserError

Volume = Float[np.ndarray, 'z h w']
Mask = Bool[np.ndarray, 'z h w']
# mm between voxel centres along (z, h, w)
Spacing = tuple[float, float, float]
# (truth, mask) -> why a score cannot be computed; '' = it can.
Refusal = Callable[[Volume, Mask], str]


class VolumeScoreError(UserError):
  """A score of volumes that does not apply; one line that says why."""


def require(
  synthesis: Volume, truth: Volume, mask: Mask, refusal: Refusal
) -> None:
  """Checks that two volumes can be scored.

  Args:
    synthesis: synthesised volume.
    truth: acquired volume.
    mask: voxels to score.
    refusal: what the score itself requires.

  Raises:
    VolumeScoreError: shapes differ, the mask is not boolean, a value is not
      finite, or the score refuses the case.
  """
  if not synthesis.shape == truth.shape == mask.shape or truth.ndim != 3:
    raise VolumeScoreError(
      'A score of volumes needs three volumes of one shape, got a synthesis '
      f'{synthesis.shape}, a truth {truth.shape} and a mask {mask.shape}.'
    )
  if mask.dtype != bool:
    raise VolumeScoreError(f'The mask needs dtype bool, got {mask.dtype}.')
  if not (np.isfinite(synthesis).all() and np.isfinite(truth).all()):
    raise VolumeScoreError('The volumes have voxels that are not finite.')
  if reason := refusal(truth, mask):
    raise VolumeScoreError(f'The case, shape {mask.shape}, {reason}.')
