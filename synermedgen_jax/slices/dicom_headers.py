"""Headers of DICOM instances: fields, and the geometry of their stack.

Nothing is repaired: slices that do not form one regular stack are refused
with the number that is wrong.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float
from pydicom.errors import BytesLengthException, InvalidDicomError

# Errors of pydicom for files with invalid contents, also on access to a field.
PARSE_ERRORS = (
  AttributeError,
  BytesLengthException,
  EOFError,
  IndexError,
  InvalidDicomError,
  KeyError,
  NotImplementedError,
  OverflowError,
  TypeError,
  ValueError,
  struct.error,
  zlib.error,
)
# SOP classes with one slice per file, and their modality.
_SLICES = {
  '1.2.840.10008.5.1.4.1.1.2': 'CT',
  '1.2.840.10008.5.1.4.1.1.4': 'MR',
  '1.2.840.10008.5.1.4.1.1.128': 'PT',
}
_SAME_MM = 0.1  # exporters round positions
_TILT_DEGREES = 0.1
# Fields in which images at one position usually differ.
_REPEATS = (
  'AcquisitionNumber',
  'EchoTime',
  'TemporalPositionIdentifier',
  'DiffusionBValue',
  'TriggerTime',
  'FrameReferenceTime',
  'ImageType',
)


class RefusedError(ValueError):
  """The reason why a series cannot be used, without the name of its folder."""


@dataclasses.dataclass(frozen=True)
class Instance:
  """One DICOM file.

  Attributes:
    path: the file.
    name: its path within the folder or zip, for messages.
    header: its data set without pixels.
  """

  path: Path
  name: str
  header: pydicom.Dataset

  def get(self, keyword: str):
    """The value as pydicom converts it; None = missing.

    Raises:
      RefusedError: the bytes of the field are damaged.
    """
    try:
      return self.header.get(keyword)
    except PARSE_ERRORS as error:
      raise RefusedError(f'{self.name}: {keyword} is damaged') from error

  def text(self, keyword: str) -> str:
    """The value as printable text; '' = missing.

    Several values are separated by \\. Text beyond 200 characters, which only
    damaged fields have, is cut off.
    """
    value = self.get(keyword)
    if value is None:
      return ''
    many = isinstance(value, pydicom.multival.MultiValue)
    text = '\\'.join(map(str, value)) if many else str(value)
    return ''.join(c if c.isprintable() else '?' for c in text.strip()[:200])

  @property
  def transfer_syntax(self) -> str:
    """UID of the encoding of the pixels; '' = missing."""
    meta = getattr(self.header, 'file_meta', pydicom.Dataset())
    return Instance(self.path, self.name, meta).text('TransferSyntaxUID')

  def numbers(self, keyword: str, count: int) -> list[float]:
    """The value as `count` numbers.

    Raises:
      RefusedError: the value is missing or not `count` finite numbers.
    """
    text = self.text(keyword)
    try:
      values = [float(word) for word in text.split('\\')]
    except ValueError:
      values = []
    if len(values) != count or not np.isfinite(values).all():
      number = f'{count} numbers' if count > 1 else 'a number'
      raise RefusedError(
        f'{self.name}: {keyword} is {text[:60] or "missing"}, expected {number}'
      )
    return values

  def number(self, keyword: str) -> float:
    """The value as one number; see `numbers`."""
    return self.numbers(keyword, 1)[0]


def common(instances: Sequence[Instance], keyword: str) -> str:
  """The value that all instances have; '' if it is missing in all.

  Raises:
    RefusedError: they differ.
  """
  values = Counter(i.text(keyword) for i in instances)
  if len(values) > 1:
    listed = ', '.join(f'{v or "missing"} ({n})' for v, n in values.items())
    raise RefusedError(
      f'{keyword} has {len(values)} values: {listed[:120]}; separate the files'
    )
  return next(iter(values))


def not_a_slice(instance: Instance) -> str:
  """The reason why a file is not one slice of CT, MR or PET; '' if it is."""
  uid = instance.text('SOPClassUID')
  frames = instance.text('NumberOfFrames')
  samples = instance.text('SamplesPerPixel')
  photometric = instance.text('PhotometricInterpretation')
  if uid not in _SLICES:
    kind = pydicom.uid.UID(uid).name if uid else 'object without SOPClassUID'
    enhanced = frames not in ('', '1') or 'Enhanced' in kind
    advice = '; convert it to NIfTI with dcm2niix' if enhanced else ''
    return f'{kind}{advice}'
  if frames not in ('', '0', '1'):
    return f'{frames} frames in one file; convert it to NIfTI with dcm2niix'
  if samples not in ('', '1') or not photometric.startswith('MONOCHROME'):
    return f'colour image, {photometric or "no PhotometricInterpretation"}'
  if photometric != 'MONOCHROME2':
    return f'{photometric}, inverted grey values'
  kinds = instance.text('ImageType').upper().split('\\')
  if 'LOCALIZER' in kinds or 'SCOUT' in kinds:
    return 'localiser'
  if instance.text('Modality') != _SLICES[uid]:
    return f'Modality {instance.text("Modality")} in a {_SLICES[uid]} object'
  return ''


def stack(
  instances: Sequence[Instance],
) -> tuple[list[Instance], Float[np.ndarray, '4 4']]:
  """Sorts slices along their normal.

  Returns:
    The sorted slices, and the affine of (column, row, slice) to LPS+ mm.

  Raises:
    RefusedError: the slices do not form one regular stack: several frames of
      reference, orientations or pixel sizes, a tilted gantry, or positions
      that are missing, repeated or uneven.
  """
  for keyword in ('FrameOfReferenceUID', 'Rows', 'Columns'):
    common(instances, keyword)
  first = instances[0]
  shape = np.array([first.number('Columns'), first.number('Rows')])
  axes = _axes(instances, float(shape.max()))
  positions = np.array(
    [i.numbers('ImagePositionPatient', 3) for i in instances]
  )
  normal = np.cross(axes[0], axes[1])
  normal /= np.linalg.norm(normal)
  order = np.argsort(positions @ normal, kind='stable')
  slices = [instances[i] for i in order]
  positions = positions[order]
  _check_repeated(slices, positions @ normal)
  _check_tilt(slices, positions, normal)
  _check_gaps(slices, positions @ normal)
  step = (positions[-1] - positions[0]) / (len(slices) - 1)
  regular = positions[0] + np.arange(len(slices))[:, None] * step
  off = np.linalg.norm(positions - regular, axis=1).max()
  if off > _SAME_MM:
    raise RefusedError(
      f'ImagePositionPatient is up to {off:.2f} mm off evenly spaced slices'
    )
  affine = np.eye(4)
  affine[:3, :3] = np.stack([axes[0], axes[1], step], axis=1)
  affine[:3, 3] = positions[0]
  return slices, affine


def _axes(
  instances: Sequence[Instance], length: float
) -> Float[np.ndarray, '2 3']:
  """Steps from column to column and from row to row, LPS+ mm."""
  orientations = np.array(
    [i.numbers('ImageOrientationPatient', 6) for i in instances]
  ).reshape(-1, 2, 3)
  spacings = np.array([i.numbers('PixelSpacing', 2) for i in instances])
  if spacings.min() <= 0:
    raise RefusedError(f'PixelSpacing is {spacings.min():g}, expected above 0')
  rows, columns = orientations[0]
  lengths = np.linalg.norm(orientations[0], axis=1)
  if np.abs(lengths - 1).max() > 1e-3 or abs(rows @ columns) > 1e-3:
    value = instances[0].text('ImageOrientationPatient')
    raise RefusedError(
      f'ImageOrientationPatient is {value}, expected two perpendicular unit '
      'vectors'
    )
  # The first value of PixelSpacing is the distance of rows.
  steps = orientations * spacings[:, ::-1, None]
  apart = np.abs(orientations - orientations[0]).max(axis=(1, 2))
  farthest = int(apart.argmax())
  if apart[farthest] * length * spacings.max() > _SAME_MM:
    cosines = (orientations[farthest] * orientations[0]).sum(axis=1)
    degrees = np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))
    raise RefusedError(
      'ImageOrientationPatient differs within the series, by up to '
      f'{degrees:.2f} degrees ({instances[farthest].name}); separate the files'
    )
  if np.abs(spacings - spacings[0]).max() * length > _SAME_MM:
    raise RefusedError(
      f'PixelSpacing differs within the series, {spacings.min():g} to '
      f'{spacings.max():g} mm; separate the files'
    )
  return steps[0]


def _check_repeated(slices: Sequence[Instance], along: np.ndarray) -> None:
  repeated = np.flatnonzero(np.diff(along) < 0.01)
  if not repeated.size:
    return
  one, other = slices[repeated[0]], slices[repeated[0] + 1]
  differing = [
    f'{k} {one.text(k) or "missing"} and {other.text(k) or "missing"}'
    for k in _REPEATS
    if one.text(k) != other.text(k)
  ]
  raise RefusedError(
    f'{repeated.size} of {len(slices)} slices repeat the position of another, '
    f'first {one.name} and {other.name}'
    f'{" (" + ", ".join(differing[:3]) + ")" if differing else ""}; keep one '
    'slice per position'
  )


def _check_tilt(
  slices: Sequence[Instance], positions: np.ndarray, normal: np.ndarray
) -> None:
  total = positions[-1] - positions[0]
  along = total @ normal
  aside = np.linalg.norm(total - along * normal)
  degrees = float(np.degrees(np.arctan2(aside, along)))
  if degrees > _TILT_DEGREES:
    raise RefusedError(
      f'its slices are tilted by {degrees:.1f} degrees against the direction '
      'in which they are stacked (gantry tilt); resample them with dcm2niix'
    )
  for item in slices:
    tilt = item.text('GantryDetectorTilt')
    if tilt and abs(item.number('GantryDetectorTilt')) > _TILT_DEGREES:
      raise RefusedError(
        f'GantryDetectorTilt is {tilt} degrees, but the positions show no '
        'tilt; export the original series'
      )


def _check_gaps(slices: Sequence[Instance], along: np.ndarray) -> None:
  gaps = np.diff(along)
  typical = float(np.median(gaps))
  wrong = np.flatnonzero(np.abs(gaps - typical) > min(_SAME_MM, typical / 10))
  if wrong.size:
    i = int(wrong[np.abs(gaps[wrong] - typical).argmax()])
    lacking = int(np.maximum(np.round(gaps / typical) - 1, 0).sum())
    count = f'{lacking} slices are missing' if lacking else 'slices are uneven'
    raise RefusedError(
      f'{count}: {gaps[i]:.2f} mm lie between {slices[i].name} and '
      f'{slices[i + 1].name}, elsewhere {typical:.2f} mm'
    )
  stated = slices[0].text('SpacingBetweenSlices')
  if stated:
    ratio = typical / max(abs(slices[0].number('SpacingBetweenSlices')), 1e-6)
    if 1.5 < ratio < 100 and abs(ratio - round(ratio)) < 0.02 * ratio:
      raise RefusedError(
        f'slices are missing: they lie {typical:.2f} mm apart, '
        f'SpacingBetweenSlices is {stated}'
      )
