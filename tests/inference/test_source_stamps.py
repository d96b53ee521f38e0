"""A changed source has another stamp, wherever its voxels lie."""

import os

import numpy as np
import pytest
import SimpleITK as sitk

from synermedgen_jax.inference.sidecar import stamp

VOXELS = np.arange(24, dtype=np.int16).reshape(4, 3, 2)


def write(path, data=VOXELS):
  path.parent.mkdir(exist_ok=True)
  sitk.WriteImage(sitk.GetImageFromArray(data), str(path))
  return path


def changes(path, source):
  """Whether new bytes of `path`, as many as before, change the stamp."""
  before = stamp(source)
  assert stamp(source) == before
  content = path.read_bytes()
  path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  later = path.stat().st_mtime_ns + 10**9
  os.utime(path, ns=(later, later))
  return stamp(source) != before


@pytest.mark.parametrize(
  ('header', 'data'),
  [('v.mha', 'v.mha'), ('v.mhd', 'v.raw'), ('v.nhdr', 'v.raw')],
)
def test_voxels_beside_the_header_count(tmp_path, header, data):
  source = write(tmp_path / header)
  (tmp_path / 'other.raw').write_bytes(b'other')
  assert changes(tmp_path / data, source)
  assert not changes(tmp_path / 'other.raw', source)
  other = tmp_path / data
  other.write_bytes(other.read_bytes() + b'longer')
  assert stamp(source)[0] == sum(
    (tmp_path / name).stat().st_size for name in {header, data}
  )


@pytest.mark.parametrize(
  'named', ['LIST\n{0}\n{1}\n', 's%d.raw 0 1 1\n', '{folder}/s%01d.raw 0 1 1\n']
)
@pytest.mark.parametrize('suffix', ['mhd', 'nhdr'])
def test_voxels_in_several_files_count(tmp_path, named, suffix):
  source = write(tmp_path / f'v.{suffix}')
  names = [f's{i}.raw' for i in range(2)]
  for name in names:
    (tmp_path / name).write_bytes(VOXELS[:2].tobytes())
  text = source.read_text()
  assert text.count('v.raw') == 1
  source.write_text(
    text.replace('v.raw', named.format(*names, folder=tmp_path)).rstrip('\n')
    + '\n'
  )
  assert changes(tmp_path / 's1.raw', source)
  assert not changes(tmp_path / 'v.raw', source)


def test_a_file_of_a_folder_counts(tmp_path):
  source = tmp_path / 'series'
  write(source / '1.mhd')
  (source / 'folder.mhd').mkdir()
  (tmp_path / 'apart').mkdir()
  assert changes(source / '1.raw', source)
  (source / '2.dcm').write_bytes(b'a slice')
  assert changes(source / '2.dcm', source)
