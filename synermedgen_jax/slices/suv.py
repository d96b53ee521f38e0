"""Body-weight SUV from the header of a PET series.

SUV = activity concentration [Bq/ml] * body weight [g] / injected dose [Bq],
with the dose decayed to the time to which the scanner corrected the images.
The choice of that time follows QIBA's vendor-neutral pseudo-code.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from pydicom.valuerep import DA, DT, TM

from synermedgen_jax.slices.dicom_headers import (
  Instance,
  RefusedError,
  common,
)

_WEIGHT_KG = (1.0, 400.0)
_DOSE_BQ = (1e6, 1e11)
_HALF_LIVES = 6  # longest plausible time from injection to scan
_DAY = 86400.0  # seconds
_HALF_DAY = datetime.timedelta(hours=12)
# Half-lives of the nuclides of PET, in seconds.
_NUCLIDES = {
  'O-15': 122.2,
  'Rb-82': 75.5,
  'N-13': 597.9,
  'Cu-62': 580.4,
  'C-11': 1222.0,
  'Ga-68': 4069.0,
  'F-18': 6586.2,
  'Sc-44': 14292.0,
  'Cu-64': 45724.0,
  'Y-86': 53064.0,
  'Br-76': 58320.0,
  'Y-90': 230590.0,
  'Zr-89': 282280.0,
  'I-124': 360806.0,
}
_PHILIPS = 'Philips PET Private Group'  # creator of (7053,10xx)
_GE = 'GEMS_PETD_01'  # creator of (0009,10xx)


def suv_factor(instances: Sequence[Instance]) -> float:
  """The factor from rescaled values to body-weight SUV in g/ml.

  Args:
    instances: all slices of one PET series.

  Raises:
    RefusedError: a field is missing, differs between slices, or is absurd.
  """
  corrections = common(instances, 'CorrectedImage')
  for name in ('ATTN', 'DECY') if corrections else ():
    if name not in corrections.split('\\'):
      raise RefusedError(
        f'CorrectedImage is {corrections}, without {name}; SUV needs the '
        'corrected images'
      )
  units = common(instances, 'Units')
  if units == 'GML':
    kind = common(instances, 'SUVType')
    if kind not in ('', 'BW'):
      raise RefusedError(f'SUVType is {kind}, expected BW (body weight)')
    return 1.0
  if units == 'CNTS':
    factor = _philips(instances, 0x00)
    if factor > 0:
      return factor
    activity = _philips(instances, 0x09)
    if not activity > 0:
      raise RefusedError(
        'Units is CNTS, and neither (7053,1000) nor (7053,1009) has a factor '
        'above 0'
      )
    return activity * _per_activity(instances)
  if units != 'BQML':
    raise RefusedError(
      f'Units is {units or "missing"}, expected BQML, GML or CNTS'
    )
  return _per_activity(instances)


def _per_activity(instances: Sequence[Instance]) -> float:
  """SUV per Bq/ml."""
  common(instances, 'PatientWeight')
  weight = _within(instances[0], 'PatientWeight', _WEIGHT_KG, 'kg')
  items = [_radiopharmaceutical(i) for i in instances]
  item = items[0]
  for keyword in (
    'RadionuclideTotalDose',
    'RadionuclideHalfLife',
    'RadiopharmaceuticalStartTime',
    'RadiopharmaceuticalStartDateTime',
  ):
    common(items, keyword)
  dose = _within(item, 'RadionuclideTotalDose', _DOSE_BQ, 'Bq')
  correction = common(instances, 'DecayCorrection')
  if correction == 'START':
    dose *= _remaining(instances, item)
  elif correction != 'ADMIN':
    raise RefusedError(
      f'DecayCorrection is {correction or "missing"}, expected START or ADMIN'
    )
  return weight * 1000 / dose


def _within(item: Instance, keyword: str, limits, unit: str) -> float:
  value = item.number(keyword)
  if not limits[0] <= value <= limits[1]:
    raise RefusedError(
      f'{keyword} is {value:g}, expected {limits[0]:g} to {limits[1]:g} {unit}'
    )
  return value


def _radiopharmaceutical(instance: Instance) -> Instance:
  """The single item of the sequence, as an instance of its own."""
  sequence = instance.get('RadiopharmaceuticalInformationSequence')
  if not sequence or len(sequence) != 1:
    raise RefusedError(
      f'RadiopharmaceuticalInformationSequence has {len(sequence or ())} '
      'items, expected 1'
    )
  return Instance(instance.path, instance.name, sequence[0])


def _remaining(instances: Sequence[Instance], item: Instance) -> float:
  """The share of the dose that is left when the scan starts."""
  half_life = item.number('RadionuclideHalfLife')
  known = any(abs(half_life / s - 1) < 0.03 for s in _NUCLIDES.values())
  if not known:
    raise RefusedError(
      f'RadionuclideHalfLife is {half_life:g}, expected the seconds of one of '
      f'{", ".join(_NUCLIDES)}'
    )
  start = _scan_start(instances)
  injection = _injection(item, start)
  seconds = (start - injection).total_seconds()
  if not 0 <= seconds <= _HALF_LIVES * half_life:
    raise RefusedError(
      f'the injection at {injection:%Y-%m-%d %H:%M:%S} lies '
      f'{seconds / 60:.0f} minutes before the scan at '
      f'{start:%Y-%m-%d %H:%M:%S}, expected 0 to '
      f'{_HALF_LIVES * half_life / 60:.0f}'
    )
  dated = item.text('RadiopharmaceuticalStartDateTime')
  if not dated and seconds + _DAY <= _HALF_LIVES * half_life:
    raise RefusedError(
      'RadiopharmaceuticalStartDateTime is missing, and with a half-life of '
      f'{half_life / 3600:.1f} hours the injection may lie days before the '
      'scan; add the field'
    )
  return 0.5 ** (seconds / half_life)


def _scan_start(instances: Sequence[Instance]) -> datetime.datetime:
  """The time to which DecayCorrection START refers.

  It is the series time, unless a later workstation replaced it by a time after
  the acquisition.
  """
  common(instances, 'SeriesDate')
  common(instances, 'SeriesTime')
  series = _moment(instances[0], 'SeriesDate', 'SeriesTime')
  acquired = [
    _moment(i, 'AcquisitionDate', 'AcquisitionTime', default=series)
    for i in instances
    if i.text('AcquisitionTime')
  ]
  dated = all(i.text('AcquisitionDate') for i in instances)
  for moment in () if dated else acquired:
    if abs(moment - series) > _HALF_DAY:
      raise RefusedError(
        f'AcquisitionDate is missing, and AcquisitionTime {moment:%H:%M:%S} '
        f'may be of another day than SeriesTime {series:%H:%M:%S}; add the '
        'field'
      )
  if not acquired or series <= min(acquired):
    return series
  try:
    block = instances[0].header.private_block(0x0009, _GE)
    return DT(str(block[0x0D].value)).replace(tzinfo=None)
  except (KeyError, ValueError):
    return min(acquired)


def _injection(item: Instance, start: datetime.datetime) -> datetime.datetime:
  """The injection; without a date, the last such time before the scan."""
  text = item.text('RadiopharmaceuticalStartDateTime')
  if not text:
    time = _parse(TM, item, 'RadiopharmaceuticalStartTime')
    moment = datetime.datetime.combine(start.date(), time)
    return moment - datetime.timedelta(days=moment > start)
  if len(text) < len('YYYYMMDDhhmm'):
    raise RefusedError(
      f'RadiopharmaceuticalStartDateTime is {text}, which has no time of day'
    )
  # A UTC offset, if any, is that of the scanner's clock, as in SeriesTime.
  moment = _parse(DT, item, 'RadiopharmaceuticalStartDateTime')
  moment = moment.replace(tzinfo=None)
  if item.text('RadiopharmaceuticalStartTime'):
    time = _parse(TM, item, 'RadiopharmaceuticalStartTime')
    apart = abs(datetime.datetime.combine(moment.date(), time) - moment)
    if apart > datetime.timedelta(minutes=1):
      raise RefusedError(
        f'RadiopharmaceuticalStartDateTime is {text}, '
        f'RadiopharmaceuticalStartTime {time:%H:%M:%S}; correct one of them'
      )
  return moment


def _moment(
  instance: Instance,
  date: str,
  time: str,
  default: datetime.datetime | None = None,
) -> datetime.datetime:
  """Date and time of two fields; `default` has the date if it is missing."""
  day = default if default and not instance.text(date) else None
  day = day.date() if day else _parse(DA, instance, date)
  return datetime.datetime.combine(day, _parse(TM, instance, time))


def _parse(kind, instance: Instance, keyword: str):
  """The value of a field as pydicom's DA, TM or DT."""
  text = instance.text(keyword)
  try:
    value = kind(text.replace(':', '')) if text else None
  except ValueError:
    value = None
  if value is None:
    raise RefusedError(
      f'{instance.name}: {keyword} is {text or "missing"}, expected a date or '
      'time'
    )
  return value


def _philips(instances: Sequence[Instance], element: int) -> float:
  """The number (7053,10xx) that all slices have; 0 if it is missing in all."""
  values = {_philips_of(instance, element) for instance in instances}
  if len(values) > 1:
    raise RefusedError(
      f'(7053,10{element:02X}) has {len(values)} values, {min(values):g} to '
      f'{max(values):g}; separate the files'
    )
  return values.pop()


def _philips_of(instance: Instance, element: int) -> float:
  try:
    value = instance.header.private_block(0x7053, _PHILIPS)[element].value
    return float(value.decode('ascii') if isinstance(value, bytes) else value)
  except (KeyError, ValueError, TypeError):
    return 0.0
