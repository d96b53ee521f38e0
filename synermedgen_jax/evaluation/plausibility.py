"""Refuses outputs of other programs that cannot be what they are named.

They are turned, in another unit, or elsewhere on the canvas. Each is found by
comparison with the truth; units also by their known values. A poor output
passes: one that is blurred, the mean of the training subjects, or the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.fft
from jaxtyping import Float

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.core.size import size_text
from synermedgen_jax.evaluation.output_files import OutputError
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import Volume

Images = Float[np.ndarray, 'z h w']

# Each is its own inverse, which `turned` relies on.
_TURNS: Mapping[str, Callable[[Images], Images]] = {
  'upside down': lambda v: v[:, ::-1],
  'mirrored from left to right': lambda v: v[:, :, ::-1],
  'turned by 180 degrees': lambda v: v[:, ::-1, ::-1],
  'transposed': lambda v: v.swapaxes(1, 2),
  'in reverse order of slices': lambda v: v[::-1],
}
_OPPOSITE = -0.5  # correlation of the asymmetric parts
_ALIKE = 0.5  # correlation after the turn
_LEAST = 1e-3  # root mean square of an asymmetric part; less is rounding
_RANGE = (1.0, 99.0)  # percentiles of the values in the body
_MOST_SLOPE = 2.0  # of a line through the values of an output and the truth
_ENOUGH = 100  # voxels that a range needs
ON_GRID_MM = 1e-3  # tolerance of equal affines
_COMPARED = 8  # slices of a case, evenly spaced, whose size is judged
_BETTER = 0.005  # by which another placement has to fit better


def turned(prediction: Images, truth: Images) -> str:
  """How an output is turned against the truth; '' = not, or not detectable.

  A turn F divides an image v into (v + F v) / 2 and (v - F v) / 2. Only the
  second, asymmetric part changes, and it changes its sign. Images are turned
  if their asymmetric parts are opposite and they are alike after the turn. An
  image that the turn leaves as it is passes, as does an output that does not
  resemble the truth.

  Args:
    prediction: slices of a case, in [-1, 1].
    truth: the acquired slices.
  """
  found, most = '', 0.0
  for name, turn in _TURNS.items():
    back = turn(prediction)
    if back.shape != truth.shape:
      continue
    own, other = prediction - back, truth - turn(truth)
    if min(own.std(), other.std()) < _LEAST:
      continue
    gain = -float(np.vdot(own, other))
    opposite = -gain / float(np.linalg.norm(own) * np.linalg.norm(other))
    if (
      gain > most
      and opposite < _OPPOSITE
      and np.corrcoef(back.ravel(), truth.ravel())[0, 1] > _ALIKE
    ):
      found, most = name, gain
  return found


def check_turn(path: Path, what: str, images: Images, truth: Images) -> None:
  """Refuses images that are turned or mirrored.

  Args:
    path: their first file, for the message.
    what: modality and case, for the message.
    images, truth: as in `turned`.

  Raises:
    OutputError: one line with the file and the turn.
  """
  if turn := turned(images, truth):
    raise OutputError(
      f'{path}: the {what} appears {turn}; correct it, or accept it with '
      '--force.'
    )


def check_slices(
  path: Path, target: Modality, slices: Sequence[np.ndarray], case: Case
) -> None:
  """Refuses slices of a case with values that their unit does not have.

  Args:
    path: file of the first slice, for the message.
    target: modality that the slices are meant to be.
    slices: values of the files, in any shapes.
    case: the case.

  Raises:
    VolumeError: one line with the file and the values.
  """
  values = np.concatenate([image.ravel() for image in slices])
  # One column as long as the case: the limits of SUV depend on the length.
  spacing = np.linalg.norm(np.array(case.affine)[:3, :3], axis=0)
  length = float((spacing * case.shape[::-1]).max())
  affine = np.diag([length / values.size, 1e-3, 1e-3, 1])
  column = Volume(values[:, None, None], affine)
  check_units(path, target, column, override='--force')


def check_scale(
  path: Path,
  what: str,
  values: Float[np.ndarray, ' n'],
  truth: Float[np.ndarray, ' n'],
) -> None:
  """Refuses values on another scale than those of the truth.

  Both are limited to their 1st and 99th percentile. The ranges have to meet,
  and the regression lines of the output on the truth and of the truth on the
  output may have slopes of at most 2. A blurred or mean image passes: its range
  is narrow, but it is unlike the truth to the same degree, so that the line of
  the truth on it has a slope near 1.

  Args:
    path: the first file, for the message.
    what: modality and case, for the message.
    values: the output in the body, in the unit of the target, not clipped.
    truth: the truth at the same voxels.

  Raises:
    OutputError: one line with the file and both ranges.
  """
  if truth.size < _ENOUGH or truth.min() == truth.max():
    return
  ranges = [np.percentile(x, _RANGE) for x in (values, truth)]
  (low, high), (least, most) = ranges
  x, y = (
    np.clip(v.astype(float), *ends)
    for v, ends in zip((values, truth), ranges, strict=True)
  )
  x, y = x - x.mean(), y - y.mean()
  joint, limit = float(x @ y), _MOST_SLOPE
  if (
    low > most
    or high < least
    or joint > limit * float(x @ x)
    or joint > limit * float(y @ y)
  ):
    raise OutputError(
      f'{path}: the {what} has values from {low:.4g} to {high:.4g} in the '
      f'body, the truth from {least:.4g} to {most:.4g} (1st to 99th '
      'percentile): another unit or scale; convert it, state its range or '
      'window in a table, or accept it with --force.'
    )


def fits(
  image: Float[np.ndarray, ...], truth: Float[np.ndarray, ...]
) -> tuple[float, float]:
  """How well an image fits the truth at its first voxel, and at its best place.

  The fit is the cosine between the image and the part of the truth that it
  covers, both in [-1, 1] with black as zero. Every place is tried at which, on
  each axis, the smaller of the two lies within the larger.

  Args:
    image: an output of any shape, not resized.
    truth: the truth, with as many axes.

  Returns:
    Two numbers up to 1; 0 for black images.
  """
  room = np.subtract(truth.shape, image.shape)
  places = [np.arange(min(r, 0), max(r, 0) + 1) for r in room.tolist()]
  shape = np.maximum(image.shape, truth.shape)
  image, truth = np.float64(image) + 1, np.float64(truth) + 1
  size, whole = np.linalg.norm(image), np.linalg.norm(truth)
  if not size or not whole:
    return 0.0, 0.0
  product = _products(image, truth, shape)[np.ix_(*places)]
  energy = _products(np.ones_like(image), truth**2, shape)[np.ix_(*places)]
  # The rounding of the transforms, where the truth is black.
  least = 1e-6 * whole
  fit = product / (size * np.maximum(np.sqrt(np.maximum(energy, 0)), least))
  first = tuple(int(np.flatnonzero(p == 0)[0]) for p in places)
  return float(fit[first]), float(fit.max())


def _products(
  image: Float[np.ndarray, ...], truth: Float[np.ndarray, ...], shape
) -> Float[np.ndarray, ...]:
  """Inner products of an image that is shifted in a circle, by the shift."""
  # Lengths of small prime factors are fast; black fills the rest.
  fast = [scipy.fft.next_fast_len(int(n), real=True) for n in shape]
  spectra = [scipy.fft.rfftn(x, fast) for x in (truth, image)]
  return scipy.fft.irfftn(spectra[0] * spectra[1].conj(), fast)


def check_resized(
  path: Path,
  images: Sequence[Float[np.ndarray, '_ _']],
  resized: Images,
  truth: Images,
) -> None:
  """Refuses images of another size that were cropped or padded, not resized.

  Args:
    path: the file of the first image, for the message.
    images: images as they were written, in [-1, 1].
    resized: the same images, resized to the canvas.
    truth: the truth of the same slices.

  Raises:
    OutputError: they fit the truth better as they were written.
  """
  rows = np.unique(np.linspace(0, len(images) - 1, _COMPARED).astype(int))
  written = np.mean([fits(images[i], truth[i])[1] for i in rows])
  fit = np.mean([fits(resized[i], truth[i])[0] for i in rows])
  if written > fit + _BETTER:
    raise OutputError(
      f'{path}: has {size_text(images[0].shape)} pixels, the canvas '
      f'{size_text(truth[0].shape)}, and fits the truth better as it is than '
      f'resized ({written:.3f}, {fit:.3f}): it appears cropped or padded. '
      'Write it on the canvas, name the box of a crop by --crop, or accept it '
      'with --force.'
    )


def check_origin(
  path: Path, volume: Float[np.ndarray, '_ _ _'], truth: Images
) -> None:
  """Refuses a crop of the grid that kept the affine of the whole grid.

  Args:
    path: the file, for the message.
    volume: slices of a volume with the affine of the grid and another shape,
      in [-1, 1].
    truth: all slices of the truth.

  Raises:
    OutputError: the volume fits the truth better at another place.
  """
  stated, best = fits(volume, truth)
  if best > stated + _BETTER:
    shapes = [' x '.join(map(str, x.shape[::-1])) for x in (volume, truth)]
    raise OutputError(
      f'{path}: has {shapes[0]} voxels and the affine of the whole grid of '
      f'{shapes[1]}, but fits the truth better elsewhere ({best:.3f}, here '
      f'{stated:.3f}): it appears cropped; write the affine of its own first '
      'voxel, or accept it with --force.'
    )
