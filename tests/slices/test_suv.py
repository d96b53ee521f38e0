"""Body-weight SUV from PET headers, against values computed by hand."""

import datetime
import warnings

import numpy as np
import pytest
from dicom_files import INJECTION, PET, SUV_PER_BQML, edit, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from volume_files import affine_of

from synermedgen_jax.slices.dicom_headers import Instance, RefusedError
from synermedgen_jax.slices.suv import suv_factor
from synermedgen_jax.slices.volumes import Volume, VolumeError, read_volume

GE = [(0x00090010, 'LO', 'GEMS_PETD_01')]
PHILIPS = [(0x70530010, 'LO', 'Philips PET Private Group')]


def pet(private=(), injection=None, **fields):
  """A header of PET and INJECTION with fields replaced; None removes one."""
  header, item = Dataset(), Dataset()
  for dataset, values in (
    (item, INJECTION | (injection or {})),
    (header, PET | fields),
  ):
    for keyword, value in values.items():
      if value is not None:
        with warnings.catch_warnings(action='ignore'):  # invalid on purpose
          setattr(dataset, keyword, value)
  header.RadiopharmaceuticalInformationSequence = [item]
  for tag, vr, value in private:
    header.add_new(tag, vr, value)
  return Instance(None, 'a.dcm', header)


def refused(message, *instances):
  with pytest.raises(RefusedError) as error:
    suv_factor(instances)
  assert message in str(error.value)


def test_start_decays_the_dose_by_hand():
  # 110 minutes after 350 MBq of F-18, 175 MBq are left: 70000 g / 175e6 Bq.
  assert suv_factor([pet()]) == pytest.approx(SUV_PER_BQML, rel=1e-4)


def test_admin_uses_the_injected_dose():
  admin = pet(DecayCorrection='ADMIN', SeriesTime=None)
  assert suv_factor([admin]) == pytest.approx(SUV_PER_BQML / 2)


def test_gml_is_suv_already():
  fields = {'PatientWeight': None, 'DecayCorrection': None}
  assert suv_factor([pet(Units='GML', **fields)]) == 1
  assert suv_factor([pet(Units='GML', SUVType='BW')]) == 1
  refused('SUVType is LBM', pet(Units='GML', SUVType='LBM'))


def test_philips_counts_use_the_private_factors():
  suv = [*PHILIPS, (0x70531000, 'DS', '0.00027')]
  assert suv_factor([pet(suv, Units='CNTS')]) == pytest.approx(0.00027)
  raw = [*PHILIPS, (0x70531000, 'UN', b'0.00027 ')]
  assert suv_factor([pet(raw, Units='CNTS')]) == pytest.approx(0.00027)
  activity = [
    *PHILIPS,
    (0x70531000, 'DS', '0'),
    (0x70531009, 'DS', '1.5'),
  ]
  result = suv_factor([pet(activity, Units='CNTS')])
  assert result == pytest.approx(1.5 * SUV_PER_BQML, rel=1e-4)
  refused('neither (7053,1000) nor', pet(Units='CNTS'))
  refused('neither (7053,1000) nor', pet(PHILIPS, Units='CNTS'))


@pytest.mark.parametrize('element', [0x00, 0x09])
def test_private_factors_that_differ_between_slices_are_refused(element):
  one, other = (
    pet([*PHILIPS, (0x70531000 + element, 'DS', text)], Units='CNTS')
    for text in ('0.5', '0.7')
  )
  refused(f'(7053,10{element:02X}) has 2 values, 0.5 to 0.7', one, one, other)
  refused('has 2 values, 0 to 0.5', one, pet(PHILIPS, Units='CNTS'))


@settings(max_examples=50, deadline=None)
@given(
  minutes=st.integers(0, 600),
  scan=st.datetimes(
    datetime.datetime(2001, 1, 2), datetime.datetime(2030, 1, 1)
  ),
  dated=st.booleans(),
)
def test_time_from_injection_crosses_midnight(minutes, scan, dated):
  scan = scan.replace(microsecond=0)
  start = scan - datetime.timedelta(minutes=minutes)
  # The next acquisition may lie on the next day.
  first = scan + datetime.timedelta(minutes=30)
  instance = pet(
    injection={
      'RadiopharmaceuticalStartTime': f'{start:%H%M%S}',
      'RadiopharmaceuticalStartDateTime': f'{start:%Y%m%d%H%M%S}.00'
      if dated
      else None,
    },
    SeriesDate=f'{scan:%Y%m%d}',
    SeriesTime=f'{scan:%H%M%S}.000',
    AcquisitionDate=f'{first:%Y%m%d}',
    AcquisitionTime=f'{first:%H%M%S}',
  )
  left = 350e6 * np.exp2(-minutes * 60 / 6586.2)
  assert suv_factor([instance]) == pytest.approx(70e3 / left, rel=1e-6)


@pytest.mark.parametrize(
  ('half_life', 'days'),
  [(45724, 1), (282280, 4), (360806, 10)],  # Cu-64, Zr-89, I-124
)
def test_a_long_lived_nuclide_needs_the_date_of_its_injection(half_life, days):
  injected = datetime.datetime(2024, 1, 5, 12) - datetime.timedelta(days)
  item = {
    'RadionuclideHalfLife': f'{half_life}',
    'RadiopharmaceuticalStartTime': f'{injected:%H%M%S}',
  }
  fields = {'SeriesTime': '120000', 'AcquisitionTime': '120000'}
  refused('StartDateTime is missing', pet(injection=item, **fields))
  dated = item | {
    'RadiopharmaceuticalStartDateTime': f'{injected:%Y%m%d%H%M%S}'
  }
  left = 350e6 * 2 ** (-days * 86400 / half_life)
  factor = suv_factor([pet(injection=dated, **fields)])
  assert factor == pytest.approx(70e3 / left, rel=1e-6)
  # The dose at injection needs no time.
  admin = pet(injection=item, DecayCorrection='ADMIN')
  assert suv_factor([admin]) == pytest.approx(70e3 / 350e6)


def test_a_short_lived_nuclide_needs_no_date():
  # 11 hours of Sc-44; a day more would be 8.8 half-lives.
  item = {
    'RadionuclideHalfLife': '14292',
    'RadiopharmaceuticalStartTime': '010000',
  }
  left = 350e6 * 2 ** (-11 * 3600 / 14292)
  factor = suv_factor([pet(injection=item, SeriesTime='120000')])
  assert factor == pytest.approx(70e3 / left, rel=1e-6)


def test_series_time_after_the_acquisition_is_not_the_scan():
  late = {'SeriesTime': '180000'}
  times = ['120700', '120000.2', '120300']
  slices = [pet(**late, AcquisitionTime=t) for t in times]
  assert suv_factor(slices) == pytest.approx(SUV_PER_BQML, rel=1e-4)
  scan = [*GE, (0x0009100D, 'DT', '20240105120000.2')]
  slices = [pet(scan, **late, AcquisitionTime='130000')]
  assert suv_factor(slices) == pytest.approx(SUV_PER_BQML, rel=1e-4)


@pytest.mark.parametrize(
  ('series', 'acquired'),
  [('235800', ['235900', '000500']), ('000100', ['235900', '000500'])],
)
def test_a_scan_across_midnight_needs_the_date_of_its_acquisitions(
  series, acquired
):
  item = {'RadiopharmaceuticalStartTime': '225900'}
  fields = {'SeriesTime': series, 'AcquisitionDate': None}
  refused(
    'AcquisitionDate is missing',
    *(pet(injection=item, AcquisitionTime=t, **fields) for t in acquired),
  )


def test_a_scan_across_midnight_starts_with_its_series():
  item = {'RadiopharmaceuticalStartTime': '225800'}
  slices = [
    pet(
      injection=item,
      SeriesTime='235800',
      AcquisitionDate=date,
      AcquisitionTime=time,
    )
    for date, time in (('20240105', '235900'), ('20240106', '000500'))
  ]
  left = 350e6 * 2 ** (-3600 / 6586.2)
  assert suv_factor(slices) == pytest.approx(70e3 / left, rel=1e-6)


def test_missing_acquisition_time_leaves_the_series_time():
  alone = pet(AcquisitionTime=None, AcquisitionDate=None)
  assert suv_factor([alone]) == pytest.approx(SUV_PER_BQML, rel=1e-4)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'Units': None}, 'Units is missing'),
    ({'Units': 'PROPCPS'}, 'Units is PROPCPS'),
    ({'Units': 'CM2ML'}, 'Units is CM2ML'),
    ({'DecayCorrection': None}, 'DecayCorrection is missing'),
    ({'DecayCorrection': 'NONE'}, 'DecayCorrection is NONE'),
    ({'CorrectedImage': ['DECY', 'SCAT']}, 'without ATTN'),
    ({'CorrectedImage': ['ATTN']}, 'without DECY'),
    ({'PatientWeight': None}, 'PatientWeight is missing'),
    ({'PatientWeight': '0'}, 'PatientWeight is 0, expected 1 to 400 kg'),
    ({'PatientWeight': '70000'}, 'PatientWeight is 70000'),
    ({'SeriesTime': None}, 'SeriesTime is missing'),
    ({'SeriesDate': None}, 'SeriesDate is missing'),
    ({'SeriesTime': '100000'}, 'before the scan'),
    ({'SeriesTime': '235959', 'AcquisitionTime': '235959'}, '830 minutes'),
  ],
)
def test_field_of_the_series_that_is_missing_or_absurd(fields, message):
  refused(message, pet(**fields))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'RadionuclideTotalDose': None}, 'TotalDose is missing'),
    ({'RadionuclideTotalDose': '0'}, 'TotalDose is 0'),
    ({'RadionuclideTotalDose': '370'}, 'TotalDose is 370, expected 1e+06'),
    ({'RadionuclideTotalDose': '370000'}, 'TotalDose is 370000'),
    ({'RadionuclideHalfLife': None}, 'HalfLife is missing'),
    ({'RadionuclideHalfLife': '109.77'}, 'HalfLife is 109.77'),
    ({'RadionuclideHalfLife': '1.83'}, 'HalfLife is 1.83'),
    ({'RadiopharmaceuticalStartTime': None}, 'StartTime is missing'),
    ({'RadiopharmaceuticalStartTime': '2599'}, 'StartTime is 2599'),
    (
      {'RadiopharmaceuticalStartDateTime': '20240105'},
      'StartDateTime is 20240105, which has no time',
    ),
    (
      {'RadiopharmaceuticalStartDateTime': '20231105101014'},
      'before the scan',
    ),
    (
      {'RadiopharmaceuticalStartDateTime': '20240105091014'},
      'correct one of them',
    ),
  ],
)
def test_field_of_the_injection_that_is_missing_or_absurd(fields, message):
  refused(message, pet(injection=fields))


def test_injection_after_the_scan_is_refused():
  date = {'RadiopharmaceuticalStartDateTime': '20240105121014'}
  refused(
    'lies -10 minutes before',
    pet(injection=date | {'RadiopharmaceuticalStartTime': None}),
  )


@pytest.mark.parametrize('items', [0, 2])
def test_several_injections_are_refused(items):
  instance = pet()
  item = instance.header.RadiopharmaceuticalInformationSequence[0]
  instance.header.RadiopharmaceuticalInformationSequence = [item] * items
  refused(f'has {items} items', instance)


@pytest.mark.parametrize(
  'fields',
  [{'PatientWeight': '71'}, {'Units': 'GML'}, {'DecayCorrection': 'ADMIN'}],
)
def test_fields_that_differ_between_slices_are_refused(fields):
  refused(f'{next(iter(fields))} has 2 values', pet(), pet(**fields))


def test_a_series_is_refused_with_its_folder_and_name(tmp_path):
  data = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
  write_series(tmp_path / 's', Volume(data, affine_of((4, 4, 3))), 'PT')
  np.testing.assert_allclose(
    np.sort(read_volume(tmp_path / 's').data.ravel()), np.arange(8), atol=1e-3
  )
  for path in (tmp_path / 's').iterdir():
    edit(path, PatientWeight=None)
  with pytest.raises(VolumeError, match='PatientWeight is missing') as error:
    read_volume(tmp_path / 's')
  assert str(error.value).startswith(
    f"{tmp_path / 's'}: series 3 'PT axial' PT"
  )
