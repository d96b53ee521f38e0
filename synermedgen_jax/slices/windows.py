"""Intensity windows of the modalities, and the body mask."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.volumes import Volume

_MR_TOP = 99.5  # percentile of the voxels above zero
_MR_BOTTOM = 0.5  # percentile of z-scored images
_MR_SIGNED = 0.05  # a larger share of negative voxels is a z-scored image
_BODY_HU = -500.0
_BODY_SUV = 0.1
_BODY_MR = 0.1  # share of the window


@dataclasses.dataclass(frozen=True)
class Window:
  """A range of physical values; values beyond it are clipped."""

  low: float
  high: float

  def __post_init__(self):
    if not self.low < self.high:
      raise UserError(f'A window needs low < high, got {self}.')

  def clip(self, volume: Volume) -> Volume:
    """The volume with its values limited to the window.

    Clip before resampling: a voxel of padding or metal, far outside the window,
    would otherwise shift its neighbours by hundreds of HU.
    """
    return Volume(np.clip(volume.data, self.low, self.high), volume.affine)

  def normalise(self, data: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Physical units to [-1, 1], clipped."""
    return np.clip(self.relative(data), -1, 1)

  def relative(self, data: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Physical units to [-1, 1]; values beyond the window are beyond it."""
    x = (data - self.low) / (self.high - self.low) * 2 - 1
    return x.astype(np.float32)

  def denormalise(self, data: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """[-1, 1] back to physical units."""
    x = (data + 1) / 2 * (self.high - self.low) + self.low
    return x.astype(np.float32)


# HU and SUV; MR has no physical scale, so it has no fixed window.
FIXED_WINDOWS: Mapping[Modality, Window] = types.MappingProxyType(
  {
    Modality.CT: Window(-1000.0, 1000.0),
    Modality.CBCT: Window(-1000.0, 1000.0),
    Modality.PET: Window(0.0, 10.0),
  }
)


def parse_windows(text: str) -> dict[Modality, Window]:
  """Parses windows such as `ct:-1000:2000,pet:0:20`.

  Raises:
    UserError: a part is invalid; the message quotes it.
  """
  windows = {}
  for part in filter(None, text.split(',')):
    name, *ends = part.split(':')
    try:
      low, high = map(float, ends)
    except ValueError:
      raise UserError(f'{part!r}: expected modality:low:high.') from None
    windows[Modality.parse(name)] = Window(low, high)
  return windows


def windows_from_json(
  stored: Mapping[str, Mapping[str, float]],
) -> dict[Modality, Window]:
  """`FIXED_WINDOWS`, overridden by the windows of a store or a run."""
  return {
    **FIXED_WINDOWS,
    **{Modality(name): Window(**ends) for name, ends in stored.items()},
  }


def choose_window(
  modality: Modality,
  data: Float[np.ndarray, ...],
  fixed: Mapping[Modality, Window] = FIXED_WINDOWS,
) -> Window:
  """Chooses the window of a volume.

  Modalities in `fixed`, by default CT, CBCT and PET, have their fixed window.
  MR intensities are not comparable across scanners, so the window depends on
  the volume: from 0 to the 99.5th percentile of the voxels above 0, or from the
  0.5th percentile if more than 5 % of the voxels are negative (z-scored
  images). Zeros are ignored, as the background of skull-stripped images.

  Args:
    modality: modality of the volume.
    data: its values, in any shape.
    fixed: windows that apply to all volumes of a modality.

  Raises:
    UserError: no voxel is above the background.
  """
  if modality in fixed:
    return fixed[modality]
  low = 0.0
  image = data[data != 0]
  if image.size and np.mean(image < 0) > _MR_SIGNED:
    low = float(np.percentile(image, _MR_BOTTOM))
  positive = image[image > low]
  if not positive.size:
    raise UserError('no voxel is above the background.')
  return Window(low, float(np.percentile(positive, _MR_TOP)))


def body_mask(
  modality: Modality, slices: Float[np.ndarray, 'z h w'], window: Window
) -> Bool[np.ndarray, 'z h w']:
  """Segments the body: threshold, large components, holes filled.

  The threshold is -500 HU, 0.1 SUV, or 10 % of an MR window.

  Args:
    modality: modality of the slices, which selects the threshold.
    slices: values in physical units.
    window: window of the volume by `choose_window`, whatever that of a store.
  """
  if modality in (Modality.CT, Modality.CBCT):
    threshold = _BODY_HU
  elif modality is Modality.PET:
    threshold = _BODY_SUV
  else:
    threshold = window.low + _BODY_MR * (window.high - window.low)
  above = ndimage.gaussian_filter(slices, (0, 1, 1), mode='nearest') > threshold
  if modality.unit == 'a.u.' and window.low < 0:
    above &= slices != 0  # z-scored: the background is zero, inside the window
  opened = ndimage.binary_opening(above, np.ones((1, 3, 3)))
  labels, count = ndimage.label(opened)
  if not count:
    return np.zeros(slices.shape, bool)
  sizes = np.bincount(labels.ravel())[1:]
  # Arms and legs are separate components.
  body = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.05 * sizes.max()))
  return np.stack([ndimage.binary_fill_holes(plane) for plane in body])
