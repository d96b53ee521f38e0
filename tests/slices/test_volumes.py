"""Reading and writing volumes: geometry, number types, broken files."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import affine_of, write_nifti

from synermedgen_jax.slices import volumes
from synermedgen_jax.slices.volumes import (
  Volume,
  VolumeError,
  read_volume,
  same_grid,
  write_volume,
)

COUNT = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def itk_image(data, spacing, origin, direction):
  image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
  image.SetSpacing(spacing)
  image.SetOrigin(origin)
  image.SetDirection(np.ravel(direction).tolist())
  return image


def test_slope_and_intercept_apply(tmp_path):
  path = write_nifti(tmp_path / 'v.nii.gz', COUNT, slope=0.5, inter=-10)
  np.testing.assert_array_equal(read_volume(path).data, COUNT * 0.5 - 10)


def test_uint16_beyond_int16_stays_positive(tmp_path):
  data = COUNT.astype(np.uint16)
  data[1, 2, 3] = 60000
  result = read_volume(write_nifti(tmp_path / 'v.nii', data)).data
  assert result.dtype == np.float32
  assert result[1, 2, 3] == 60000


def test_negative_values_and_ct_below_minus_1024_are_kept(tmp_path):
  result = read_volume(write_nifti(tmp_path / 'v.nii', COUNT - 3024)).data
  assert (result.min(), result.max()) == (-3024, -3001)


def test_affine_comes_from_a_qform_alone(tmp_path):
  turned = np.array([[0, -2, 0, 5], [3, 0, 0, -7], [0, 0, 4, 9], [0, 0, 0, 1]])
  path = write_nifti(tmp_path / 'v.nii', COUNT, turned, sform=0)
  np.testing.assert_allclose(read_volume(path).affine, turned, atol=1e-5)
  np.testing.assert_allclose(read_volume(path).spacing, (3, 2, 4), atol=1e-5)


@pytest.mark.parametrize('suffix', ['.mha', '.mhd', '.nrrd'])
def test_lps_file_equals_the_same_volume_as_nifti(tmp_path, suffix):
  # Written out by hand: ITK's x and y point to left and posterior.
  direction = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
  image = itk_image(COUNT, (2.0, 3.0, 4.0), (10.0, 20.0, 30.0), direction)
  path = tmp_path / f'v{suffix}'
  sitk.WriteImage(image, str(path))
  ras = [[0, -3, 0, -10], [2, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
  same = read_volume(write_nifti(tmp_path / 'v.nii', COUNT, ras))
  result = read_volume(path)
  np.testing.assert_array_equal(result.data, COUNT)
  np.testing.assert_allclose(result.affine, ras)
  assert same_grid(result, same)


def test_trailing_axis_of_one_is_dropped(tmp_path):
  path = write_nifti(tmp_path / 'v.nii', COUNT[..., None])
  np.testing.assert_array_equal(read_volume(path).data, COUNT)


def broken_files(folder):
  """Name -> (path, what the message must say)."""

  def raw(name, data):
    (folder / name).write_bytes(data)
    return folder / name

  good = write_nifti(folder / 'good.nii', COUNT).read_bytes()
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 9999, (30, 30, 30), np.int16)
  packed = write_nifti(folder / 'noise.nii.gz', noise).read_bytes()
  unknown = bytearray(good)
  unknown[70:72] = (9999).to_bytes(2, 'little')  # number type
  huge = bytearray(good)
  huge[42:48] = (30000).to_bytes(2, 'little') * 3  # shape
  with_nan = COUNT.astype(np.float32)
  with_nan[0, 0, :2] = np.nan, np.inf
  rgb = np.zeros(COUNT.shape, [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
  singular = nib.Nifti1Image(COUNT, None)
  singular.header.set_sform(np.diag([0.0, 1, 1, 1]), 1)
  sitk.WriteImage(sitk.GetImageFromArray(COUNT), str(folder / 'whole.mha'))
  mha = (folder / 'whole.mha').read_bytes()
  sitk.WriteImage(
    sitk.GetImageFromArray(np.stack([COUNT, COUNT], -1), isVector=True),
    str(folder / 'vector.mha'),
  )
  series = np.stack([COUNT, COUNT], -1)
  return {
    'missing': (folder / 'none.nii', 'no such file'),
    'suffix': (raw('v.png', b'x'), 'expected a name ending in'),
    'garbage': (raw('g.nii', rng.bytes(2000)), 'cannot be read'),
    'no bytes': (raw('n.nii.gz', b''), 'cannot be read'),
    'cut': (raw('c.nii', good[:-8]), 'truncated'),
    'cut gzip': (raw('c.nii.gz', packed[: len(packed) // 2]), 'truncated'),
    'cut mha': (raw('c.mha', mha[:-8]), 'truncated'),
    'number type': (raw('t.nii', unknown), 'datatype 9999'),
    'impossible shape': (raw('h.nii', huge), 'truncated'),
    'series': (write_nifti(folder / 's.nii', series), '(2, 3, 4, 2)'),
    'plane': (write_nifti(folder / 'p.nii', COUNT[0]), '(3, 4)'),
    'vector': (folder / 'vector.mha', 'expected one 3-D volume'),
    'nan': (write_nifti(folder / 'f.nii', with_nan), '2 of 24 voxels'),
    'empty': (write_nifti(folder / 'e.nii', 0 * COUNT + 7), 'every voxel is 7'),
    'rgb': (write_nifti(folder / 'rgb.nii', rgb), 'one real number'),
    'complex': (
      write_nifti(folder / 'z.nii', COUNT.astype(np.complex64)),
      'complex64',
    ),
    'singular': (raw('a.nii', singular.to_bytes()), 'sform or qform'),
  }


@pytest.mark.parametrize(
  'name',
  [
    'missing',
    'suffix',
    'garbage',
    'no bytes',
    'cut',
    'cut gzip',
    'cut mha',
    'number type',
    'impossible shape',
    'series',
    'plane',
    'vector',
    'nan',
    'empty',
    'rgb',
    'complex',
    'singular',
  ],
)
def test_broken_file_is_one_line_that_names_it(tmp_path, name):
  path, message = broken_files(tmp_path)[name]
  with pytest.raises(VolumeError) as error:
    read_volume(path)
  text = str(error.value)
  assert text.startswith(f'{path}: ')
  assert message in text
  assert '\n' not in text
  assert len(text) < 300 + len(str(path))


def test_grids_that_differ_by_rounding_are_the_same():
  data = np.zeros((200, 200, 20), np.float32)
  a = Volume(data, affine_of((0.9765625, 0.9765625, 3), (-90, -80, 10)))
  rounded = Volume(data, affine_of((0.9766, 0.9766, 3), (-90.01, -80, 10)))
  assert same_grid(a, rounded)


@pytest.mark.parametrize(
  ('spacing', 'origin', 'shape'),
  [
    ((1, 1, 3), (0, 0, 0.2), (200, 200, 20)),
    ((1.005, 1, 3), (0, 0, 0), (200, 200, 20)),  # 1 mm off at the far side
    ((1, 1, 3), (0, 0, 0), (200, 200, 21)),
  ],
)
def test_grids_that_differ_are_told_apart(spacing, origin, shape):
  a = Volume(np.zeros((200, 200, 20), np.float32), affine_of((1, 1, 3)))
  b = Volume(np.zeros(shape, np.float32), affine_of(spacing, origin))
  assert not same_grid(a, b)


@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
def test_written_volume_reads_back(tmp_path, suffix):
  volume = Volume(COUNT - 0.25, affine_of((1, 2, 3), (4, 5, 6)))
  write_volume(tmp_path / f'new/v{suffix}', volume)
  result = read_volume(tmp_path / f'new/v{suffix}')
  np.testing.assert_array_equal(result.data, volume.data)
  assert same_grid(result, volume)
  assert nib.load(tmp_path / f'new/v{suffix}').get_data_dtype() == np.float32


@pytest.mark.parametrize('codes', [(1, 1), (0, 1), (4, 0), (4, 1)])
def test_writing_keeps_the_coordinate_codes(tmp_path, codes):
  affine = affine_of((1, 2, 3), (4, 5, 6))
  like = write_nifti(
    tmp_path / 'like.nii.gz', COUNT, affine, sform=codes[0], qform=codes[1]
  )
  write_volume(tmp_path / 'v.nii.gz', read_volume(like), like=like)
  header = nib.load(tmp_path / 'v.nii.gz').header
  assert (header['sform_code'], header['qform_code']) == codes
  np.testing.assert_allclose(nib.load(tmp_path / 'v.nii.gz').affine, affine)


def test_writing_keeps_a_qform_that_differs_from_the_sform(tmp_path):
  # The scanner's frame beside a template's: one must not become the other.
  like = nib.Nifti1Image(COUNT, None)
  like.header.set_sform(affine_of((1, 2, 3), (4, 5, 6)), 4)
  like.header.set_qform(affine_of((1, 2, 3), (-40, 0, 0)), 1)
  (tmp_path / 'like.nii').write_bytes(like.to_bytes())
  volume = read_volume(tmp_path / 'like.nii')
  write_volume(tmp_path / 'v.nii', volume, like=tmp_path / 'like.nii')
  header = nib.load(tmp_path / 'v.nii').header
  np.testing.assert_allclose(header.get_sform()[:3, 3], (4, 5, 6))
  np.testing.assert_allclose(header.get_qform()[:3, 3], (-40, 0, 0))


def test_writing_like_a_file_on_another_grid_is_refused(tmp_path):
  like = write_nifti(tmp_path / 'like.nii', COUNT, affine_of((1, 1, 1)))
  volume = Volume(COUNT.astype(np.float32), affine_of((1, 1, 2)))
  with pytest.raises(VolumeError, match=r'is not on the grid of .*like\.nii'):
    write_volume(tmp_path / 'v.nii', volume, like=like)
  assert not (tmp_path / 'v.nii').exists()


def test_failed_write_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch
):
  volume = Volume(COUNT.astype(np.float32), np.eye(4))
  write_volume(tmp_path / 'v.nii.gz', volume)
  before = (tmp_path / 'v.nii.gz').read_bytes()

  def fail_midway(image, path):
    path.write_bytes(b'half')
    raise OSError('disk full')

  monkeypatch.setattr(volumes.nib, 'save', fail_midway)
  with pytest.raises(VolumeError, match=r'v\.nii\.gz: cannot be .*disk full'):
    write_volume(tmp_path / 'v.nii.gz', volume)
  assert [p.name for p in tmp_path.iterdir()] == ['v.nii.gz']
  assert (tmp_path / 'v.nii.gz').read_bytes() == before


def test_writing_another_format_is_refused(tmp_path):
  volume = Volume(COUNT.astype(np.float32), np.eye(4))
  with pytest.raises(VolumeError, match=r'v\.mha: expected a name ending in'):
    write_volume(tmp_path / 'v.mha', volume)
