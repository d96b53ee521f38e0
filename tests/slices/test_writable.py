"""Outputs that cannot be written are refused before any work starts."""

import os

import pytest

from synermedgen_jax.slices import volumes
from synermedgen_jax.slices.volumes import VolumeError, check_writable


def refused(message, path, **sources):
  """The output is refused with `message`, and nothing is left behind."""
  folder = next(p for p in path.parents if os.access(p, os.F_OK))
  before = sorted(folder.iterdir()) if folder.is_dir() else None
  with pytest.raises(VolumeError) as error:
    check_writable(path, **sources)
  assert message in str(error.value)
  assert '\n' not in str(error.value)
  if before is not None:
    assert sorted(folder.iterdir()) == before


def test_new_file_in_new_folders_is_writable_and_creates_nothing(tmp_path):
  check_writable(tmp_path / 'a/b/ct.nii.gz')
  assert list(tmp_path.iterdir()) == []


def test_existing_output_is_writable_and_kept(tmp_path):
  (tmp_path / 'ct.nii').write_bytes(b'old')
  (tmp_path / 'mr.nii').write_bytes(b'in')
  check_writable(tmp_path / 'ct.nii', like=tmp_path / 'mr.nii')
  assert (tmp_path / 'ct.nii').read_bytes() == b'old'


@pytest.mark.parametrize('kind', ['same', 'dots', 'symlink', 'hard link'])
@pytest.mark.parametrize('as_like', [True, False])
def test_output_that_is_an_input_is_refused(tmp_path, kind, as_like):
  source = tmp_path / 'mr.nii'
  source.write_bytes(b'in')
  output = tmp_path / 'out.nii'
  if kind == 'same':
    output = source
  elif kind == 'dots':
    output = tmp_path / 'no_such_folder/../mr.nii'
  elif kind == 'symlink':
    output.symlink_to(source)
  else:
    os.link(source, output)
  sources = {'like': source} if as_like else {'inputs': [source]}
  refused('is the input', output, **sources)


def test_input_that_is_a_link_to_the_output_is_refused(tmp_path):
  (tmp_path / 'out.nii').write_bytes(b'in')
  (tmp_path / 'mr.nii').symlink_to(tmp_path / 'out.nii')
  refused('is the input', tmp_path / 'out.nii', like=tmp_path / 'mr.nii')


def test_output_in_a_series_folder_is_refused(tmp_path):
  (tmp_path / 'series').mkdir()
  output = tmp_path / 'series/ct.nii.gz'
  refused('lies in the input folder', output, like=tmp_path / 'series')
  check_writable(tmp_path / 'ct.nii.gz', like=tmp_path / 'series')


def test_folder_at_the_output_is_refused(tmp_path):
  (tmp_path / 'ct.nii.gz').mkdir()
  refused('is a folder', tmp_path / 'ct.nii.gz')


def test_parent_that_is_a_file_is_refused(tmp_path):
  (tmp_path / 'runs').write_bytes(b'')
  refused('runs is not a folder', tmp_path / 'runs/ct.nii.gz')
  refused('runs is not a folder', tmp_path / 'runs/deep/ct.nii.gz')


def test_parent_that_is_a_broken_link_is_refused(tmp_path):
  (tmp_path / 'runs').symlink_to(tmp_path / 'none')
  refused('runs is not a folder', tmp_path / 'runs/ct.nii.gz')


def test_folder_without_permission_is_refused(tmp_path, monkeypatch):
  def denied(dir):
    raise PermissionError(13, 'Permission denied', str(dir))

  monkeypatch.setattr(volumes.tempfile, 'TemporaryFile', denied)
  refused('Permission denied', tmp_path / 'new/ct.nii.gz')


@pytest.mark.parametrize('where', ['{}.nii.gz', 'new/{}.nii.gz', '{}/ct.nii'])
def test_name_that_is_too_long_is_refused(tmp_path, where):
  refused('more than the 255', tmp_path / where.format('ä' * 130))


def test_longest_allowed_name_is_written(tmp_path):
  path = tmp_path / ('x' * 248 + '.nii.gz')
  volume = volumes.Volume(volumes.np.ones((2, 2, 2)), volumes.np.eye(4))
  check_writable(path)
  volumes.write_volume(path, volume)
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize('name', ['ct.mha', 'ct', 'ct.nii.gz.bak', ''])
def test_other_format_is_refused(tmp_path, name):
  refused('expected a name ending in .nii or .nii.gz', tmp_path / name)


def test_bucket_is_refused():
  with pytest.raises(VolumeError, match='expected a local file'):
    check_writable('gs://bucket/ct.nii.gz')
