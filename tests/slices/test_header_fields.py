"""Every header field that determines where a voxel lies is used or refused."""

import gzip
import os
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import affine_of, write_nifti

from synermedgen_jax.slices import volumes
from synermedgen_jax.slices.nifti import forms_differ_mm
from synermedgen_jax.slices.volumes import (
  Volume,
  VolumeError,
  read_volume,
  same_grid,
  write_volume,
)

COUNT = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
AFFINE = affine_of((2, 3, 4), (10, -20, 30))
# Offsets of header fields in NIfTI-1, from nifti1.h.
PIXDIM, OFFSET, SLOPE, INTER, UNITS = 76, 108, 112, 116, 123
QFORM_CODE, SFORM_CODE, QUATERNION, QOFFSET, SROW = 252, 254, 256, 268, 280

quick = settings(
  max_examples=30,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def nifti(path, *patches, sform=1, qform=1, data=COUNT, affine=AFFINE):
  """A NIfTI file with bytes replaced: patches of (offset, format, *values)."""
  write_nifti(path, data, affine)
  raw = bytearray(path.read_bytes())
  patches = ((SFORM_CODE, 'h', sform), (QFORM_CODE, 'h', qform), *patches)
  for offset, code, *values in patches:
    new = struct.pack(f'<{code}', *values)
    raw[offset : offset + len(new)] = new
  path.write_bytes(bytes(raw))
  return path


def refused(path, *messages):
  with pytest.raises(VolumeError) as error:
    read_volume(path)
  text = str(error.value)
  assert text.startswith(f'{path}: ')
  assert '\n' not in text
  for message in messages:
    assert message in text


# NIfTI: sform and qform.


def test_neither_sform_nor_qform_is_refused_with_the_remedy(tmp_path):
  path = nifti(tmp_path / 'v.nii', sform=0, qform=0)
  refused(path, 'neither sform nor qform', 'set_sform')


@quick
@given(sform=st.integers(-3, 9), qform=st.integers(-3, 9))
def test_codes_select_the_form_or_are_refused(tmp_path, sform, qform):
  path = nifti(
    tmp_path / 'v.nii',
    (SFORM_CODE, 'h', sform),
    (QFORM_CODE, 'h', qform),
    (QOFFSET, 'f', 99.0),
  )
  other = AFFINE.copy()
  other[0, 3] = 99
  if sform in range(1, 6):
    np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-5)
  elif sform == 0 and qform in range(1, 6):
    np.testing.assert_allclose(read_volume(path).affine, other, atol=1e-5)
  else:
    refused(path, '_code is' if sform or qform else 'neither')


@quick
@given(
  shift=st.floats(-200, 200),
  axis=st.integers(0, 2),
  unit=st.sampled_from([(0, 1), (2, 1), (3, 1e-3)]),
)
def test_difference_of_the_forms_is_reported_in_mm(tmp_path, shift, axis, unit):
  moved = float(np.float32(AFFINE[axis, 3] + shift / unit[1]))
  affine = AFFINE.copy()
  affine[:3] /= unit[1]
  path = nifti(
    tmp_path / 'v.nii',
    (UNITS, 'B', unit[0]),
    (QOFFSET + 4 * axis, 'f', moved),
    affine=affine,
  )
  expected = abs(moved - affine[axis, 3]) * unit[1]
  assert forms_differ_mm(path) == pytest.approx(expected, abs=1e-4)
  np.testing.assert_allclose(read_volume(path).affine, AFFINE, atol=1e-5)


def test_a_turn_between_the_forms_counts_at_the_farthest_corner(tmp_path):
  # 180 degrees about z: corner (1, 2, 3) moves from (2, 6) to (-2, -6).
  path = nifti(
    tmp_path / 'v.nii',
    (QUATERNION, 'fff', 0, 0, 1),
    affine=affine_of((2, 3, 4)),
  )
  assert forms_differ_mm(path) == pytest.approx(np.hypot(4, 12), abs=1e-4)


@pytest.mark.parametrize('codes', [(1, 0), (0, 1)])
def test_a_single_form_differs_from_nothing(tmp_path, codes):
  path = nifti(tmp_path / 'v.nii', sform=codes[0], qform=codes[1])
  assert forms_differ_mm(path) == 0


BROKEN_QFORM = {
  'quaternion': (QUATERNION, 'fff', 0.8, 0.8, 0.5),
  'quaternion with NaN': (QUATERNION, 'fff', np.nan, 0, 0),
  'zero pixdim': (PIXDIM + 4, 'fff', 2, 0, 4),
  'negative pixdim': (PIXDIM + 4, 'fff', 2, -3, 4),
  'NaN pixdim': (PIXDIM + 4, 'fff', 2, np.nan, 4),
  'infinite pixdim': (PIXDIM + 4, 'fff', 2, np.inf, 4),
  'qfac': (PIXDIM, 'f', -3),
  'NaN qoffset': (QOFFSET, 'f', np.nan),
}


@pytest.mark.parametrize('name', BROKEN_QFORM)
def test_broken_qform_is_refused_alone_and_harmless_beside_a_sform(
  tmp_path, name
):
  alone = nifti(tmp_path / 'q.nii', BROKEN_QFORM[name], sform=0)
  refused(alone, 'its ', 'sform or qform')
  beside = nifti(tmp_path / 'v.nii', BROKEN_QFORM[name])
  volume = read_volume(beside)
  np.testing.assert_allclose(volume.affine, AFFINE)
  assert forms_differ_mm(beside) == 0
  write_volume(tmp_path / 'o.nii', volume, like=beside)
  header = nib.load(tmp_path / 'o.nii').header
  assert (header['sform_code'], header['qform_code']) == (1, 0)
  np.testing.assert_allclose(header.get_sform(), AFFINE)


@pytest.mark.parametrize(
  ('patch', 'message'),
  [
    ((SROW, 'ffff', np.nan, 0, 0, 0), 'NaN'),
    ((SROW, 'ffff', np.inf, 0, 0, 0), 'infinite'),
    ((SROW, 'ffff', 0, 0, 0, 0), 'determinant 0'),
  ],
)
def test_broken_sform_is_not_replaced_by_the_qform(tmp_path, patch, message):
  refused(nifti(tmp_path / 'v.nii', patch), 'its sform', message)


def test_quaternion_beyond_1_by_rounding_is_normalised(tmp_path):
  path = nifti(tmp_path / 'v.nii', (QUATERNION, 'fff', 0, 0, 1.00001), sform=0)
  expected = np.diag([-2.0, -3, 4, 1])
  expected[:3, 3] = AFFINE[:3, 3]
  np.testing.assert_allclose(read_volume(path).affine, expected, atol=1e-4)


@quick
@given(data=st.data())
def test_qform_equals_nibabels(tmp_path, data):
  number = st.floats(-1, 1, width=32)
  quaternion = np.array(data.draw(st.tuples(number, number, number)))
  quaternion *= 0.999 / max(1, np.linalg.norm(quaternion))
  qfac = data.draw(st.sampled_from([-1, 0, 1]))
  path = nifti(
    tmp_path / 'v.nii',
    (QUATERNION, 'fff', *quaternion),
    (PIXDIM, 'f', qfac),
    sform=0,
  )
  expected = nib.load(path).header.get_qform()
  np.testing.assert_allclose(read_volume(path).affine, expected, atol=1e-5)


def test_pixdim_does_not_matter_beside_a_sform(tmp_path):
  path = nifti(tmp_path / 'v.nii', (PIXDIM + 4, 'fff', 0, -9, 77), qform=0)
  np.testing.assert_allclose(read_volume(path).spacing, (2, 3, 4))


# NIfTI: units, number types, containers.


@pytest.mark.parametrize('sform', [0, 1])
@pytest.mark.parametrize(
  ('unit', 'mm'), [(0, 1), (2, 1), (3, 1e-3), (1, 1e3), (2 | 8, 1), (16, 1)]
)
def test_units_become_mm_also_in_what_is_written(tmp_path, unit, mm, sform):
  affine = AFFINE.copy()
  affine[:3] /= mm
  path = nifti(
    tmp_path / 'v.nii', (UNITS, 'B', unit), sform=sform, affine=affine
  )
  volume = read_volume(path)
  np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)
  write_volume(tmp_path / 'o.nii', volume, like=path)
  written = nib.load(tmp_path / 'o.nii')
  np.testing.assert_allclose(written.affine, AFFINE, rtol=1e-6)
  assert written.header.get_xyzt_units()[0] == 'mm'


@pytest.mark.parametrize('unit', [4, 5, 6, 7])
def test_unknown_unit_is_refused(tmp_path, unit):
  refused(nifti(tmp_path / 'v.nii', (UNITS, 'B', unit)), f'units is {unit}')


@pytest.mark.parametrize(('unit', 'size'), [(1, '2000 x'), (3, '0.002 x')])
def test_unit_that_gives_impossible_voxels_is_refused(tmp_path, unit, size):
  refused(nifti(tmp_path / 'v.nii', (UNITS, 'B', unit)), size, 'unit')


@pytest.mark.parametrize('slope', [0.0, np.nan])
@pytest.mark.parametrize('inter', [0.0, 5.0, np.nan])
def test_slope_of_zero_or_nan_means_no_scaling(tmp_path, slope, inter):
  path = nifti(tmp_path / 'v.nii', (SLOPE, 'ff', slope, inter))
  np.testing.assert_array_equal(read_volume(path).data, COUNT)


@pytest.mark.parametrize(('slope', 'inter'), [(np.inf, 0), (2, np.nan)])
def test_scaling_that_is_no_number_is_refused(tmp_path, slope, inter):
  refused(nifti(tmp_path / 'v.nii', (SLOPE, 'ff', slope, inter)), 'scl_')


def test_negative_slope_applies(tmp_path):
  path = nifti(tmp_path / 'v.nii', (SLOPE, 'ff', -2, 3))
  np.testing.assert_array_equal(read_volume(path).data, COUNT * -2 + 3)


@pytest.mark.parametrize('offset', [0.0, 16.0, -352.0, np.nan, np.inf, 1e30])
def test_offset_of_the_voxels_within_the_header_is_refused(tmp_path, offset):
  refused(nifti(tmp_path / 'v.nii', (OFFSET, 'f', offset)), 'vox_offset')


@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize('order', ['<', '>'])
def test_byte_order_and_version_do_not_matter(tmp_path, kind, order):
  header = kind.header_class(endianness=order)
  header.set_data_dtype(np.int16)
  image = kind(COUNT, AFFINE, header)
  (tmp_path / 'v.nii').write_bytes(image.to_bytes())
  volume = read_volume(tmp_path / 'v.nii')
  np.testing.assert_array_equal(volume.data, COUNT)
  write_volume(tmp_path / 'o.nii', volume, like=tmp_path / 'v.nii')
  assert same_grid(read_volume(tmp_path / 'o.nii'), volume)


@pytest.mark.parametrize(
  'name', ['v.nii', 'v.nii.gz', 'v.Nii.Gz', 'v.NII', 'v.NII.gz']
)
@pytest.mark.parametrize('packed', [True, False])
def test_gzip_is_recognised_by_content_under_every_name(tmp_path, name, packed):
  raw = nifti(tmp_path / 'raw.nii').read_bytes()
  path = tmp_path / name
  path.write_bytes(gzip.compress(raw) if packed else raw)
  volume = read_volume(path)
  np.testing.assert_array_equal(volume.data, COUNT)
  write_volume(tmp_path / 'o.nii.gz', volume, like=path)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (gzip.compress(gzip.compress(b'x', mtime=0), mtime=0), 'compressed twice'),
    (b'PK\x03\x04' + bytes(600), 'a zip archive'),
    (bytes(128) + b'DICM' + bytes(600), 'a DICOM file'),
    (b'NRRD0004\ntype: int16\n' + bytes(600), 'an NRRD file'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'),
    (b'<!DOCTYPE html>' + bytes(600), 'no NIfTI header'),
    (b'', 'truncated'),
    (struct.pack('<i', 540) + b'n+2\0' + bytes(400), '408 of 540 bytes'),
  ],
)
def test_other_content_under_a_nifti_name_is_named(tmp_path, content, message):
  path = tmp_path / 'v.nii.gz'
  path.write_bytes(content)
  refused(path, message)


def test_analyze_and_pairs_are_refused_by_name(tmp_path):
  analyze = nib.AnalyzeImage(COUNT, AFFINE)
  nib.save(analyze, tmp_path / 'a.img')
  nib.save(nib.Nifti1Pair(COUNT, AFFINE), tmp_path / 'p.img')
  for name in ('a.img', 'a.hdr', 'p.img', 'p.hdr'):
    refused(tmp_path / name, 'pair', '.nii.gz')
  for name, kind in (('a', 'Analyze 7.5'), ('p', '.hdr/.img pair')):
    renamed = tmp_path / f'{name}.nii'
    renamed.write_bytes((tmp_path / f'{name}.hdr').read_bytes() + bytes(999))
    refused(renamed, kind)


@quick
@given(
  offset=st.integers(0, 351),
  values=st.binary(min_size=1, max_size=8),
)
def test_damaged_header_is_read_or_refused_in_one_line(
  tmp_path, offset, values
):
  path = nifti(tmp_path / 'v.nii', (offset, f'{len(values)}s', values))
  volume = message = None
  try:
    volume = read_volume(path)
  except VolumeError as error:
    message = str(error)
  if message is not None:
    assert message.startswith(f'{path}: ')
    assert '\n' not in message
    return
  write_volume(tmp_path / 'o.nii', volume, like=path)
  assert same_grid(read_volume(tmp_path / 'o.nii'), volume)


# NRRD.

FLIPS = {
  'left-posterior-superior': (-1, -1, 1),
  'LPS': (-1, -1, 1),
  'right-anterior-superior': (1, 1, 1),
  'RAS': (1, 1, 1),
  'left-anterior-superior': (-1, 1, 1),
  'las': (-1, 1, 1),
}


def nrrd(path, fields=None, data=COUNT):
  """An NRRD file; a field of None is left out."""
  fields = {
    'type': 'int16',
    'dimension': '3',
    'sizes': '2 3 4',
    'encoding': 'raw',
    'endian': 'little',
    'space': 'LPS',
    'space directions': '(2,0,0) (0,3,0) (0,0,4)',
    'space origin': '(10,20,30)',
    **(fields or {}),
  }
  lines = [f'{k}: {v}' for k, v in fields.items() if v is not None]
  head = '\n'.join(['NRRD0005', '# comment', *lines, '', ''])
  path.write_bytes(head.encode() + data.tobytes('F'))
  return path


@pytest.mark.parametrize('space', FLIPS)
def test_nrrd_space_defines_left_and_front(tmp_path, space):
  volume = read_volume(nrrd(tmp_path / 'v.nrrd', {'space': space}))
  flips = np.array(FLIPS[space])
  expected = np.diag([*(np.array([2, 3, 4]) * flips), 1.0])
  expected[:3, 3] = np.array([10, 20, 30]) * flips
  np.testing.assert_allclose(volume.affine, expected)
  np.testing.assert_array_equal(volume.data, COUNT)


@pytest.mark.parametrize(
  'fields',
  [
    {'space': None},
    {'space': None, 'space dimension': '3'},
    {'space': 'scanner-xyz'},
    {'space': '3D-right-handed'},
    {'space': '3D-left-handed'},
    {'space': 'right-anterior-superior-time'},
    {'space': 'RPI'},
    {'space directions': None},
    {'space directions': None, 'spacings': '2 3 4'},
    {'space directions': 'none (0,3,0) (0,0,4)'},
    {'space directions': '(nan,nan,nan) (0,3,0) (0,0,4)'},
    {'space origin': None},
    {'space origin': '(nan,nan,nan)'},
    {'space origin': '(1,2)'},
    {'space units': '"parsec" "parsec" "parsec"'},
    {'space units': '"mm" "mm" "cm"'},
  ],
)
def test_nrrd_with_an_unknown_position_is_refused(tmp_path, fields):
  refused(nrrd(tmp_path / 'v.nrrd', fields), f'its {next(iter(fields))[:5]}')


@pytest.mark.parametrize(
  ('unit', 'mm'), [('mm', 1), ('', 1), ('um', 1e-3), ('cm', 10), ('m', 1e3)]
)
def test_nrrd_units_become_mm(tmp_path, unit, mm):
  s, o = (np.array(v) / mm for v in ((2, 3, 4), (10, 20, 30)))
  path = nrrd(
    tmp_path / 'v.nrrd',
    {
      'space directions': f'({s[0]},0,0) (0,{s[1]},0) (0,0,{s[2]})',
      'space origin': f'({o[0]},{o[1]},{o[2]})',
      'space units': f'"{unit}" "{unit}" "{unit}"',
    },
  )
  volume = read_volume(path)
  np.testing.assert_allclose(volume.spacing, (2, 3, 4))
  np.testing.assert_allclose(volume.affine[:3, 3], (-10, -20, 30))


def test_nhdr_with_its_data_file_and_without(tmp_path):
  path = nrrd(tmp_path / 'v.nhdr', {'data file': 'v.raw'}, data=COUNT[:0])
  refused(path, 'data file v.raw is missing')
  (tmp_path / 'v.raw').write_bytes(COUNT.tobytes('F'))
  np.testing.assert_array_equal(read_volume(path).data, COUNT)


def test_a_carriage_return_divides_lines_as_the_nrrd_reader_does(tmp_path):
  path = nrrd(tmp_path / 'v.nrrd', {'content': 'x\rdata file: v.raw'})
  refused(path, 'data file v.raw is missing')
  path = nrrd(tmp_path / 'w.nrrd')
  content = path.read_bytes()
  end = content.index(b'\n\n') + 2
  path.write_bytes(content[:end].replace(b'\n', b'\r') + content[end:])
  np.testing.assert_array_equal(read_volume(path).data, COUNT)


def test_a_nrrd_header_without_an_end_in_64_kb_is_refused(tmp_path):
  lines = {f'key{i}': 'x' * 90 for i in range(700)}
  refused(nrrd(tmp_path / 'v.nrrd', lines), 'more than 65536 bytes')


# MetaImage.


def metaimage(path, fields=None, data=COUNT):
  fields = {
    'ObjectType': 'Image',
    'NDims': '3',
    'BinaryData': 'True',
    'BinaryDataByteOrderMSB': 'False',
    'DimSize': '2 3 4',
    'ElementSpacing': '2 3 4',
    'TransformMatrix': '0 1 0 -1 0 0 0 0 1',
    'Offset': '10 20 30',
    'ElementType': 'MET_SHORT',
    **(fields or {}),
  }
  data_file = fields.pop('ElementDataFile', 'LOCAL')
  lines = [f'{k} = {v}' for k, v in fields.items() if v is not None]
  head = '\n'.join([*lines, f'ElementDataFile = {data_file}', ''])
  path.write_bytes(head.encode() + data.tobytes('F'))
  return path


META_AFFINE = [[0, 3, 0, -10], [-2, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]


@pytest.mark.parametrize('name', ['v.mha', 'v.MhA'])
@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'AnatomicalOrientation': 'RAI'},
    {'Offset': None, 'Position': '10 20 30'},
    {'TransformMatrix': None, 'Orientation': '0 1 0 -1 0 0 0 0 1'},
    {'DistanceUnits': 'mm'},
    {'CenterOfRotation': '0 0 0'},
    {
      'DistanceUnits': 'um',
      'ElementSpacing': '2000 3000 4000',
      'Offset': '10000 20000 30000',
    },
    {
      'NDims': '4',
      'DimSize': '2 3 4 1',
      'ElementSpacing': '2 3 4 1',
      'Offset': '10 20 30 0',
      'TransformMatrix': '0 1 0 0 -1 0 0 0 0 0 1 0 0 0 0 1',
    },
  ],
)
def test_metaimage_fields_define_the_position(tmp_path, name, fields):
  volume = read_volume(metaimage(tmp_path / name, fields))
  np.testing.assert_allclose(volume.affine, META_AFFINE, atol=1e-9)
  np.testing.assert_array_equal(volume.data, COUNT)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'Offset': None}, 'Offset is missing'),
    ({'TransformMatrix': None}, 'TransformMatrix is missing'),
    (
      {'TransformMatrix': None, 'AnatomicalOrientation': 'LPS'},
      'TransformMatrix is missing',
    ),
    ({'ElementSpacing': None}, 'ElementSpacing is missing'),
    ({'elementspacing': '2 3 4', 'ElementSpacing': None}, 'missing'),
    ({'Offset': 'nan 1 2'}, 'Offset is nan 1 2'),
    ({'Offset': '1 2'}, 'Offset is 1 2'),
    ({'Position': '1 1 1'}, 'given twice'),
    ({'ElementSpacing': '0 3 4'}, 'ElementSpacing is 0 3 4'),
    ({'ElementSpacing': '-2 3 4'}, 'ElementSpacing is -2 3 4'),
    ({'TransformMatrix': '2 0 0 0 2 0 0 0 2'}, 'length 2 2 2'),
    ({'TransformMatrix': '0 0 0 0 0 0 0 0 0'}, 'length 0 0 0'),
    ({'TransformMatrix': '1 0 0 1 0 0 0 0 1'}, 'cannot be'),
    ({'TransformMatrix': '1 0 0'}, 'expected 9'),
    ({'CenterOfRotation': '5 0 0'}, 'CenterOfRotation is 5 0 0'),
    ({'ElementToIntensityFunctionSlope': '2'}, 'Slope is 2'),
    ({'ElementToIntensityFunctionOffset': '-1024'}, 'Offset is -1024'),
    ({'DistanceUnits': 'inch'}, 'DistanceUnits is inch'),
    ({'ElementDataFile': 'none.raw'}, 'data file none.raw is missing'),
    ({'NDims': '2', 'DimSize': '2 3'}, 'expected 2'),
  ],
)
def test_metaimage_with_an_unknown_position_is_refused(
  tmp_path, fields, message
):
  refused(metaimage(tmp_path / 'v.mha', fields), message)


@pytest.mark.parametrize(
  ('line', 'other'),
  [
    ('Offset = 10 20 30', 'Offset = 100 20 30'),
    ('Offset = 10 20 30', 'Offset:100 20 30'),
    ('DimSize = 2 3 4', 'DimSize = 3 2 4'),
    ('ElementSpacing = 2 3 4', 'ElementSpacing = 1 1 1'),
  ],
)
def test_a_metaimage_field_with_two_values_is_refused(tmp_path, line, other):
  """MetaIO uses the last one."""
  path = metaimage(tmp_path / 'v.mha', {'Comment': 'a'})
  content = path.read_bytes()
  name, value = line.split(' = ')

  def write(added):
    added = f'{line}\n{added}\nComment = b'.encode()
    path.write_bytes(content.replace(line.encode(), added, 1))

  write(other)
  refused(path, f'its header gives {name} as {value} and as ', 'remove one')
  write(line)
  np.testing.assert_array_equal(read_volume(path).data, COUNT)


def test_metaimage_of_several_frames_is_refused(tmp_path):
  frames = sitk.Image([2, 3, 4, 2], sitk.sitkInt16)
  sitk.WriteImage(frames, str(tmp_path / 'v.mha'))
  refused(tmp_path / 'v.mha', '(2, 3, 4, 2)', 'one 3-D volume')


# Paths.


def test_folder_named_like_a_volume_holds_the_volume(tmp_path):
  folder = tmp_path / 'ct.nii.gz'
  folder.mkdir()
  refused(folder, 'is a folder that holds nothing')
  nifti(folder / 'ct.nii')
  (folder / '._ct.nii').write_bytes(b'x')
  (folder / 'notes.txt').write_bytes(b'x')
  volume = read_volume(folder)
  np.testing.assert_array_equal(volume.data, COUNT)
  write_volume(tmp_path / 'o.nii', volume, like=folder)
  nifti(folder / 'mask.nii')
  refused(folder, 'is a folder that holds ct.nii, mask.nii')


def test_broken_and_cyclic_links_are_named(tmp_path):
  (tmp_path / 'v.nii').symlink_to(tmp_path / 'none.nii')
  refused(tmp_path / 'v.nii', 'a link to', 'none.nii, which does not exist')
  (tmp_path / 'a.nii').symlink_to(tmp_path / 'a.nii')
  refused(tmp_path / 'a.nii', 'cannot be read')


def test_file_without_permission_is_named(tmp_path, monkeypatch):
  path = nifti(tmp_path / 'v.nii')

  def denied(self, mode):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(volumes.Path, 'open', denied)
  refused(path, 'cannot be read (Permission denied)')


def test_pipe_is_refused_without_waiting(tmp_path):
  os.mkfifo(tmp_path / 'v.nii')
  refused(tmp_path / 'v.nii', 'neither a file nor a folder')


def test_volume_with_an_axis_too_long_to_be_written_is_refused(tmp_path):
  path = tmp_path / 'v.nii'
  image = nib.Nifti2Image(np.zeros((32768, 1, 1), np.uint8), AFFINE)
  path.write_bytes(image.to_bytes())
  refused(path, 'at most 32767')


def test_origin_beyond_what_can_be_written_is_refused(tmp_path):
  refused(metaimage(tmp_path / 'v.mha', {'Offset': '9e99 0 0'}), 'origin')


def test_every_readable_grid_is_written_back(tmp_path):
  sheared = affine_of((1, 2, 3), (4, 5, 6))
  sheared[0, 1] = 0.4
  volume = Volume(COUNT.astype(np.float32), sheared)
  write_volume(tmp_path / 'v.nii', volume)
  result = read_volume(tmp_path / 'v.nii')
  np.testing.assert_allclose(result.affine, sheared, atol=1e-6)
  write_volume(tmp_path / 'w.nii', result, like=tmp_path / 'v.nii')
  np.testing.assert_allclose(
    read_volume(tmp_path / 'w.nii').affine, sheared, atol=1e-6
  )
