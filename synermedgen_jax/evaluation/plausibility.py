"""Finds outputs of other programs that are turned or in a wrong unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation.output_files import OutputError
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

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
_NORMALISED = 2.01  # span of values in [-1, 1]
_SPAN = 50.0  # of a window that is not normalised
_MOST_GREY = 255
_SAME_SCALE = 1.25  # factor between an 8-bit image and a window


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


def check_volume(
  path: Path, target: Modality, volume: Volume, window: Window
) -> None:
  """Refuses a volume whose values are in another unit.

  Args:
    path: its file, for the message.
    target: modality that the volume is meant to be.
    volume: the volume.
    window: window of the target in the store.

  Raises:
    VolumeError, OutputError: one line with the file and the values.
  """
  check_units(path, target, volume, override='--force')
  if target.unit == 'a.u.' and (sign := other_scale(volume.data, window)):
    raise OutputError(
      f'{path}: {sign}; convert it, state its range in a table, or accept it '
      'with --force.'
    )


def check_slices(
  path: Path, target: Modality, slices: Sequence[np.ndarray], case: Case
) -> None:
  """Refuses slices of a case whose values are in another unit.

  Args:
    path: file of the first slice, for the message.
    target: modality that the slices are meant to be.
    slices: values of the files, in any shapes.
    case: the case.

  Raises:
    VolumeError, OutputError: as `check_volume`.
  """
  values = np.concatenate([image.ravel() for image in slices])
  # One column as long as the case: the limits of SUV depend on the length.
  spacing = np.linalg.norm(np.array(case.affine)[:3, :3], axis=0)
  length = float((spacing * case.shape[::-1]).max())
  affine = np.diag([length / values.size, 1e-3, 1e-3, 1])
  column = Volume(values[:, None, None], affine)
  check_volume(path, target, column, case.modalities[target])


def other_scale(values: Float[np.ndarray, ...], window: Window) -> str:
  """The sign that values of an MR are not on the scale of its window.

  MR has no unit, so only normalised and 8-bit values are recognised.

  Args:
    values: numbers of the output.
    window: window of the target in the store.

  Returns:
    A clause for a message; '' = no sign.
  """
  low, high = float(values.min()), float(values.max())
  span = window.high - window.low
  stated = f'but black and white are {window.low:g} and {window.high:g}'
  if high - low <= _NORMALISED and span > _SPAN:
    return f'values from {low:g} to {high:g} are normalised, {stated}'
  scale = span / _MOST_GREY
  if (
    low >= 0
    and _MOST_GREY - 5 <= high <= _MOST_GREY
    and not 1 / _SAME_SCALE < scale < _SAME_SCALE
    and np.array_equal(values, np.round(values))
  ):
    return f'whole numbers from {low:g} to {high:g} are 8-bit values, {stated}'
  return ''
