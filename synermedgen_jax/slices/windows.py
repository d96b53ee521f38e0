"""Windows: which physical values the model sees, and where the body is."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality

_MR_TOP = 99.5  # percentile of the voxels above zero
_MR_BOTTOM = 0.5  # percentile, where many voxels are negative
_MR_SIGNED = 0.05  # share of negative voxels that interpolation cannot explain
_BODY_HU = -500.0
_BODY_SUV = 0.1
_BODY_MR = 0.1  # of the window


@dataclasses.dataclass(frozen=True)
class Window:
  """A range of physical values; values beyond it are clipped."""

  low: float
  high: float

  def __post_init__(self):
    if not self.low < self.high:
      raise UserError(f'A window needs low < high, got {self}.')

  def normalise(self, data: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Physical units to [-1, 1], clipped."""
    x = (data - self.low) / (self.high - self.low) * 2 - 1
    return np.clip(x, -1, 1).astype(np.float32)

  def denormalise(self, data: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """[-1, 1] back to physical units."""
    x = (data + 1) / 2 * (self.high - self.low) + self.low
    return x.astype(np.float32)


# In HU and SUV; modalities without a physical scale have none.
FIXED_WINDOWS: Mapping[Modality, Window] = types.MappingProxyType(
  {
    Modality.CT: Window(-1000.0, 1000.0),
    Modality.CBCT: Window(-1000.0, 1000.0),
    Modality.PET: Window(0.0, 10.0),
  }
)


def parse_windows(text: str) -> dict[Modality, Window]:
  """Parses `ct:-1000:2000,pet:0:20`; UserError names a bad part."""
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
  """The fixed windows, and over them those of a store or a run."""
  return {
    **FIXED_WINDOWS,
    **{Modality(name): Window(**ends) for name, ends in stored.items()},
  }


def choose_window(
  modality: Modality,
  data: Float[np.ndarray, ...],
  fixed: Mapping[Modality, Window] = FIXED_WINDOWS,
) -> Window:
  """The window of a volume.

  CT, CBCT and PET have the `fixed` ones. MR, whose scale means nothing across
  scanners: 0 to the 99.5th percentile of the voxels above 0 of this very
  volume, or from the 0.5th percentile where negative values are more than an
  odd voxel (z-scored images). Zeros do not count: they are the background of
  images without a skull.
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
  """Where the body is: thresholded, its largest piece, holes filled.

  The threshold is -500 HU, 0.1 SUV, or a tenth of an MR window.

  Args:
    modality: chooses the threshold.
    slices: physical units.
    window: of the volume.
  """
  if modality in (Modality.CT, Modality.CBCT):
    threshold = _BODY_HU
  elif modality is Modality.PET:
    threshold = _BODY_SUV
  else:
    threshold = window.low + _BODY_MR * (window.high - window.low)
  above = ndimage.gaussian_filter(slices, (0, 1, 1), mode='nearest') > threshold
  if modality.unit == 'a.u.' and window.low < 0:
    above &= slices != 0  # a z-scored brain: zero is mid-window, and air
  found = ndimage.binary_opening(above, np.ones((1, 3, 3)))
  labels, count = ndimage.label(found)
  if not count:
    return np.zeros(slices.shape, bool)
  sizes = np.bincount(labels.ravel())[1:]
  # Arms and legs are pieces of their own: keep all of a fair size.
  body = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.05 * sizes.max()))
  return np.stack([ndimage.binary_fill_holes(plane) for plane in body])
