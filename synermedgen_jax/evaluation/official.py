"""Image scores of challenges: SynthRAD2023, SynthRAD2025 and BraSyn.

They are for comparison with the papers of a challenge. Each is a function of
two volumes in physical units and a mask, and follows the evaluation program of
its challenge:

    official.synthrad2025(synthesis, truth, mask)  # {'mae', 'psnr', 'ms_ssim'}

`OFFICIAL` has one row per score; `evaluate --score` and `score --score` compute
those that are named, on the grid of the store. Its windows and its grid differ
from the published volumes, as the definition of each score states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import (
  BRATS_CONTRASTS,
  Modality,
  Region,
  Route,
)
from synermedgen_jax.evaluation.metrics import psnr_of
from synermedgen_jax.evaluation.ssim import gaussian_mean, ssim_of_means

_AIR = -1024.0  # HU outside the mask, and the lower end of both ranges
_UNIFORM = 7  # voxels
_OFF_FACES = (slice(_UNIFORM // 2, -(_UNIFORM // 2)),) * 3
# Exponents of five scales, the finest first: Wang et al. 2003, section 3.2.
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_STRIDE = 2 ** (len(_SCALES) - 1)  # voxels of the finest scale
# Fewest voxels of an axis: 97, 49, 25, 13, 7 at the five scales.
_LEAST = (_UNIFORM - 1) * _STRIDE + 1
_PERCENTILES = (0.5, 99.5)

Volume = Float[np.ndarray, 'z h w']
Mask = Bool[np.ndarray, 'z h w']


class OfficialError(UserError):
  """A score that does not apply; one line that names it."""


def synthrad2023(
  synthesis: Volume,
  truth: Volume,
  mask: Mask,
) -> dict[str, float]:
  """MAE, PSNR and SSIM of a synthetic CT as SynthRAD2023 defines them.

  MAE does not clip values; PSNR and SSIM clip them to [-1024, 3000] HU and use
  that range. SSIM is 3-D with a uniform window of 7 voxels and sample
  covariance. Voxels outside the mask are first set to the lowest value, and
  the mean is over mask voxels at least 3 voxels from every face. Sources:
  Huijben et al. 2024, Medical Image Analysis 97, 103276; SynthRAD2023/metrics,
  functions/image_metrics.py.

  Args:
    synthesis: synthetic CT in HU.
    truth: acquired CT in HU.
    mask: body mask.

  Returns:
    mae in HU, psnr in dB (at most 100), ssim.

  Raises:
    OfficialError: shapes differ, a value is not finite, or no mask voxel is at
      least 3 voxels from every face.
  """
  _require(synthesis, truth, mask, _off_faces)
  high = 3000.0
  values = _uniform_ssim(
    *_within(synthesis, truth, mask, high), data_range=high - _AIR
  )
  return {
    **_errors(synthesis, truth, mask, high),
    'ssim': float(values[_OFF_FACES][mask[_OFF_FACES]].mean()),
  }


def synthrad2025(
  synthesis: Volume,
  truth: Volume,
  mask: Mask,
  *,
  high: float = 3071.0,
) -> dict[str, float]:
  """MAE, PSNR and MS-SSIM of a synthetic CT as SynthRAD2025 defines them.

  MAE and PSNR are those of `synthrad2023`, with the range [-1024, `high`] HU.
  MS-SSIM is 3-D and has five scales. At each scale, the map of SSIM of
  `synthrad2023` is raised to the scale's exponent (luminance, contrast and
  structure share it, at every scale) and averaged over mask voxels at least 3
  voxels from every face; negative SSIM counts as 0. The score is the product of
  the means. A coarser scale has the means of 2 x 2 x 2 voxels, with zeros
  before the first voxel of an axis, and every second voxel of the mask.

  Five scales need 97 voxels along every axis. A smaller volume is extended to
  97 at both ends of an axis by its outermost voxels, the mask too. Sources:
  SynthRAD2025/evaluation, image_metrics.py, the program that scored the
  submissions; the exponents are those of Wang et al. 2003, Asilomar.

  Args:
    synthesis: synthetic CT in HU.
    truth: acquired CT in HU.
    mask: body mask.
    high: upper end of the range in HU. SynthRAD2025/metrics, an earlier program
      of the challenge, has 3000.

  Returns:
    mae in HU, psnr in dB (at most 100), ms_ssim.

  Raises:
    OfficialError: shapes differ, a value is not finite, or no mask voxel is at
      least 3 voxels from every face of the coarsest scale.
  """
  _require(synthesis, truth, mask, _off_coarse_faces)
  x, y = (_extend(v) for v in _within(synthesis, truth, mask, high))
  body, product = _extend(mask), 1.0
  for exponent in _SCALES:
    values = _uniform_ssim(x, y, data_range=high - _AIR)
    values = np.maximum(values, 0) ** exponent
    product *= float(values[_OFF_FACES][body[_OFF_FACES]].mean())
    x, y, body = _halve(x), _halve(y), body[::2, ::2, ::2]
  return {**_errors(synthesis, truth, mask, high), 'ms_ssim': product}


def brasyn(
  synthesis: Volume,
  truth: Volume,
  mask: Mask,
) -> dict[str, float]:
  """SSIM of a synthetic MR as BraSyn defines it.

  Each volume is clipped to its own 0.5th and 99.5th percentile, the lower one
  at least 0, and mapped to [0, 1]. Voxels outside the mask are then set to 0.
  SSIM is 3-D with a Gaussian window of sigma 1.5, 11 voxels wide, and
  population covariance; its range is the larger one of both volumes. The mean
  is over all voxels of the volume, outside the mask too, with the volume
  mirrored at its faces. Sources: hongweilibran/BraSyn, ssim.py, with its SSIM
  from torchmetrics 1.4.2 or later; earlier versions leave out 5 voxels at every
  face.

  The challenge scores two regions: `mask=tumour` and `mask=~tumour`. A
  synthesis whose percentiles are equal counts as black.

  Args:
    synthesis: synthetic MR, in the unit of the truth.
    truth: acquired MR.
    mask: region to score.

  Returns:
    ssim.

  Raises:
    OfficialError: shapes differ, a value is not finite, or the acquired volume
      is constant in the mask.
  """
  _require(synthesis, truth, mask, _constant)
  x, y = (_stretch(volume) * mask for volume in (synthesis, truth))

  def mean(volume: np.ndarray) -> np.ndarray:
    return gaussian_mean(volume, mode='mirror')

  values = ssim_of_means(x, y, mean, data_range=max(np.ptp(x), np.ptp(y)))
  return {'ssim': float(values.mean())}


@dataclasses.dataclass(frozen=True)
class Official:
  """One official score.

  Attributes:
    title: name in printed lines.
    function: (synthesis, truth, mask) -> metric -> value.
    refusal: (truth, mask) -> why the case cannot be scored; '' = it can.
    printed: metric -> format of its value, with label and unit.
    targets: modalities that it scores.
    regions: body regions that it scores; empty = all.
    definition: property -> text.
  """

  title: str
  function: Callable[[Volume, Volume, Mask], dict[str, float]]
  refusal: Callable[[Volume, Mask], str]
  printed: Mapping[str, str]
  targets: tuple[Modality, ...]
  regions: tuple[Region, ...]
  definition: Mapping[str, str]

  def applies(self, route: Route) -> bool:
    """Whether syntheses of a route have this score."""
    inside = not self.regions or route.region in self.regions
    return inside and route.target in self.targets


def lines(
  results: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> Iterator[str]:
  """Yields a line per score and route.

  Args:
    results: score -> route -> metric -> value.
  """
  for name, by_route in results.items():
    official = OFFICIAL[name]
    for route, values in by_route.items():
      numbers = ', '.join(
        text.format(values[metric]) for metric, text in official.printed.items()
      )
      yield f'{route} by {official.title}: {numbers}'


def _require(
  synthesis: Volume,
  truth: Volume,
  mask: Mask,
  refusal: Callable[[Volume, Mask], str],
) -> None:
  """Raises OfficialError if two volumes cannot be scored."""
  if not synthesis.shape == truth.shape == mask.shape or truth.ndim != 3:
    raise OfficialError(
      'An official score needs three volumes of one shape, got a synthesis '
      f'{synthesis.shape}, a truth {truth.shape} and a mask {mask.shape}.'
    )
  if mask.dtype != bool:
    raise OfficialError(f'The mask needs dtype bool, got {mask.dtype}.')
  if not (np.isfinite(synthesis).all() and np.isfinite(truth).all()):
    raise OfficialError('The volumes have voxels that are not finite.')
  if reason := refusal(truth, mask):
    raise OfficialError(f'The case, shape {mask.shape}, {reason}.')


def _off_faces(truth: Volume, mask: Mask) -> str:
  del truth  # only the mask decides
  if mask[_OFF_FACES].any():
    return ''
  return 'has no body voxel at least 3 voxels from every face'


def _off_coarse_faces(truth: Volume, mask: Mask) -> str:
  del truth
  # These voxels are off the faces at the finer scales too.
  if _extend(mask)[::_STRIDE, ::_STRIDE, ::_STRIDE][_OFF_FACES].any():
    return ''
  return (
    'has no body voxel at least 3 voxels from every face of the coarsest of '
    'five scales'
  )


def _constant(truth: Volume, mask: Mask) -> str:
  if not mask.any():
    return 'has no voxel in the mask'
  if np.ptp(_stretch(truth) * mask) > 0:
    return ''
  return 'has an acquired volume that is constant in the mask'


def _errors(
  synthesis: Volume, truth: Volume, mask: Mask, high: float
) -> dict[str, float]:
  """MAE of the values, and PSNR of values clipped to [-1024, high]."""
  x, y = (volume[mask].astype(np.float64) for volume in (synthesis, truth))
  clipped = np.clip(x, _AIR, high) - np.clip(y, _AIR, high)
  return {
    'mae': float(np.abs(x - y).mean()),
    'psnr': psnr_of(np.mean(clipped**2), high - _AIR),
  }


def _within(
  synthesis: Volume, truth: Volume, mask: Mask, high: float
) -> tuple[Volume, Volume]:
  """Both volumes clipped to [-1024, high], less -1024; 0 outside the mask."""
  x, y = (
    np.where(mask, np.clip(volume.astype(np.float64), _AIR, high) - _AIR, 0)
    for volume in (synthesis, truth)
  )
  return x, y


def _extend(volume: np.ndarray) -> np.ndarray:
  """Repeats the outermost voxels until every axis has 97 voxels."""
  missing = [max(_LEAST - n, 0) for n in volume.shape]
  return np.pad(volume, [(n // 2, n - n // 2) for n in missing], mode='edge')


def _halve(volume: Volume) -> Float[np.ndarray, '_ _ _']:
  """The mean of each voxel of even index and those before it; zeros outside."""
  return ndimage.uniform_filter(volume, 2, mode='constant')[::2, ::2, ::2]


def _stretch(volume: Volume) -> Volume:
  """Maps the percentiles, at least 0, to [0, 1]; black if they are equal."""
  volume = volume.astype(np.float64)
  low, high = np.percentile(volume, _PERCENTILES)
  low = max(low, 0.0)
  if high <= low:
    return np.zeros_like(volume)
  return (np.clip(volume, low, high) - low) / (high - low)


def _uniform_ssim(x: Volume, y: Volume, *, data_range: float) -> Volume:
  """SSIM at every voxel, with a uniform window and sample covariance."""

  def mean(volume: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(volume, _UNIFORM)

  voxels = _UNIFORM**x.ndim
  return ssim_of_means(
    x, y, mean, data_range=data_range, unbiased=voxels / (voxels - 1)
  )


_ERRORS_PRINTED = {'mae': 'MAE {:.1f} HU', 'psnr': 'PSNR {:.2f} dB'}
_GRID = '3-D, all usable slices of a case on the grid of the store'

OFFICIAL: Mapping[str, Official] = {
  'synthrad2023': Official(
    title='SynthRAD2023',
    function=synthrad2023,
    refusal=_off_faces,
    printed=_ERRORS_PRINTED | {'ssim': 'SSIM {:.4f}'},
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
  'synthrad2025': Official(
    title='SynthRAD2025',
    function=synthrad2025,
    refusal=_off_coarse_faces,
    printed=_ERRORS_PRINTED | {'ms_ssim': 'MS-SSIM {:.4f}'},
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
  'brasyn': Official(
    title='BraSyn',
    function=brasyn,
    refusal=_constant,
    printed={'ssim': 'SSIM {:.4f}'},
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
}
