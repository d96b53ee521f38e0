"""Checks that the values of a volume are in the unit of its modality.

CT and CBCT are in HU, PET in SUV; MR has no unit, so only values that no MR has
are recognised. A check needs clear evidence: volumes cropped to the body, with
metal or with padding pass. Shares are those of a random sample of the voxels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.volumes import Volume, VolumeError

_SAMPLE = 200_000  # voxels
_ENOUGH = 100  # voxels that a share needs
_CONTINUOUS = 16  # fewer distinct values are a drawing, not an image
_PADDING_HU = -1500.0  # scanners pad with -2000, -3024 or -32768
_SPAN_HU = 50.0  # wider than normalised values, narrower than any body in HU
_HOT_SUV = 100.0  # above the 99th percentile of any patient's SUV
# The mean over a body is 1 by definition, over a brain up to 10.
_BODY_SUV = 1.6
_ORGAN_SUV = 15.0
_BODY_MM = 600.0  # a longer volume contains a trunk, not an organ alone


def suspicious_units(modality: Modality, volume: Volume) -> list[str]:
  """Lists signs that the values are not in the modality's unit.

  Args:
    modality: modality that the volume is meant to be.
    volume: the volume.

  Returns:
    One line per sign, beginning with the range of the values; empty = none.
  """
  length = (np.array(volume.data.shape) * volume.spacing).max()
  values = _Values(volume.data, float(length))
  checks = {'HU': _hu, 'SUV': _suv}
  check = checks.get(modality.unit, _mr if modality.family == 'mr' else None)
  signs = [*_wrapped(values)]
  if check and not signs:
    signs = [*check(values, modality)][:1]
  return [f'values from {values.low:g} to {values.high:g}: {s}' for s in signs]


def check_units(
  path: str | Path,
  modality: Modality,
  volume: Volume,
  *,
  override: str,
) -> None:
  """Refuses a volume whose values are not in the unit of its modality.

  Args:
    path: its file, for the message.
    modality: modality that the volume is meant to be.
    volume: the volume.
    override: the flag that accepts the volume, for the message.

  Raises:
    VolumeError: one line with the file, the modality, the values, and remedies.
  """
  for sign in suspicious_units(modality, volume):
    unit = '' if modality.unit == 'a.u.' else f' in {modality.unit}'
    raise VolumeError(
      f'{path}: as {modality.label}{unit}: {sign} Convert the volume or name '
      f'another modality; {override} accepts it.'
    )


@dataclasses.dataclass(frozen=True)
class _Values:
  """The values of a volume, and shares of its voxels.

  Attributes:
    data: the voxels.
    length: the longest side of the volume in mm.
  """

  data: Float[np.ndarray, 'x y z']
  length: float

  @functools.cached_property
  def low(self) -> float:
    return float(self.data.min())

  @functools.cached_property
  def high(self) -> float:
    return float(self.data.max())

  @functools.cached_property
  def sample(self) -> Float[np.ndarray, ' n']:
    """Voxels at random places, the same ones in every run."""
    flat = self.data.reshape(-1)
    if flat.size <= _SAMPLE:
      return flat
    return flat[np.random.default_rng(0).integers(flat.size, size=_SAMPLE)]

  @functools.cached_property
  def image(self) -> Float[np.ndarray, ' n']:
    """The sample without the commonest value, air or background, if it has
    enough other values; padding of a CT is left out too."""
    kept = self.sample[self.sample > _PADDING_HU]
    values, counts = np.unique(kept, return_counts=True)
    if not values.size:
      return kept
    return kept[kept != values[counts.argmax()]]

  @functools.cached_property
  def continuous(self) -> bool:
    """Whether there are enough values to judge their distribution."""
    image = self.image
    return image.size >= _ENOUGH and np.unique(image).size > _CONTINUOUS

  def share(self, low: float = -np.inf, high: float = np.inf) -> float:
    """Share of the sampled voxels from `low` to `high`, both included."""
    return float(np.mean((self.sample >= low) & (self.sample <= high)))


def _wrapped(values: _Values) -> Iterator[str]:
  """Negative numbers read as 16 bits without a sign."""
  if (
    values.low >= 0
    and 60_000 < values.high < 65_536
    and values.share(60_000) > 1e-3
    and values.share(32_768, 60_000) < 1e-4
  ):
    share = values.share(60_000)
    yield (
      f'{share:.1%} of the voxels are above 60000; negative numbers were read '
      'without their sign, 65536 too high.'
    )


def _hu(values: _Values, modality: Modality) -> Iterator[str]:
  """CT and CBCT; the HU of a CBCT are less exact."""
  cbct = modality is Modality.CBCT
  low, high = values.low, values.high
  if high - low <= _SPAN_HU or _narrow(values):
    yield (
      'normalised values or another unit, not HU, whose range in a body '
      'exceeds 1000.'
    )
  elif high <= 255 and (low >= 0 or low == -128):
    yield '8-bit or windowed values, not HU.'
  yield from _without_air(values, cbct)
  if values.continuous and not cbct:
    yield from _scaled(values)
  beyond = values.share(values.low + 1, _PADDING_HU)
  if beyond > 0.05:
    yield (
      f'{beyond:.1%} of the voxels are below {_PADDING_HU:g}, beyond air; '
      'another slope or intercept, not HU.'
    )
  tissue = values.share(low=-300 if cbct else -150)
  if values.continuous and tissue < 5e-3:
    yield (
      f'{tissue:.1%} of the voxels are as dense as fat and muscle, which have '
      '-100 to 60 HU; another scale or offset, not HU.'
    )


def _narrow(values: _Values) -> bool:
  """Whether the image has normalised values, though its padding may not."""
  if not values.continuous:
    return False
  low, high = np.percentile(values.image, (0.1, 99.9))
  return high - low <= _SPAN_HU


def _without_air(values: _Values, cbct: bool) -> Iterator[str]:
  """Values that are never negative, or with air at 0 and water at 1024."""
  inside = np.count_nonzero(values.sample > _PADDING_HU)
  if (
    values.share(_PADDING_HU, -50) < 2e-3
    and (values.low > -50 or inside >= _ENOUGH)
    and values.high > 0
  ):
    yield (
      'no air and no fat below -50 HU; shifted by 1024 HU (stored without the '
      'intercept), or not a CT.'
    )
  width = 300 if cbct else 200
  water = values.share(1024 - width, 1024 + width)
  if (
    values.continuous
    and values.share(_PADDING_HU, -600) < 5e-3
    and water > 0.03
    and water > 2 * values.share(300, 700)
  ):
    yield (
      f'{water:.1%} of the voxels are within {width} of 1024, and no air is '
      'near -1000; shifted by 1024 HU, stored without the intercept.'
    )


def _scaled(values: _Values) -> Iterator[str]:
  """Air at another value than -1000."""
  sample = values.sample[values.sample > _PADDING_HU]
  lowest, percentile = sample.min(), np.percentile(sample, 1)
  # Fat is below -100 HU, but the lungs are the only large part below -250.
  for low, factor, limit in ((lowest, 0.95, 0.02), (percentile, 0.8, 0.1)):
    air = values.share(_PADDING_HU, factor * low)
    at_most = 0 if low == lowest else -250
    if -800 < low < at_most and air > limit:
      yield (
        f'{air:.1%} of the voxels are near {low:.0f} and hardly one below; '
        'clipped to a narrower window, or another scale: air is at -1000 HU.'
      )


def _suv(values: _Values, modality: Modality) -> Iterator[str]:
  """PET."""
  del modality
  if values.share(high=-100) > 1e-3 or values.low < -200:
    yield 'negative values, not SUV; possibly a CT.'
  if values.share(high=-0.5) > 1e-3 or values.share(high=-0.1) > 0.02:
    share = values.share(high=-0.1)
    yield (
      f'{share:.1%} of the voxels are negative values, not SUV; z-scored, or '
      'another modality.'
    )
  body = values.sample[values.sample > 0.1]
  if body.size and np.percentile(body, 99) > _HOT_SUV:
    yield (
      f'the 99th percentile is {np.percentile(body, 99):g}; activity (Bq/ml) '
      'or counts, not SUV.'
    )
  if not values.continuous:
    return
  if values.high < 0.3 or abs(values.high - 1) < 1e-3:
    yield 'normalised values or another unit, not SUV.'
  elif np.array_equal(values.image, np.round(values.image)):
    yield 'only whole numbers; counts or an 8-bit image, not SUV.'
  limit = _BODY_SUV if values.length > _BODY_MM else _ORGAN_SUV
  if body.size >= _ENOUGH and np.median(body) > limit:
    yield (
      f'the median of the body is {np.median(body):.3g}, in SUV it is below '
      f'{limit:g}; activity (kBq/ml) or counts, not SUV.'
    )


def _mr(values: _Values, modality: Modality) -> Iterator[str]:
  """MR in arbitrary units, or z-scored: both have few values below -20."""
  del modality
  share = values.share(high=-20)
  if values.continuous and share > 0.01:
    yield (
      f'{share:.1%} of the voxels are below -20, more than in a z-scored MR; '
      'possibly a CT, or a background other than 0.'
    )
