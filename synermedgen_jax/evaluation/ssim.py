"""Structural similarity at every voxel (Wang et al. 2004), in 2-D and 3-D."""

from __future__ import annotations

import functools
from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import ndimage

_SIGMA, _TRUNCATE = 1.5, 3.5
WINDOW = 11  # voxels of the truncated Gaussian
_RADIUS = WINDOW // 2


@functools.partial(jax.jit, static_argnames='data_range')
def _slice_by_slice(x: jax.Array, y: jax.Array, data_range: float):
  def of_slice(pair):
    values = dm_pix.ssim(
      *(jnp.pad(image, _RADIUS, mode='symmetric')[..., None] for image in pair),
      max_val=data_range,
      filter_size=WINDOW,
      return_map=True,
    )
    return values[..., 0]

  return jax.lax.map(of_slice, (x, y))


def slice_ssim_map(
  x: Float[np.ndarray, 'z h w'],
  y: Float[np.ndarray, 'z h w'],
  *,
  data_range: float,
) -> Float[np.ndarray, 'z h w']:
  """SSIM at every pixel of every slice, with a window of 11 x 11 pixels.

  Gaussian window of sigma 1.5, population covariance. Slices are mirrored at
  their edges, so the map has their shape.

  Args:
    x: slices, in any unit.
    y: the other ones, in the same unit.
    data_range: largest minus smallest possible value, in that unit.

  Returns:
    The map, float32.

  Raises:
    ValueError: shapes differ, or rows or columns are fewer than 11.
  """
  _check_shapes(x, y)
  x, y = (np.asarray(image, np.float32) for image in (x, y))
  return np.asarray(_slice_by_slice(x, y, float(data_range)))


def stored_slice_ssim_map(
  x: Float[np.ndarray, 'z h w'], y: Float[np.ndarray, 'z h w']
) -> Float[np.ndarray, 'z h w']:
  """`slice_ssim_map` of stored slices, on the scale of the reported SSIM.

  The luminance term of SSIM depends on the zero of the scale, so slices in
  [-1, 1] are clipped and put on [0, 1], as by `metrics`.
  """
  x, y = ((np.clip(image, -1, 1) + 1) / 2 for image in (x, y))
  return slice_ssim_map(x, y, data_range=1.0)


def volume_ssim_map(
  x: Float[np.ndarray, 'z h w'],
  y: Float[np.ndarray, 'z h w'],
  *,
  data_range: float,
) -> Float[np.ndarray, 'z h w']:
  """SSIM at every voxel, with a window of 11 x 11 x 11 voxels.

  As `slice_ssim_map`, with a window that extends across slices too. The volume
  is mirrored at all its faces, so it may be thinner than the window.

  Args:
    x, y, data_range: as of `slice_ssim_map`.

  Returns:
    The map, float64.

  Raises:
    ValueError: shapes differ, or rows or columns are fewer than 11.
  """
  _check_shapes(x, y)
  return ssim_of_means(
    np.asarray(x, np.float64),
    np.asarray(y, np.float64),
    gaussian_mean,
    data_range=data_range,
  )


def _check_shapes(x: np.ndarray, y: np.ndarray) -> None:
  if x.shape != y.shape:
    raise ValueError(f'SSIM needs equal shapes, got {x.shape} and {y.shape}.')
  if min(x.shape[-2:]) < WINDOW:
    raise ValueError(
      f'SSIM needs images of at least {WINDOW} x {WINDOW} pixels, '
      f'got {x.shape}.'
    )


def gaussian_mean(
  image: Float[np.ndarray, '*shape'], *, mode: str = 'reflect'
) -> Float[np.ndarray, '*shape']:
  """The mean within a Gaussian window of sigma 1.5 at every voxel.

  Args:
    image: an image or a volume.
    mode: how the image continues beyond its edges, as scipy.ndimage names it.
  """
  return ndimage.gaussian_filter(image, _SIGMA, truncate=_TRUNCATE, mode=mode)


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
