"""DICOM series: values and positions, or refused by name."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT, edit, save, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import RLELossless
from scipy.spatial.transform import Rotation
from volume_files import affine_of

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices import dicom
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.dicom import holds_dicom, list_series
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.volumes import (
  Volume,
  VolumeError,
  read_volume,
  write_volume,
)

REAL = Path(__file__).parents[1] / 'data/sts/STS_035'
CROPS = {'CT': 'ct', 'MR': 'mr', 'PT': 'pet'}
SMALL = Volume(
  np.arange(120, dtype=np.float32).reshape(4, 5, 6),
  affine_of((2, 3, 4), (10, -20, 30)),
)


def assert_same_voxels(result: Volume, expected: Volume, values=1e-3):
  """Every voxel of `expected` is in `found`, at its position to 1e-3 mm."""
  index = np.indices(expected.data.shape).reshape(3, -1)
  world = expected.affine[:3, :3] @ index + expected.affine[:3, 3:]
  inverse = np.linalg.inv(result.affine)
  place = np.rint(inverse[:3, :3] @ world + inverse[:3, 3:]).astype(int)
  off = result.affine[:3, :3] @ place + result.affine[:3, 3:] - world
  assert np.abs(off).max() < 1e-3
  assert result.data.size == expected.data.size
  error = np.abs(result.data[tuple(place)] - expected.data.ravel()).max()
  assert error <= values


def refused(path, *messages, **selection):
  with pytest.raises(VolumeError) as error:
    read_volume(path, **selection)
  text = str(error.value)
  assert text.startswith(f'{path}: ')
  assert '\n' not in text
  assert PATIENT not in text
  for message in messages:
    assert message in text


def test_the_shape_is_checked_before_pixels_are_read(tmp_path, monkeypatch):
  write_series(tmp_path / 'ct', SMALL, 'CT')
  monkeypatch.setattr(dicom, '_read_pixels', lambda *_: pytest.fail('read'))
  packed = shutil.make_archive(tmp_path / 'ct', 'zip', tmp_path / 'ct')

  def check(shape):
    assert shape == (4, 5, 6)
    raise UserError('too large')

  for path in (tmp_path / 'ct', packed):
    with pytest.raises(UserError, match=r'^too large$'):
      read_volume(path, check_shape=check)


@pytest.fixture(scope='module')
def real(tmp_path_factory):
  """A study of the real crops: folders CT, MR and PT."""
  study = tmp_path_factory.mktemp('study')
  for number, (modality, name) in enumerate(CROPS.items(), 1):
    volume = read_volume(REAL / f'{name}.nii.gz')
    write_series(study / modality, volume, modality, SeriesNumber=number)
  return study


@pytest.mark.parametrize('modality', CROPS)
def test_real_crop_keeps_values_and_positions(real, modality):
  expected = read_volume(REAL / f'{CROPS[modality]}.nii.gz')
  result = read_volume(real / modality)
  assert result.data.dtype == np.float32
  assert_same_voxels(result, expected)
  if modality == 'PT':
    files = (real / 'PT').iterdir()
    slopes = {str(pydicom.dcmread(p).RescaleSlope) for p in files}
    assert len(slopes) == expected.data.shape[2]


def test_slices_in_reverse_order_of_names_are_sorted(real, tmp_path):
  for index, path in enumerate(sorted((real / 'CT').iterdir())[::-1]):
    shutil.copy(path, tmp_path / f'IM{index:04}')
  result = read_volume(tmp_path)
  assert_same_voxels(result, read_volume(REAL / 'ct.nii.gz'))


@settings(
  max_examples=15,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
  angles=st.tuples(*[st.floats(-180, 180)] * 3),
  spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
  flip=st.sampled_from([-1, 1]),
)
def test_oblique_stacks_keep_positions(tmp_path, angles, spacing, flip):
  affine = np.eye(4)
  rotation = Rotation.from_euler('zyx', angles, degrees=True).as_matrix()
  affine[:3, :3] = rotation * (*spacing[:2], spacing[2] * flip)
  affine[:3, 3] = (-120.5, 80.25, 400)
  shutil.rmtree(tmp_path / 's', ignore_errors=True)
  volume = Volume(SMALL.data, affine)
  write_series(tmp_path / 's', volume, 'CT')
  assert_same_voxels(read_volume(tmp_path / 's'), volume, values=0)


def test_written_output_takes_the_grid_of_a_series(tmp_path):
  write_series(tmp_path / 's', SMALL, 'MR')
  volume = read_volume(tmp_path / 's')
  write_volume(tmp_path / 'o.nii.gz', volume, like=tmp_path / 's')
  assert_same_voxels(read_volume(tmp_path / 'o.nii.gz'), SMALL, values=0)


# Studies and zips.


def test_study_with_several_series_lists_them(real):
  refused(
    real,
    'holds 3 series',
    "1 'CT axial' CT, 10 slices; 2 'MR axial' MR, 8 slices; "
    "3 'PT axial' PT, 12 slices",
  )
  assert [s.number for s in list_series(real)] == ['1', '2', '3']


@pytest.mark.parametrize('series', ['2', 'MR axial', 'mr AXIAL', 'MR', 'mr'])
def test_series_is_selected_by_number_description_or_modality(real, series):
  result = read_volume(real, series=series)
  np.testing.assert_array_equal(result.data, read_volume(real / 'MR').data)


def test_pet_is_a_name_of_pt(real):
  assert read_volume(real, series='PET').data.shape[2] == 12


def test_selection_that_matches_none_or_several_lists_series(real, tmp_path):
  refused(real, "no series match '9'", "2 'MR axial' MR", series='9')
  write_series(tmp_path / 'a', SMALL, 'MR', SeriesDescription='T1')
  write_series(tmp_path / 'b', SMALL, 'MR', SeriesDescription='T2')
  refused(tmp_path, "2 series match 'mr'", "'T1'", 'UID 1.2.3.', series='mr')
  refused(tmp_path, "2 series match '3'", series='3')
  uid = list_series(tmp_path)[0].uid
  assert read_volume(tmp_path, series=uid).data.shape == SMALL.data.shape


def test_series_applies_to_dicom_alone():
  refused(REAL / 'ct.nii.gz', 'is not DICOM', series='1')


@pytest.mark.parametrize('inside', ['', 'study/deep/'])
def test_zip_equals_the_folder(real, tmp_path, inside):
  path = tmp_path / 'study.zip'
  with zipfile.ZipFile(path, 'w') as packed:
    for file in sorted(real.rglob('*.dcm')):
      packed.write(file, f'{inside}{file.relative_to(real)}')
    packed.writestr('__MACOSX/._1.dcm', b'x')
    packed.writestr('DICOMDIR', b'x')
  assert holds_dicom(path)
  refused(path, 'holds 3 series')
  result = read_volume(path, series='PT')
  np.testing.assert_array_equal(result.data, read_volume(real / 'PT').data)


def test_zip_that_cannot_be_unpacked_is_refused(tmp_path):
  (tmp_path / 'a.zip').write_bytes(b'PK no zip')
  refused(tmp_path / 'a.zip', 'cannot be unpacked')
  with zipfile.ZipFile(tmp_path / 'b.zip', 'w') as packed:
    packed.writestr('ct.nii.gz', b'x')
  refused(tmp_path / 'b.zip', 'has no DICOM images')
  assert not holds_dicom(tmp_path / 'b.zip')


def test_other_objects_of_a_study_do_not_count(real, tmp_path):
  shutil.copytree(real / 'CT', tmp_path / 's')
  scout = {'ImageType': ['ORIGINAL', 'PRIMARY', 'LOCALIZER']}
  write_series(tmp_path / 'scout', SMALL, 'CT', **scout)
  capture = {'SOPClassUID': '1.2.840.10008.5.1.4.1.1.7'}
  write_series(tmp_path / 'capture', SMALL, 'CT', **capture)
  contour = pydicom.dcmread(tmp_path / 's/0.dcm')
  del contour.Rows, contour.PixelData
  save(contour, tmp_path / 's/contour.dcm')
  assert_same_voxels(read_volume(tmp_path), read_volume(REAL / 'ct.nii.gz'))


def test_files_that_are_clearly_not_dicom_are_ignored(tmp_path):
  write_series(tmp_path, SMALL, 'CT')
  for name in (
    'DICOMDIR',
    '.DS_Store',
    'report.pdf',
    'readme.txt',
    'Thumbs.db',
  ):
    (tmp_path / name).write_bytes(b'\x00\x01\x02')
  (tmp_path / 'LICENCE').write_text('Attribution')
  assert_same_voxels(read_volume(tmp_path), SMALL, values=0)


@pytest.mark.parametrize('content', [b'', b'\x00\x01\x02\xff' * 99])
def test_damaged_file_is_listed(tmp_path, content):
  write_series(tmp_path, SMALL, 'CT')
  (tmp_path / '6.dcm').write_bytes(content)
  refused(tmp_path, '1 files are not DICOM or damaged: 6.dcm')


def test_folder_without_dicom_lists_what_it_holds(tmp_path):
  refused(tmp_path, 'has no DICOM images; it holds nothing')
  (tmp_path / 'ct.nii.gz').write_bytes(b'x')
  refused(tmp_path, 'it holds ct.nii.gz')
  assert not holds_dicom(tmp_path)


def test_single_file_is_refused_with_the_remedy(tmp_path):
  write_series(tmp_path, SMALL, 'CT')
  refused(tmp_path / '0.dcm', 'give the folder of its series')


def test_files_without_preamble_are_read(tmp_path):
  for index, dataset in enumerate(write_series(tmp_path, SMALL, 'CT')):
    del dataset.file_meta
    path = tmp_path / f'{index}.dcm'
    pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
  assert_same_voxels(read_volume(tmp_path), SMALL, values=0)


def test_compressed_slices_are_read(tmp_path):
  rng = np.random.default_rng(0)
  data = rng.integers(-1000, 1000, (40, 30, 3)).astype(np.float32)
  volume = Volume(data, SMALL.affine)
  for index, dataset in enumerate(write_series(tmp_path, volume, 'CT')):
    dataset.compress(RLELossless)
    save(dataset, tmp_path / f'{index}.dcm')
  assert_same_voxels(read_volume(tmp_path), volume, values=0)


@pytest.mark.parametrize('compressed', [False, True])
def test_truncated_file_is_named(tmp_path, compressed):
  volume = Volume(np.tile(SMALL.data, (9, 9, 1)), SMALL.affine)
  for index, dataset in enumerate(write_series(tmp_path, volume, 'CT')):
    if compressed:
      dataset.compress(RLELossless)
      save(dataset, tmp_path / f'{index}.dcm')
  path = tmp_path / '2.dcm'
  path.write_bytes(path.read_bytes()[:-60])
  refused(tmp_path, '2.dcm')


# Stacks that are refused.


def test_missing_slices_are_counted(real, tmp_path):
  shutil.copytree(real / 'CT', tmp_path / 's')
  for name in ('4.dcm', '5.dcm'):
    (tmp_path / 's' / name).unlink()
  refused(tmp_path / 's', '2 slices are missing', '9.81 mm', '3.27 mm')


def test_every_second_slice_missing_is_noticed(tmp_path):
  write_series(tmp_path, SMALL, 'MR', SpacingBetweenSlices='2')
  refused(tmp_path, '4.00 mm apart, SpacingBetweenSlices is 2')


def test_uneven_slices_are_refused(tmp_path):
  def position(index):
    return [0.0, 0.0, 4.0 * index + 0.9 * (index == 3)]

  write_series(tmp_path, SMALL, 'CT', ImagePositionPatient=position)
  refused(tmp_path, 'slices are uneven: 4.90 mm', 'elsewhere 4.00 mm')


def test_rounded_positions_are_accepted(tmp_path):
  def position(index):
    return [-10.0, 20.0, round(30 + 3.27 * index, 1)]

  write_series(tmp_path, SMALL, 'CT', ImagePositionPatient=position)
  assert read_volume(tmp_path).spacing[2] == pytest.approx(3.27, abs=0.01)


@pytest.mark.parametrize('degrees', [-20, 1, 15])
def test_gantry_tilt_is_refused_with_its_angle(tmp_path, degrees):
  def position(index):
    z = 4.0 * index
    return [0.0, float(z * np.tan(np.radians(degrees))), z]

  write_series(tmp_path, SMALL, 'CT', ImagePositionPatient=position)
  refused(tmp_path, f'tilted by {abs(degrees)}.0 degrees')


def test_tilt_that_only_the_header_states_is_refused(tmp_path):
  write_series(tmp_path, SMALL, 'CT', GantryDetectorTilt='12.5')
  refused(tmp_path, 'GantryDetectorTilt is 12.5 degrees')


def test_repeated_positions_name_the_field_that_differs(tmp_path):
  write_series(tmp_path, SMALL, 'MR', EchoTime='5')
  write_series(tmp_path, SMALL, 'MR', names='second{}.dcm', EchoTime='12')
  refused(tmp_path, '6 of 12 slices repeat', 'EchoTime 5 and 12')


@pytest.mark.parametrize(
  ('modality', 'fields', 'message'),
  [
    ('CT', {'FrameOfReferenceUID': '1.2.9'}, 'FrameOfReferenceUID has 2'),
    (
      'MR',
      {'ImageOrientationPatient': [-1, 0, 0, 0, 0, -1]},
      'ImageOrientationPatient differs within the series, by up to 90.00',
    ),
    ('MR', {'ImageOrientationPatient': [1, 0, 0, 1, 0, 0]}, 'differs'),
    ('MR', {'PixelSpacing': [3, 3]}, 'PixelSpacing differs'),
    ('MR', {'PixelSpacing': None}, 'PixelSpacing is missing'),
    ('MR', {'PixelSpacing': [0, 2]}, 'PixelSpacing is 0'),
    ('MR', {'ImagePositionPatient': None}, 'ImagePositionPatient is missing'),
    ('CT', {'Rows': 4}, 'Rows has 2 values'),
    ('CT', {'PixelData': bytes(10)}, '10 bytes, expected 40'),
    ('CT', {'RescaleIntercept': None}, 'RescaleIntercept is missing'),
    ('CT', {'RescaleSlope': '0'}, 'RescaleSlope is 0'),
    ('PT', {'RescaleSlope': None}, 'RescaleSlope is missing'),
    ('PT', {'RescaleIntercept': '-5'}, 'RescaleIntercept -5'),
    ('PT', {'Units': 'GML'}, 'Units has 2 values'),
    ('CT', {'NumberOfFrames': '5'}, '5 frames in one file'),
    ('CT', {'PhotometricInterpretation': 'MONOCHROME1'}, 'MONOCHROME1'),
    (
      'CT',
      {'ImageType': ['ORIGINAL', 'PRIMARY', 'LOCALIZER']},
      '1 of 6 files are not slices, first 5.dcm: localiser',
    ),
    ('CT', {'SOPClassUID': '1.2.840.10008.5.1.4.1.1.7'}, 'Secondary Capture'),
    ('CT', {'Modality': 'OT'}, 'Modality OT'),
  ],
)
def test_one_slice_that_differs_is_refused(tmp_path, modality, fields, message):
  write_series(tmp_path, SMALL, modality)
  edit(tmp_path / '5.dcm', **fields)
  refused(tmp_path, message)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'SOPClassUID': '1.2.840.10008.5.1.4.1.1.7'},
      'Secondary Capture Image Storage',
    ),
    (
      {'SOPClassUID': '1.2.840.10008.5.1.4.1.1.2.1'},
      'Enhanced CT Image Storage; convert it to NIfTI with dcm2niix',
    ),
    (
      {'SOPClassUID': '1.2.840.10008.5.1.4.1.1.481.1', 'Modality': 'RTIMAGE'},
      'RT Image Storage',
    ),
    ({'PhotometricInterpretation': 'RGB', 'SamplesPerPixel': 3}, 'colour'),
    ({'PhotometricInterpretation': 'PALETTE COLOR'}, 'colour'),
    ({'ImageType': ['DERIVED', 'SECONDARY', 'LOCALIZER']}, 'localiser'),
    ({'PhotometricInterpretation': 'MONOCHROME1'}, 'inverted'),
  ],
)
def test_series_of_other_images_is_refused_by_its_kind(
  tmp_path, fields, message
):
  write_series(tmp_path, SMALL, 'CT', **fields)
  refused(tmp_path, 'holds no CT, MR or PET slices', message)
  refused(tmp_path, message, series='3')


def test_unit_of_ct_other_than_hu_is_refused(tmp_path):
  write_series(tmp_path, SMALL, 'CT', RescaleType='ED')
  refused(tmp_path, 'RescaleType is ED, expected HU')


def test_single_slice_is_refused(tmp_path):
  one = Volume(SMALL.data[..., :1], SMALL.affine)
  write_series(tmp_path, one, 'CT')
  refused(tmp_path, 'a single slice is no volume')


def test_mr_with_slope_and_intercept_is_rescaled(tmp_path):
  write_series(tmp_path, SMALL, 'MR', RescaleSlope='2.5', RescaleIntercept='-7')
  expected = Volume(SMALL.data * 2.5 - 7, SMALL.affine)
  assert_same_voxels(read_volume(tmp_path), expected)


def test_mr_with_a_slope_on_some_slices_is_refused(tmp_path):
  def first(text):
    return lambda index: text if index < 2 else None

  write_series(
    tmp_path, SMALL, 'MR', RescaleSlope=first('5'), RescaleIntercept=first('0')
  )
  refused(tmp_path, '2 of 6 slices have a RescaleSlope')


def test_only_geometry_modality_and_subject_reach_the_store(real):
  files = CaseFiles(
    'ours',
    'p1',
    Region.WHOLE_BODY,
    {Modality.CT: real / 'CT', Modality.PET: real / 'PT'},
  )
  spec = SliceSpec((32, 32))
  case = ingest(files, Settings(spec, (Modality.CT,))).case
  text = json.dumps(case.to_json())
  assert PATIENT not in text
  assert 'SECRET' not in text
  assert '2024' not in text
