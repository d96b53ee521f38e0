"""Values of tissues: their ranges, and outputs that no body can have.

`implausible` judges a synthetic volume without a truth. It finds another unit,
an offset, an inversion or an empty output, not errors of anatomy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.windows import FIXED_WINDOWS, body_mask

AIR_BELOW = -200.0  # HU; lung, gas and skin; fat is above -150
BONE_FROM = 150.0  # HU; above soft tissue, below spongy bone
TISSUES: Mapping[str, str] = {
  'air': f'air, below {AIR_BELOW:.0f} HU,',
  'soft': f'soft tissue, {AIR_BELOW:.0f} to {BONE_FROM:.0f} HU,',
  'bone': f'bone, at least {BONE_FROM:.0f} HU,',
}

_INF = float('inf')
_LOWEST = 0.1  # percentile; continuation at the edge may go beyond a window
_BONY = (Region.BRAIN, Region.PELVIS, Region.WHOLE_BODY)
_DENSE = 900.0  # HU; cortical bone and enamel
# Fat has -100 HU, muscle 50, and the spongy bone of a skull moves the median
# little. Scatter makes the soft tissue of a CBCT up to 100 HU darker.
_TISSUE_HU: Mapping[Modality, tuple[float, float]] = {
  Modality.CT: (-120.0, 120.0),
  Modality.CBCT: (-200.0, 200.0),
}
# Air is -1000 HU by definition; noise and filters reach -1130 (tests/data).
_AIR_HU = -1200.0
_ENAMEL_HU = 3071.0  # the top of 12 bits less 1024; enamel reaches 3000
_AIR_SHARE = (0.0, 0.6)  # lungs are below half of a chest
# The shares of the CTs in tests/data and of the phantoms are 0.08 to 0.27.
_BONE_SHARE = (0.01, 0.4)
_DENSE_SHARE = (0.0, 0.15)  # theirs are below 0.1
_SUV_LOWEST = -0.1  # for the edges; an activity is not negative
_SUV_HOT = 100.0  # above the 99th percentile of any patient, as in `units`
# The MRs in tests/data and the phantoms have at least 0.7.
_CONTRAST = (0.05, _INF)


@dataclasses.dataclass(frozen=True)
class Implausible:
  """A number of a volume that no body has.

  Attributes:
    name: what was measured, with its unit if it has one.
    value: the number.
    expected: lowest and highest plausible number, may be infinite.
  """

  name: str
  value: float
  expected: tuple[float, float]

  def __str__(self) -> str:
    low, high = self.expected
    limits = f'{low:g} to {high:g}'
    if _INF in (high, -low):
      limits = f'at least {low:g}' if high == _INF else f'at most {high:g}'
    return f'{self.name}: {self.value:.4g}, expected {limits}'


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


def implausible(
  slices: Float[np.ndarray, 'z h w'], modality: Modality, region: Region
) -> list[Implausible]:
  """Lists the numbers of a volume that are outside their plausible range.

  Args:
    slices: slices of any plane and spacing, in HU for CT and CBCT, in SUV for
      PET, in any unit for others.
    modality: modality that the volume was synthesised as.
    region: body region that it shows.

  Returns:
    One entry per number; empty = all are plausible.
  """
  finite = float(np.isfinite(slices).mean())
  if finite < 1:
    return [Implausible('share of finite values', finite, (1.0, 1.0))]
  known = {Modality.CT: _hu, Modality.CBCT: _hu, Modality.PET: _suv}
  numbers = known.get(modality, _any_unit)
  return [
    number
    for number in numbers(slices, modality, region)
    if not number.expected[0] <= number.value <= number.expected[1]
  ]


def _hu(
  slices: np.ndarray, modality: Modality, region: Region
) -> Iterator[Implausible]:
  lowest = float(np.percentile(slices, _LOWEST))
  yield Implausible(f'{_LOWEST}th percentile, HU', lowest, (_AIR_HU, _INF))
  highest = float(slices.max())
  yield Implausible('highest value, HU', highest, (-_INF, _ENAMEL_HU))
  inside = slices[body_mask(modality, slices, FIXED_WINDOWS[modality])]
  if not inside.size:
    yield Implausible('share of the body in the volume', 0.0, (0.01, 1.0))
    return
  low, high = _BONE_SHARE
  for name, share, expected in (
    ('air', inside < AIR_BELOW, _AIR_SHARE),
    ('bone', inside >= BONE_FROM, (low if region in _BONY else 0, high)),
    (f'{_DENSE:.0f} HU or more', inside >= _DENSE, _DENSE_SHARE),
  ):
    name = f'share of {name} in the body'
    yield Implausible(name, float(share.mean()), expected)
  if (tissue := inside[inside >= AIR_BELOW]).size:
    name = 'median of the body without air, HU'
    yield Implausible(name, float(np.median(tissue)), _TISSUE_HU[modality])


def _suv(
  slices: np.ndarray, modality: Modality, region: Region
) -> Iterator[Implausible]:
  lowest, hot = np.percentile(slices, (_LOWEST, 99))
  name = f'{_LOWEST}th percentile, SUV'
  yield Implausible(name, float(lowest), (_SUV_LOWEST, _INF))
  yield Implausible('99th percentile, SUV', float(hot), (-_INF, _SUV_HOT))
  yield from _any_unit(slices, modality, region)


def _any_unit(
  slices: np.ndarray, modality: Modality, region: Region
) -> Iterator[Implausible]:
  del modality, region
  mean = np.abs(slices).mean()
  contrast = float(slices.std() / mean) if mean else 0.0
  yield Implausible('standard deviation over mean', contrast, _CONTRAST)
