"""Image metrics of one case with their definitions: SSIM, PSNR, MAE, roughness.

Publications differ in range, mask and dimension, so every result file states
the definitions of its numbers. `METRICS` has one row per metric; projects add
rows with `register_metric`. Scores of whole volumes are in `volume_scores`.

A metric that compares voxels of neighbouring slices has no meaning for slices
that are picked from a volume: it is left out where slices are not adjacent.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from synermedgen_jax.evaluation.ssim import (
  WINDOW,
  slice_ssim_map,
  volume_ssim_map,
)

_RADIUS = WINDOW // 2
_MIN_MSE = 1e-10  # limits PSNR to 100 dB, so that means stay finite
_SMOOTH = 1e-6  # two constant images have the ratio 1

Mask = Bool[np.ndarray, 'z h w'] | None


@dataclasses.dataclass(frozen=True)
class CaseImages:
  """Synthesised and acquired images of a case, the input of a metric.

  Attributes:
    prediction: synthesised slices; [0, 1] spans the target's window.
    truth: acquired slices, on the same scale.
    unit_range: low and high of that window, in physical units.
    indices: indices of the slices in their volume.
  """

  prediction: Float[np.ndarray, 'z h w']
  truth: Float[np.ndarray, 'z h w']
  unit_range: tuple[float, float]
  indices: Int[np.ndarray, ' z']

  @property
  def adjacent(self) -> bool:
    """Whether there are several slices, each next to the one before."""
    return len(self.indices) > 1 and bool((np.diff(self.indices) == 1).all())

  @functools.cached_property
  def error(self) -> Float[np.ndarray, 'z h w']:
    """Prediction minus truth, float64."""
    return self.prediction.astype(np.float64) - self.truth

  @functools.cached_property
  def ssim_maps(self) -> Float[np.ndarray, 'z h w']:
    """SSIM at every pixel of every slice, 2-D."""
    return slice_ssim_map(self.prediction, self.truth, data_range=1.0)

  @functools.cached_property
  def ssim_volume(self) -> Float[np.ndarray, 'z h w']:
    """SSIM at every voxel, 3-D; only for adjacent slices."""
    return volume_ssim_map(self.prediction, self.truth, data_range=1.0)


@dataclasses.dataclass(frozen=True)
class Metric:
  """One number of a case.

  Attributes:
    function: (images, mask) -> value. The mask marks the voxels to score;
      None = the full frame.
    definition: property -> text, for example range, mask, full_frame,
      dimension; `unit` is required.
    across_slices: it compares neighbouring slices, so that only cases with
      adjacent slices have it.
  """

  function: Callable[[CaseImages, Mask], float]
  definition: Mapping[str, str]
  across_slices: bool


METRICS: dict[str, Metric] = {}


def register_metric(
  name: str,
  function: Callable[[CaseImages, Mask], float],
  definition: Mapping[str, str],
  *,
  across_slices: bool = False,
) -> Metric:
  """Registers a metric, which `evaluate` then computes for every case.

  Args:
    name: key in metrics.json and heading of the metric's column.
    function, definition, across_slices: see `Metric`.

  Raises:
    ValueError: the name is registered already, or the definition has no unit.
  """
  if name in METRICS:
    raise ValueError(f'Metric {name!r} is registered already.')
  if 'unit' not in definition:
    raise ValueError(f'Metric {name!r}: the definition has no unit.')
  METRICS[name] = Metric(function, definition, across_slices)
  return METRICS[name]


def definitions() -> dict[str, Mapping[str, str]]:
  """Metric -> its definition."""
  return {name: metric.definition for name, metric in METRICS.items()}


def case_metrics(
  prediction: Float[np.ndarray, 'z h w'],
  truth: Float[np.ndarray, 'z h w'],
  *masks: Mask,
  unit_range: tuple[float, float],
  indices: Int[np.ndarray, ' z'],
) -> list[dict[str, float]]:
  """Computes the registered metrics of one case.

  Args:
    prediction: synthesised slices; [-1, 1] spans the target's window, and
      values outside are clipped.
    truth: acquired slices, on the same scale.
    masks: voxels to score; None = the full frame.
    unit_range: low and high of the target's window, in physical units.
    indices: indices of the slices in their volume.

  Returns:
    For each mask: metric -> value; ssim, psnr in dB, mae in the unit of
    `unit_range`, and the other registered metrics. Those that compare
    neighbouring slices are missing unless there are two or more slices, all
    adjacent.

  Raises:
    ValueError: shapes differ, a mask is empty or has no two neighbours, or a
      voxel is not finite.
  """
  if prediction.shape != truth.shape:
    raise ValueError(
      f'Prediction {prediction.shape} and truth {truth.shape} differ in shape.'
    )
  for mask in masks:
    _check_mask(mask, truth.shape)
  for name, volume in (('prediction', prediction), ('truth', truth)):
    if not np.isfinite(volume).all():
      raise ValueError(f'The {name} has voxels that are not finite.')
  images = CaseImages(
    *(
      (np.clip(volume, -1, 1).astype(np.float32) + 1) / 2
      for volume in (prediction, truth)
    ),
    unit_range,
    indices,
  )
  return [
    {
      name: float(metric.function(images, mask))
      for name, metric in METRICS.items()
      if images.adjacent or not metric.across_slices
    }
    for mask in masks
  ]


def _check_mask(mask, shape) -> None:
  if mask is None:
    return
  if mask.shape != shape or mask.dtype != bool:
    raise ValueError(
      f'The mask needs shape {shape} and dtype bool, got {mask.shape} '
      f'and {mask.dtype}.'
    )
  if not mask.any():
    raise ValueError('The mask has no voxel to score.')


def _ssim(images: CaseImages, mask: Mask) -> float:
  return _mean_of_map(images.ssim_maps, mask)


def _ssim_3d(images: CaseImages, mask: Mask) -> float:
  return _mean_of_map(images.ssim_volume, mask)


def _mean_of_map(values: np.ndarray, mask: Mask) -> float:
  inside = slice(_RADIUS, -_RADIUS)
  return (values[:, inside, inside] if mask is None else values[mask]).mean()


def _masked_error(images: CaseImages, mask: Mask) -> np.ndarray:
  return images.error if mask is None else images.error[mask]


def _case_psnr(images: CaseImages, mask: Mask) -> float:
  return psnr_of(np.mean(_masked_error(images, mask) ** 2), 1.0)


def _mae(images: CaseImages, mask: Mask) -> float:
  low, high = images.unit_range
  return np.abs(_masked_error(images, mask)).mean() * (high - low)


register_metric(
  'ssim',
  _ssim,
  {
    'range': 'images clipped to the window of the target, mapped to [0, 1]',
    'mask': 'mean over the body mask of all slices of a case',
    'full_frame': 'mean over all pixels at least 5 from the edge',
    'dimension': '2-D, one map per slice',
    'window': 'Gaussian, sigma 1.5, 11 x 11, population covariance',
    'unit': '1, at most 1; higher is better',
  },
)
register_metric(
  'psnr',
  _case_psnr,
  {
    'range': 'images clipped to the window of the target, mapped to [0, 1]',
    'mask': 'from the mean squared error over the body mask of a case',
    'full_frame': 'from the mean squared error over all voxels of a case',
    'dimension': '3-D, one error per case',
    'unit': 'dB, at most 100; higher is better',
  },
)
register_metric(
  'mae',
  _mae,
  {
    'range': 'images clipped to the window of the target, in physical units',
    'mask': 'mean over the body mask of a case',
    'full_frame': 'mean over all voxels of a case',
    'dimension': '3-D, one error per case',
    'unit': 'that of the target: HU, SUV or a.u.; lower is better',
  },
)
# Every result file has these metrics; others are optional.
BUILT_IN = tuple(METRICS)


def _roughness(images: CaseImages, mask: Mask, *, axes: Sequence[int]) -> float:
  prediction, truth = (
    _steps_between_neighbours(x, mask, axes)
    for x in (images.prediction, images.truth)
  )
  return (prediction + _SMOOTH) / (truth + _SMOOTH)


def _steps_between_neighbours(
  image: np.ndarray, mask: Mask, axes: Sequence[int]
) -> float:
  """Mean absolute difference of neighbours along some axes."""
  total, count = 0.0, 0
  for axis in axes:
    steps = np.abs(np.diff(image.astype(np.float64), axis=axis))
    if mask is not None:
      both = np.moveaxis(mask, axis, 0)
      steps = np.moveaxis(steps, axis, 0)[both[1:] & both[:-1]]
    total, count = total + steps.sum(), count + steps.size
  if not count:
    raise ValueError(f'The mask has no two neighbours along axes {axes}.')
  return total / count


register_metric(
  'roughness',
  functools.partial(_roughness, axes=(1, 2)),
  {
    'range': 'images clipped to the window of the target, mapped to [0, 1]',
    'mask': 'mean absolute difference of pixels that are neighbours along '
    'rows or columns, both in the body mask; synthesis over truth',
    'full_frame': 'the same of all pixels',
    'dimension': '2-D, one ratio per case',
    'unit': '1; below 1 is smoother than the truth, above 1 rougher',
  },
)
register_metric(
  'roughness_z',
  functools.partial(_roughness, axes=(0,)),
  {
    'range': 'images clipped to the window of the target, mapped to [0, 1]',
    'mask': 'mean absolute difference of voxels that are neighbours across '
    'slices, both in the body mask; synthesis over truth',
    'full_frame': 'the same of all voxels',
    'dimension': 'across slices, one ratio per case; the spacing of slices '
    'cancels in it',
    'slices': 'two or more, adjacent in the volume',
    'unit': '1; below 1 is smoother than the truth, above 1 rougher',
  },
  across_slices=True,
)
register_metric(
  'ssim_3d',
  _ssim_3d,
  {
    'range': 'images clipped to the window of the target, mapped to [0, 1]',
    'mask': 'mean over the body mask of a case',
    'full_frame': 'mean over all slices, of voxels at least 5 from the edge of '
    'their slice',
    'dimension': '3-D, one map per case, in voxels of the store, whose '
    'spacing across slices may differ from that in a slice',
    'window': 'Gaussian, sigma 1.5, 11 x 11 x 11 voxels, population '
    'covariance; the volume of scored slices is mirrored at its faces, so '
    'slices may be fewer than 11',
    'slices': 'two or more, adjacent in the volume',
    'unit': '1, at most 1; higher is better',
  },
  across_slices=True,
)


def psnr_of(mse: float, data_range: float) -> float:
  """PSNR in dB, at most 100.

  Args:
    mse: mean squared error, in the squared unit of `data_range`.
    data_range: largest minus smallest possible value.
  """
  return float(10 * np.log10(1 / max(mse / data_range**2, _MIN_MSE)))
