"""Scores of whole volumes in physical units, which `--score` adds.

`VOLUME_SCORES` has one row per score; `evaluate --score` and `score --score`
compute those that are named, on the grid of the store and in its windows. Each
compares all usable slices of a case with the acquired volume. The metrics of
`metrics` are computed without being named, also of slices that are picked from
a volume.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from synermedgen_jax.core.modalities import (
  BRATS_CONTRASTS,
  Modality,
  Region,
  Route,
)
from synermedgen_jax.evaluation import official, tissue
from synermedgen_jax.evaluation.scores import Number, Score
from synermedgen_jax.evaluation.volume_checks import (
  Mask,
  Refusal,
  Spacing,
  Volume,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VolumeScore(Score):
  """One score of whole volumes.

  Attributes:
    function: (synthesis, truth, mask, spacing) -> metric -> value.
    refusal: (truth, mask) -> why the case cannot be scored; '' = it can.
    targets: modalities that it scores.
    regions: body regions that it scores; empty = all.
  """

  function: Callable[[Volume, Volume, Mask, Spacing], dict[str, float]]
  refusal: Refusal
  targets: tuple[Modality, ...]
  regions: tuple[Region, ...]

  def applies(self, route: Route) -> bool:
    """Whether syntheses of a route have this score."""
    inside = not self.regions or route.region in self.regions
    return inside and route.target in self.targets


def _of_voxels(
  function: Callable[[Volume, Volume, Mask], dict[str, float]],
) -> Callable[[Volume, Volume, Mask, Spacing], dict[str, float]]:
  """A score that counts voxels, whatever their spacing."""

  def scored(synthesis, truth, mask, spacing):
    del spacing
    return function(synthesis, truth, mask)

  return scored


_ERRORS = {'mae': Number('MAE', 1, 'HU'), 'psnr': Number('PSNR', 2, 'dB')}
_GRID = '3-D, all usable slices of a case on the grid of the store'

VOLUME_SCORES: Mapping[str, VolumeScore] = {
  'synthrad2023': VolumeScore(
    title='SynthRAD2023',
    function=_of_voxels(official.synthrad2023),
    refusal=official.off_faces,
    numbers=_ERRORS | {'ssim': Number('SSIM', 4)},
    targets=(Modality.CT,),
    regions=(),
    definition={
      'range': 'HU, clipped to the window of the store; PSNR and SSIM also to '
      '[-1024, 3000]',
      'mask': 'the body mask of a case; SSIM: -1024 outside, mean over its '
      'voxels at least 3 voxels from every face',
      'dimension': _GRID,
      'window': 'SSIM: uniform, 7 x 7 x 7 voxels, sample covariance',
      'unit': 'mae in HU, psnr in dB, at most 100, ssim at most 1',
      'source': 'Huijben et al. 2024, Medical Image Analysis 97, 103276; the '
      'challenge scores on the grid of the published volumes',
    },
  ),
  'synthrad2025': VolumeScore(
    title='SynthRAD2025',
    function=_of_voxels(official.synthrad2025),
    refusal=official.off_coarse_faces,
    numbers=_ERRORS | {'ms_ssim': Number('MS-SSIM', 4)},
    targets=(Modality.CT,),
    regions=(),
    definition={
      'range': 'HU, clipped to the window of the store; PSNR and MS-SSIM also '
      'to [-1024, 3071]',
      'mask': 'the body mask of a case; MS-SSIM: -1024 outside, mean at every '
      'scale over its voxels at least 3 voxels from every face',
      'dimension': _GRID,
      'window': 'MS-SSIM: uniform, 7 x 7 x 7 voxels, sample covariance, at '
      'five scales with exponents 0.0448, 0.2856, 0.3001, 0.2363, 0.1333 of '
      'the whole SSIM; an axis of fewer than 97 voxels is extended to 97 by '
      'its outermost ones',
      'unit': 'mae in HU, psnr in dB, at most 100, ms_ssim at most 1',
      'source': 'SynthRAD2025/evaluation, image_metrics.py; the challenge '
      'scores on the grid of the published volumes',
    },
  ),
  'brasyn': VolumeScore(
    title='BraSyn',
    function=_of_voxels(official.brasyn),
    refusal=official.constant,
    numbers={'ssim': Number('SSIM', 4)},
    targets=BRATS_CONTRASTS,
    regions=(Region.BRAIN,),
    definition={
      'range': 'clipped to the window of the store; then each volume to its '
      'own 0.5th and 99.5th percentile, at least 0, mapped to [0, 1]',
      'mask': 'the body mask of a case; 0 outside, mean over all voxels, '
      'outside the mask too; the challenge scores the tumour and its '
      'complement instead, which a store does not have',
      'dimension': f'{_GRID}; the score depends on the share of background '
      'in it, and the challenge has 240 x 240 x 155 voxels',
      'window': 'Gaussian, sigma 1.5, 11 x 11 x 11 voxels, population '
      'covariance; the volume is mirrored at its faces',
      'unit': '1, at most 1; higher is better',
      'source': 'hongweilibran/BraSyn, ssim.py, with torchmetrics 1.4.2 or '
      'later; Li et al. 2023, arXiv 2305.09011',
    },
  ),
  'tissue': VolumeScore(
    title='tissues',
    function=tissue.tissue,
    refusal=tissue.without_tissue,
    numbers={
      'air_mae': Number('air MAE', 1, 'HU'),
      'air_bias': Number('air bias', 1, 'HU'),
      'soft_mae': Number('soft tissue MAE', 1, 'HU'),
      'soft_bias': Number('soft tissue bias', 1, 'HU'),
      'bone_mae': Number('bone MAE', 1, 'HU'),
      'bone_bias': Number('bone bias', 1, 'HU'),
      'bone_dice': Number('bone Dice', 4),
      'bone_hd95': Number('bone HD95', 1, 'mm'),
    },
    targets=(Modality.CT, Modality.CBCT),
    regions=(),
    definition=tissue.DEFINITION,
  ),
}
