"""Image scores of challenges: SynthRAD2023, SynthRAD2025 and BraSyn.

They are for comparison with the papers of a challenge. Each is a function of
two volumes in physical units and a mask, and follows the evaluation program of
its challenge:

    official.synthrad2025(synthesis, truth, mask)  # {'mae', 'psnr', 'ms_ssim'}

`off_faces`, `off_coarse_faces` and `constant` state why a case cannot have such
a score. `volume_scores` has the table that the commands read.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synermedgen_jax.evaluation.metrics import psnr_of
from synermedgen_jax.evaluation.ssim import gaussian_mean, ssim_of_means
from synermedgen_jax.evaluation.volume_checks import Mask, Volume, require

_AIR = -1024.0  # HU outside the mask, and the lower end of both ranges
_UNIFORM = 7  # voxels
_OFF_FACES = (slice(_UNIFORM // 2, -(_UNIFORM // 2)),) * 3
# Exponents of five scales, the finest first: Wang et al. 2003, section 3.2.
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_STRIDE = 2 ** (len(_SCALES) - 1)  # voxels of the finest scale
# Fewest voxels of an axis: 97, 49, 25, 13, 7 at the five scales.
_LEAST = (_UNIFORM - 1) * _STRIDE + 1
_PERCENTILES = (0.5, 99.5)


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
    VolumeScoreError: shapes differ, a value is not finite, or no mask voxel is
      at least 3 voxels from every face.
  """
  require(synthesis, truth, mask, off_faces)
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
    VolumeScoreError: shapes differ, a value is not finite, or no mask voxel is
      at least 3 voxels from every face of the coarsest scale.
  """
  require(synthesis, truth, mask, off_coarse_faces)
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
    VolumeScoreError: shapes differ, a value is not finite, or the acquired
      volume is constant in the mask.
  """
  require(synthesis, truth, mask, constant)
  x, y = (_stretch(volume) * mask for volume in (synthesis, truth))

  def mean(volume: np.ndarray) -> np.ndarray:
    return gaussian_mean(volume, mode='mirror')

  values = ssim_of_means(x, y, mean, data_range=max(np.ptp(x), np.ptp(y)))
  return {'ssim': float(values.mean())}


def off_faces(truth: Volume, mask: Mask) -> str:
  """Why `synthrad2023` cannot score a case."""
  del truth  # only the mask decides
  if mask[_OFF_FACES].any():
    return ''
  return 'has no body voxel at least 3 voxels from every face'


def off_coarse_faces(truth: Volume, mask: Mask) -> str:
  """Why `synthrad2025` cannot score a case."""
  del truth
  # These voxels are off the faces at the finer scales too.
  if _extend(mask)[::_STRIDE, ::_STRIDE, ::_STRIDE][_OFF_FACES].any():
    return ''
  return (
    'has no body voxel at least 3 voxels from every face of the coarsest of '
    'five scales'
  )


def constant(truth: Volume, mask: Mask) -> str:
  """Why `brasyn` cannot score a case."""
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
