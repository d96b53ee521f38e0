"""Damaged files, tables and folders are read as they are, or refused in a line.

Far more cases, for an hour or until one fails:

  python -m pytest tests/slices/test_fuzzing.py --hypothesis-profile=fuzz
"""

import shutil
import string

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from test_prepare_parts import PLAIN, case_of, contents, new_store, threads
from volume_files import affine_of, write_nifti

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices import layouts
from synermedgen_jax.slices.datasets import list_folder
from synermedgen_jax.slices.ingest import check_modalities
from synermedgen_jax.slices.prepare_store import PrepareSettings, prepare
from synermedgen_jax.slices.store import SliceStore, StoreError
from synermedgen_jax.slices.tables import list_table
from synermedgen_jax.slices.volumes import Volume, read_volume

AFFINE = affine_of((2, 2, 3))
SHAPE = (6, 7, 5)
DATA = np.random.default_rng(0).normal(0, 100, SHAPE).astype(np.float32)
FILES = ('a.nii', 'b.nii.gz', 'c.nii', 'd.mha', 'e.nrrd', 'f.mhd', 'g.nhdr')
TABLES = (
  'subject,modality,path,region\np1,ct,a.nii,brain\np1,mr,c.nii,brain\n',
  'subject;modality;path;split\n"p1";ct;a.nii;train\np1;mr;c.nii;train\n',
)
# What has a meaning in one of the formats.
TOKENS = (
  *(b'\0', b'\xff' * 4, b'\x80', b'\n', b'\r', b'nan', b'-inf', b'1e400'),
  *(b'-1 ', b'0 0 0', b'"', b';', b',', b'\t', b'../', b'~', b'\xef\xbb\xbf'),
)
HEADER = 600  # most edits are within these first bytes

_places = st.integers(0, HEADER) | st.integers(0, 50_000)
_payloads = st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=8)
_edits = st.lists(
  st.tuples(st.sampled_from(('set', 'insert')), _places, _payloads)
  | st.tuples(st.just('delete'), _places, st.integers(1, 60))
  | st.tuples(st.just('cut'), _places, st.none()),
  min_size=1,
  max_size=6,
)


def edited(raw: bytes, edits) -> bytes:
  """The bytes after some were set, inserted, deleted or cut off."""
  raw = bytearray(raw)
  for kind, place, what in edits:
    at = place % max(len(raw), 1)
    if kind == 'set':
      raw[at : at + len(what)] = what
    elif kind == 'insert':
      raw[at:at] = what
    elif kind == 'delete':
      del raw[at : at + what]
    else:
      del raw[at:]
  return bytes(raw)


def refused(error: UserError, *names: str) -> None:
  """Checks that the message is one line that names one of the files."""
  text = str(error)
  assert '\n' not in text
  assert any(name in text for name in names), text


@pytest.fixture(scope='module')
def intact(tmp_path_factory):
  """One file of each format."""
  folder = tmp_path_factory.mktemp('intact')
  write_nifti(folder / 'a.nii', DATA, AFFINE)
  write_nifti(folder / 'b.nii.gz', DATA.astype(np.int16), AFFINE)
  nib.save(nib.Nifti2Image(DATA, AFFINE), folder / 'c.nii')
  image = sitk.GetImageFromArray(DATA.T)
  image.SetSpacing((2, 2, 3))
  for name in FILES[3:]:
    sitk.WriteImage(image, str(folder / name))
  return folder


@pytest.mark.parametrize('name', FILES)
@given(edits=_edits)
def test_a_volume(intact, tmp_path_factory, name, edits):
  folder = tmp_path_factory.getbasetemp() / 'volume'
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(intact, folder)
  path = folder / name
  path.write_bytes(edited(path.read_bytes(), edits))
  try:
    volume = read_volume(path)
  except UserError as error:
    refused(error, str(path))
  else:
    assert np.isfinite(volume.data).all()
    assert np.isfinite(volume.affine).all()
    assert abs(np.linalg.det(volume.affine)) > 0


@pytest.fixture(scope='module')
def series(tmp_path_factory):
  pytest.importorskip('pydicom')
  from dicom_files import write_series

  folder = tmp_path_factory.mktemp('series')
  small = Volume(np.rint(DATA[:, :, :3]), AFFINE)
  write_series(folder / 'ct', small, 'CT')
  write_series(folder / 'pet', Volume(np.abs(small.data), AFFINE), 'PT')
  return folder


@given(
  which=st.sampled_from(('ct', 'pet')),
  edits=st.lists(st.tuples(st.integers(0, 2), _edits), min_size=1, max_size=3),
)
def test_a_dicom_series(series, tmp_path_factory, which, edits):
  folder = tmp_path_factory.getbasetemp() / 'dicom'
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(series / which, folder)
  for slice_, changes in edits:
    path = folder / f'{slice_}.dcm'
    path.write_bytes(edited(path.read_bytes(), changes))
  try:
    volume = read_volume(folder)
  except UserError as error:
    refused(error, str(folder))
  else:
    assert np.isfinite(volume.data).all()
    assert np.isfinite(volume.affine).all()


@given(table=st.sampled_from(TABLES), edits=_edits)
def test_a_table(intact, tmp_path_factory, table, edits):
  path = intact / 'table.csv'
  path.write_bytes(edited(table.encode(), edits))
  try:
    listing = list_table(path, dataset='study', region=Region.BRAIN)
  except UserError as error:
    refused(error, str(path))
  else:
    for case in listing.cases:
      assert case.subject == case.subject.strip() != ''
      assert case.files
      assert all(file.exists() for file in case.files.values())
    assert listing.cases or listing.faults
    assert all('\n' not in str(fault) for fault in listing.faults)


_parts = st.sampled_from(
  (
    *('ct', 'mr', 't1', 'p1', '0000', 'mask', 'anat', 'sub-', '_', '-', ' '),
    *('.', '._', '.nii', 'nii', '.gz', '.mhd', '.dcm', 'é', '\u202e', '\udcff'),
  )
)
_names = st.lists(_parts, min_size=1, max_size=5).map(''.join)


@pytest.mark.parametrize(
  'read',
  [list_folder, layouts.list_nnunet, layouts.list_bids, layouts.list_flat],
)
@given(
  files=st.lists(
    st.tuples(st.lists(_names, max_size=2), _names, st.sampled_from(FILES)),
    min_size=1,
    max_size=6,
  )
)
def test_a_folder(intact, tmp_path_factory, read, files):
  root = tmp_path_factory.getbasetemp() / 'folder'
  shutil.rmtree(root, ignore_errors=True)
  root.mkdir()
  for folders, name, content in files:
    path = root.joinpath(*(f for f in folders if f.strip('.')), name)
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(intact / content, path)
    except OSError:  # a file and a folder of one name
      continue
  try:
    listing = read(root, dataset='study', region=Region.BRAIN)
  except UserError as error:
    refused(error, str(root))
  else:
    assert listing.cases or listing.faults
    for case in listing.cases:
      assert case.files
      if len(case.files) == 1:
        with pytest.raises(UserError, match='needs both modalities'):
          check_modalities(case, PLAIN.ingest)


@pytest.fixture(scope='module')
def subjects(tmp_path_factory):
  root = tmp_path_factory.mktemp('subjects')
  rng = np.random.default_rng(1)
  for subject in string.ascii_lowercase[:3]:
    for modality, low in (('ct', -100), ('mr', 100)):
      data = rng.integers(low, low + 900, (8, 8, 3)).astype(np.int16)
      write_nifti(root / subject / f'{modality}.nii.gz', data, AFFINE)
  return root


STRICT = PrepareSettings(PLAIN.ingest, dataset='study')


@pytest.fixture(scope='module')
def expected(subjects):
  with pytest.MonkeyPatch.context() as patch:
    threads.__wrapped__(patch)
    cases = [case_of(path, path.name) for path in sorted(subjects.iterdir())]
    return contents(prepare(cases, new_store(), STRICT).path)


@given(edits=_edits, modality=st.sampled_from((Modality.CT, Modality.MR)))
def test_a_store(subjects, expected, tmp_path_factory, edits, modality):
  """A damaged file gives no store; the repaired one gives the same store."""
  root = tmp_path_factory.getbasetemp() / 'store_of'
  shutil.rmtree(root, ignore_errors=True)
  shutil.copytree(subjects, root)
  path = root / 'b' / f'{modality}.nii.gz'
  whole = path.read_bytes()
  path.write_bytes(edited(whole, edits))
  cases = [case_of(folder, folder.name) for folder in sorted(root.iterdir())]
  store = new_store()
  with pytest.MonkeyPatch.context() as patch:
    threads.__wrapped__(patch)
    try:
      made = prepare(cases, store, STRICT)
    except UserError as error:
      refused(error, str(path), 'study.b')
      with pytest.raises(StoreError, match='not finished'):
        SliceStore.open(store)
      path.write_bytes(whole)
      assert contents(prepare(cases, store, STRICT).path) == expected
    else:
      for case in made.cases:
        assert np.isfinite(made.read_volume(case.id, modality)).all()
