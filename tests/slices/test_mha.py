"""MetaImage files are read back as they were written."""

import hypothesis
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from synermedgen_jax.core.errors import VolumeError
from synermedgen_jax.slices.itk import read_itk, write_mha

DATA = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1024


@hypothesis.given(
  angles=st.tuples(*[st.floats(-180, 180)] * 3),
  spacing=st.tuples(*[st.floats(0.3, 7)] * 3),
  origin=st.tuples(*[st.floats(-2000, 2000)] * 3),
  mirrored=st.booleans(),
)
@hypothesis.settings(max_examples=50)
def test_voxels_and_geometry_are_read_back(
  tmp_path_factory, angles, spacing, origin, mirrored
):
  affine = np.eye(4)
  affine[:3, :3] = Rotation.from_euler('xyz', angles, degrees=True).as_matrix()
  affine[:3, 0] *= -1 if mirrored else 1
  affine[:3, :3] *= spacing
  affine[:3, 3] = origin
  path = tmp_path_factory.mktemp('mha') / 'ct.mha'
  write_mha(path, DATA, affine)
  data, read = read_itk(path)
  np.testing.assert_array_equal(data, DATA)
  corner = np.array([1, 2, 3, 1])  # the last voxel
  assert np.abs((read - affine) @ corner).max() < 0.001
  assert np.abs(read - affine)[:3, 3].max() < 0.001


def test_simpleitk_reads_the_dtype_and_the_place_of_a_voxel(tmp_path):
  affine = np.diag([2.0, 3, 4, 1])
  affine[:3, 3] = 10, 20, 30
  write_mha(tmp_path / 'new' / 'ct.mha', DATA, affine)
  image = sitk.ReadImage(str(tmp_path / 'new' / 'ct.mha'))
  assert image.GetPixelID() == sitk.sitkInt16
  assert image.GetPixel(1, 2, 3) == DATA[1, 2, 3]
  # LPS: x and y point the other way than those of RAS.
  point = image.TransformIndexToPhysicalPoint((1, 2, 3))
  assert point == pytest.approx((-12, -26, 42))
  assert [p.name for p in (tmp_path / 'new').iterdir()] == ['ct.mha']


def test_another_suffix_and_a_path_that_cannot_be_written_are_refused(tmp_path):
  with pytest.raises(VolumeError, match=r'ct\.nii: expected a name ending in'):
    write_mha(tmp_path / 'ct.nii', DATA, np.eye(4))
  (tmp_path / 'file').touch()
  with pytest.raises(VolumeError, match=r'ct\.mha: cannot be written'):
    write_mha(tmp_path / 'file' / 'ct.mha', DATA, np.eye(4))
