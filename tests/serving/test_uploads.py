"""Uploads have safe names and bounded sizes, also unpacked."""

import asyncio
import gzip
import struct
import zipfile

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.core.errors import UserError, VolumeError
from synermedgen_jax.serving import uploads
from synermedgen_jax.serving.jobs import Jobs
from synermedgen_jax.serving.sessions import Sessions
from synermedgen_jax.serving.uploads import TooLarge, UploadError, safe_name
from synermedgen_jax.slices.volumes import read_volume


@pytest.mark.parametrize(
  ('name', 'safe'),
  [
    ('mr.nii.gz', 'mr.nii.gz'),
    ('../../etc/passwd', 'passwd'),
    ('..\\..\\boot.ini', 'boot.ini'),
    ('/abs/ct.mha', 'ct.mha'),
    ('.hidden.nii', 'hidden.nii'),
    ('a b<script>.nii', 'a_b_script_.nii'),
    ('nul\0\n.nii', 'nul_.nii'),
    ('Kopf ä.nii', 'Kopf_ä.nii'),
    ('..', 'file'),
    ('', 'file'),
    ('x' * 300 + '.nii.gz', 'x' * 93 + '.nii.gz'),
  ],
)
def test_names_have_no_folder_and_no_odd_characters(name, safe):
  assert safe_name(name) == safe


@pytest.fixture
def session(tmp_path):
  return Sessions(tmp_path, Jobs()).open()


def receive(session, upload, name, *chunks, limit=100):
  async def stream():
    for chunk in chunks:
      yield chunk

  asyncio.run(uploads.receive(stream(), session, upload, name, limit))


def test_files_of_one_name_are_kept_apart(session):
  upload = session.begin_upload('source', 'IM1')
  receive(session, upload, 'a/IM1', b'1', b'2')
  assert upload.path.read_bytes() == b'12'
  assert upload.name == 'IM1'
  receive(session, upload, 'b/IM1', b'3')
  assert upload.files == ['IM1', '1_IM1']
  assert upload.path == upload.folder
  assert upload.size == 3
  assert upload.name == 'IM1 and 1 more files'


def test_a_name_that_an_earlier_file_was_given_is_free_for_no_other(session):
  upload = session.begin_upload('source', 'a')
  for content, name in enumerate(('a', '2_a', 'a', 'A', 'a')):
    receive(session, upload, name, b'%d' % content)
  kept = [(upload.folder / name).read_bytes() for name in upload.files]
  assert kept == [b'0', b'1', b'2', b'3', b'4']


def test_bytes_beyond_the_limit_are_not_stored(session):
  upload = session.begin_upload('source', 'x.nii')
  with pytest.raises(TooLarge, match='at most 0 MB are accepted'):
    receive(session, upload, 'x.nii', b'a' * 60, b'b' * 41)
  assert (upload.folder / 'x.nii').stat().st_size == 60
  assert not upload.files


def test_a_declared_length_is_refused_before_a_byte_arrives(session):
  session.folder.mkdir()
  uploads.check_declared(session, None, 100, 100)
  with pytest.raises(TooLarge, match='has 3000 MB, at most 2048 MB'):
    uploads.check_declared(session, None, 3_000_000_000, 2_048_000_000)
  upload = session.begin_upload('source', 'IM1')
  receive(session, upload, 'IM1', b'a' * 60)
  with pytest.raises(TooLarge):
    uploads.check_declared(session, upload, 41, 100)
  with pytest.raises(UploadError, match='set TMPDIR'):
    uploads.check_declared(session, None, 10**18, 10**19)


def test_an_upload_of_a_browser_that_left_ends(session):
  upload = session.begin_upload('source', 'x.nii')
  session.closed = True
  with pytest.raises(UploadError, match='has left'):
    receive(session, upload, 'x.nii', b'a')


def given(session, name, content):
  upload = session.begin_upload('source', name)
  receive(session, upload, name, content, limit=10**9)
  return upload


def test_a_zip_bomb_is_refused_by_its_list_of_contents(session, tmp_path):
  path = tmp_path / 'bomb.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as packed:
    for i in range(3):
      packed.writestr(f'IM{i}', bytes(1_000_000))
  assert path.stat().st_size < 10_000
  upload = given(session, 'bomb.zip', path.read_bytes())
  uploads.check_contents(upload, 3_000_000)
  with pytest.raises(TooLarge, match=r'bomb\.zip unpacked has 3 MB'):
    uploads.check_contents(upload, 2_999_999)


def test_a_small_file_of_a_huge_volume_is_refused_by_its_header(session):
  header = nib.Nifti1Header()
  header.set_data_shape((2000, 2000, 2000))
  header.set_data_dtype(np.uint8)
  header['vox_offset'] = 352
  header.set_sform(np.eye(4), 1)
  content = gzip.compress(header.binaryblock + bytes(1000))
  upload = given(session, 'big.nii.gz', content)
  too_small = uploads.shape_check(upload.name, 31_999_999_999)
  with pytest.raises(TooLarge, match='in memory has 32000 MB'):
    read_volume(upload.path, check_shape=too_small)
  large_enough = uploads.shape_check(upload.name, 32_000_000_000)
  with pytest.raises(VolumeError, match='truncated'):
    read_volume(upload.path, check_shape=large_enough)


MHA = b'ObjectType = Image\nNDims = 3\nDimSize = 900 900 900\n' + (
  b'ElementType = MET_UCHAR\nElementDataFile = %s\n'
)
NRRD = b'NRRD0004\ntype: uint8\ndimension: 3\nsizes: 9 9 9\n%s\n\n'


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('x.mha', MHA % b'/etc/passwd'),
    ('x.mha', MHA % b'other.raw\r'),
    ('x.mhd', MHA % b'LOCAL'),
    ('x.nrrd', NRRD % b'data file: /etc/passwd'),
    ('x.NRRD', NRRD % b'datafile: other.raw'),
    ('x.nhdr', NRRD % b'encoding: raw'),
    # Lines as the readers divide them.
    ('x.nrrd', NRRD % b'content: x\rdata file: other.raw'),
    ('x.nrrd', NRRD % b'# x\rDATA FILE: other.raw'),
    ('x.mha', MHA.replace(b'\nE', b'\n\t E') % b'other.raw'),
    ('x.mha', MHA.replace(b'\nE', b'\n\rE') % b'other.raw'),
    # MetaIO skips the first ElementDataFile.
    ('x.mha', b'junk\n%s' % MHA % b'LOCAL\nElementDataFile = other.raw'),
    ('x.mha', b'\xa0%s' % MHA % b'LOCAL\nElementDataFile = other.raw'),
    (
      'x.mha',
      MHA % b'LOCAL' + bytes(10**5) + b'\nElementDataFile = other.raw\n',
    ),
  ],
)
def test_a_header_cannot_name_another_file_of_the_machine(
  session, name, content
):
  with pytest.raises(UploadError, match='its voxels are in another file'):
    uploads.check_contents(given(session, name, content), 10**9)


@pytest.mark.parametrize(
  ('name', 'content', 'reason'),
  [
    (
      'x.nrrd',
      NRRD % (b'# %s\n' % (b'x' * 60) * 1200 + b'data file: other.raw'),
      'more than 65536 bytes',
    ),
    ('x.nrrd', NRRD % b'a\0: b\ndata file: other.raw', 'a zero byte'),
    ('x.mha', b'a\0 = b\n' + MHA % b'LOCAL', 'a zero byte'),
    (
      'x.mha',
      b'Comment = x\n' * 6000 + MHA % b'other.raw',
      'has no ElementDataFile',
    ),
  ],
)
def test_a_header_that_hides_its_data_file_is_refused_by_the_reader(
  session, name, content, reason
):
  upload = given(session, name, content)
  (upload.folder / 'other.raw').write_bytes(bytes(729))
  uploads.check_contents(upload, 10**10)
  with pytest.raises(UserError, match=reason):
    read_volume(upload.path)


def test_a_broken_file_is_left_to_the_reader(session):
  for name in ('x.nii', 'x.nii.gz', 'x.zip', 'x.nrrd', 'x'):
    content = struct.pack('<i', 348) + b'nonsense'
    uploads.check_contents(given(session, name, content), 100)
