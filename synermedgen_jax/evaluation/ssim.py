"""Structural similarity at every voxel (Wang et al. 2004), in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

_SIGMA, _TRUNCATE = 1.5, 3.5
WINDOW = 11  # voxels of the truncated Gaussian


def ssim_map(
  x: Float[np.ndarray, '*shape'],
  y: Float[np.ndarray, '*shape'],
  *,
  data_range: float,
  axes: Sequence[int] | None = None,
) -> Float[np.ndarray, '*shape']:
  """SSIM at every voxel, with a Gaussian window.

  The window has sigma 1.5, is 11 voxels wide, and gives population covariance.
  Images are mirrored at their edges, so the map has their shape, and slices may
  be fewer than the window is wide.

  Args:
    x: an image, or slices of shape (z, h, w), in any unit.
    y: the other one, in the same unit.
    data_range: largest minus smallest possible value, in that unit.
    axes: axes that the window extends along, for example (1, 2) for the 2-D
      SSIM of every slice; None = all.

  Returns:
    The map, float64.

  Raises:
    ValueError: shapes differ, or rows or columns are fewer than 11.
  """
  if x.shape != y.shape:
    raise ValueError(f'SSIM needs equal shapes, got {x.shape} and {y.shape}.')
  if x.ndim < 2 or min(x.shape[-2:]) < WINDOW:
    raise ValueError(
      f'SSIM needs images of at least {WINDOW} x {WINDOW} pixels, '
      f'got {x.shape}.'
    )

  def mean(image: np.ndarray) -> np.ndarray:
    return gaussian_mean(image, axes=axes)

  return ssim_of_means(
    np.asarray(x, np.float64),
    np.asarray(y, np.float64),
    mean,
    data_range=data_range,
  )


def gaussian_mean(
  image: Float[np.ndarray, '*shape'],
  *,
  axes: Sequence[int] | None = None,
  mode: str = 'reflect',
) -> Float[np.ndarray, '*shape']:
  """The mean within a Gaussian window of sigma 1.5 at every voxel.

  Args:
    image: an image or a volume.
    axes: axes that the window extends along; None = all.
    mode: how the image continues beyond its edges, as scipy.ndimage names it.
  """
  return ndimage.gaussian_filter(
    image, _SIGMA, truncate=_TRUNCATE, axes=axes, mode=mode
  )


def ssim_of_means(
  x: Float[np.ndarray, '*shape'],
  y: Float[np.ndarray, '*shape'],
  mean: Callable[[np.ndarray], np.ndarray],
  *,
  data_range: float,
  unbiased: float = 1.0,
) -> Float[np.ndarray, '*shape']:
  """SSIM at every voxel, with any window.

  Args:
    x, y: two images or volumes, float64.
    mean: image -> its mean within the window of every voxel.
    data_range: largest minus smallest possible value.
    unbiased: factor of variances and covariance; 1 = population.
  """
  mean_x, mean_y = mean(x), mean(y)
  product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
  variances = unbiased * (mean(x * x + y * y) - squares)
  covariance = unbiased * (mean(x * y) - product)
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  luminance = (2 * product + c1) / (squares + c1)
  return luminance * (2 * covariance + c2) / (variances + c2)
