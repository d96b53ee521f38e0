"""The slice store: what is written is what is read, whole or not at all."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.case import Case, voxel_checksum
from synermedgen_jax.slices.store import SliceStore, StoreError, StoreWriter
from synermedgen_jax.slices.store_files import (
  StoreFiles,
  case_key,
  check_folder,
)
from synermedgen_jax.slices.windows import Window

CT, MR = Modality.CT, Modality.MR
SETTINGS = {'canvas': 6, 'reference': []}


def make_case(subject='p1', split='train'):
  return Case(
    id=f'study.{subject}',
    dataset='study',
    subject=subject,
    region=Region.PELVIS,
    split=split,
    modalities={CT: Window(-1000, 1000), MR: Window(0.0, 812.5)},
    sources={CT: f'{subject}/ct.nii.gz', MR: f'{subject}/mr.nii.gz'},
    shape=(4, 6, 6),
    affine=((-2, 0, 0, 9), (0, -2, 0, 8), (0, 0, 3, 7), (0, 0, 0, 1)),
    plane='axial',
    usable=range(1, 3),
  )


def make_arrays(seed=0):
  rng = np.random.default_rng(seed)
  volumes = {
    m: rng.uniform(-1, 1, (4, 6, 6)).astype(np.float32) for m in (CT, MR)
  }
  return volumes, rng.uniform(size=(4, 6, 6)) > 0.5


def fill(path, *cases):
  writer = StoreWriter(str(path), SETTINGS)
  for case in cases:
    writer.write_case(case, *make_arrays())
  return writer


@pytest.fixture
def finished(tmp_path):
  fill(tmp_path / 's', make_case()).finish({'study.p1': 'train'})
  return tmp_path / 's'


def test_arrays_survive_to_half_a_level(finished):
  volumes, mask = make_arrays()
  store = SliceStore.open(str(finished))
  for modality, volume in volumes.items():
    result = store.read_volume('study.p1', modality)
    assert result.dtype == np.float32
    assert np.abs(result - volume).max() <= 1 / 65535 + 1e-7
    np.testing.assert_array_equal(
      store.read_slice('study.p1', modality, 2), result[2]
    )
  np.testing.assert_array_equal(store.read_mask('study.p1'), mask)


def test_slices_are_read_at_once_in_the_order_asked(finished):
  store = SliceStore.open(str(finished))
  asked = [('study.p1', MR, 3), ('study.p1', CT, 0), ('study.p1', MR, 3)]
  result = store.read_slices(asked)
  for (case_id, modality, index), slice_ in zip(asked, result, strict=True):
    np.testing.assert_array_equal(
      slice_, store.read_slice(case_id, modality, index)
    )
  assert store.read_slices([]) == []
  (finished / 'volumes/study.p1/ct/c/0/0/0').unlink()
  lost = SliceStore.open(str(finished))
  with pytest.raises(StoreError, match=r"'study.p1', ct: cannot be read"):
    lost.read_slices(asked)
  with pytest.raises(StoreError, match=r"'study.p1', mr: cannot be read"):
    lost.read_slices([('study.p1', MR, 99)])


def test_a_store_lives_in_any_key_value_store():
  """As in a bucket: no folders, no renaming, reads of parts of an object."""
  path = 'memory://a-test-of-stores/s'
  with pytest.raises(StoreError, match='holds no slice store'):
    SliceStore.open(path)
  writer = fill(path, make_case('p1'), make_case('p2', 'test'))
  ids = ['study.p1', 'study.p2', 'study.p3']
  assert writer.done(ids) == {'study.p1', 'study.p2'}
  with pytest.raises(StoreError, match='not finished'):
    SliceStore.open(path)
  writer.finish({'study.p1': 'train', 'study.p2': 'test'})
  store = SliceStore.open(path)
  volumes, mask = make_arrays()
  result = store.read_slice('study.p2', MR, 3)
  np.testing.assert_allclose(result, volumes[MR][3], atol=1 / 65535)
  np.testing.assert_array_equal(store.read_mask('study.p1'), mask)
  assert [c.subject for c in store.split('test')] == ['p2']


@pytest.mark.parametrize(
  ('address', 'spec'),
  [
    ('gs://hospital/a/b', {'driver': 'gcs', 'bucket': 'hospital'}),
    ('s3://hospital/a/b/', {'driver': 's3', 'bucket': 'hospital'}),
  ],
)
def test_buckets_are_addressed_as_tensorstore_does(address, spec):
  result = StoreFiles(address).array('volumes/p/ct')['kvstore']
  assert result == {**spec, 'path': 'a/b/volumes/p/ct/'}


def test_ends_of_the_window_are_exact_and_beyond_is_clipped(tmp_path):
  writer = StoreWriter(str(tmp_path / 's'), SETTINGS)
  volumes, mask = make_arrays()
  volumes[CT][0, 0, :4] = -1, 1, -1.5, 2
  writer.write_case(make_case(), volumes, mask)
  writer.finish({'study.p1': 'train'})
  result = SliceStore.open(str(tmp_path / 's')).read_slice('study.p1', CT, 0)
  np.testing.assert_array_equal(result[0, :4], [-1, 1, -1, 1])


def test_slice_is_a_chunk_and_volume_is_a_shard(finished):
  folder = finished / 'volumes/study.p1/ct'
  metadata = json.loads((folder / 'zarr.json').read_text())
  assert metadata['shape'] == [4, 6, 6]
  assert metadata['data_type'] == 'uint16'
  shard = metadata['chunk_grid']['configuration']['chunk_shape']
  (sharding,) = metadata['codecs']
  assert sharding['name'] == 'sharding_indexed'
  assert sharding['configuration']['chunk_shape'] == [1, 6, 6]
  assert shard == [4, 6, 6]
  files = [p for p in folder.rglob('*') if p.is_file()]
  assert {p.name for p in files} == {'zarr.json', '0'}


def test_manifest_row_survives_json(finished):
  (case,) = SliceStore.open(str(finished)).cases
  assert case == make_case()
  assert [r.name for r in case.routes] == ['pelvis_mr_to_ct', 'pelvis_ct_to_mr']


def test_cases_come_sorted_and_by_split(tmp_path):
  cases = [make_case('p3', 'test'), make_case('p1'), make_case('p2', 'val')]
  fill(tmp_path / 's', *cases).finish({c.id: c.split for c in cases})
  store = SliceStore.open(str(tmp_path / 's'))
  assert [c.subject for c in store.cases] == ['p1', 'p2', 'p3']
  assert [c.subject for c in store.split('test')] == ['p3']
  assert store.split('holdout') == ()
  assert store.slices.canvas == (6, 6)


def test_two_stores_of_the_same_cases_have_the_same_manifest(tmp_path):
  for name, order in (('a', ('p1', 'p2')), ('b', ('p2', 'p1'))):
    cases = [make_case(subject) for subject in order]
    fill(tmp_path / name, *cases).finish({c.id: 'train' for c in cases})
  a, b = ((tmp_path / n / 'manifest.jsonl').read_bytes() for n in 'ab')
  assert a == b


def test_unfinished_store_is_refused(tmp_path):
  writer = fill(tmp_path / 's', make_case())
  assert not writer.finished
  assert writer.done(['study.p1', 'study.p2']) == {'study.p1'}
  with pytest.raises(StoreError, match=r's: is a store that was not finished'):
    SliceStore.open(str(tmp_path / 's'))


def test_missing_store_is_refused(tmp_path):
  with pytest.raises(StoreError, match=r's: holds no slice store; make one'):
    SliceStore.open(str(tmp_path / 's'))


def test_store_is_not_finished_without_every_case(tmp_path):
  writer = fill(tmp_path / 's', make_case())
  with pytest.raises(StoreError, match=r'case study\.p2 is incomplete'):
    writer.finish({'study.p1': 'train', 'study.p2': 'train'})
  assert not writer.finished


def test_store_of_another_version_is_refused(finished):
  (finished / 'store.json').write_text('{"version": 99, "cases": 1}')
  with pytest.raises(StoreError, match='version 99, this code reads version'):
    SliceStore.open(str(finished))
  (finished / 'settings.json').write_text(
    json.dumps({**SETTINGS, 'version': 99})
  )
  with pytest.raises(StoreError, match='version: 99 in the store, 3 now'):
    StoreWriter(str(finished), SETTINGS)


def test_manifest_that_lost_a_line_is_refused(finished):
  (finished / 'manifest.jsonl').write_text('')
  with pytest.raises(StoreError, match=r'manifest\.jsonl: has 0 of 1 cases'):
    SliceStore.open(str(finished))


def test_damaged_json_is_named(finished):
  (finished / 'store.json').write_text('{"version": ')
  with pytest.raises(StoreError, match=r'store\.json: is not valid JSON'):
    SliceStore.open(str(finished))


def test_going_on_with_other_settings_is_refused_briefly(finished):
  many = {f'subject_{i}': 'train' for i in range(500)}
  with pytest.raises(StoreError) as error:
    StoreWriter(str(finished), {**SETTINGS, 'canvas': 8, 'cases': many})
  text = str(error.value)
  assert 'canvas: 6 in the store, 8 now' in text
  assert 'cases: None in the store' in text
  assert len(text) < 500 + len(str(finished))


def test_going_on_with_the_same_settings_finds_what_is_done(finished):
  writer = StoreWriter(str(finished), SETTINGS)
  assert writer.finished
  assert writer.done(['study.p1', 'study.p2']) == {'study.p1'}


def test_writing_a_case_again_replaces_its_arrays(tmp_path):
  writer = fill(tmp_path / 's', make_case())
  taller = dataclasses.replace(make_case(), shape=(7, 6, 6))
  volumes = {m: np.ones((7, 6, 6), np.float32) for m in (CT, MR)}
  writer.write_case(taller, volumes, np.ones((7, 6, 6), bool))
  writer.finish({'study.p1': 'train'})
  store = SliceStore.open(str(tmp_path / 's'))
  np.testing.assert_array_equal(store.read_volume('study.p1', MR), volumes[MR])


def test_folder_of_other_things_is_not_overwritten(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  with pytest.raises(StoreError, match='is not empty and not a slice store'):
    StoreWriter(str(tmp_path), SETTINGS)
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_a_volume_that_is_lost_is_an_error_and_not_black(finished):
  store = SliceStore.open(str(finished))
  (finished / 'volumes/study.p1/ct/c/0/0/0').unlink()
  with pytest.raises(
    StoreError, match=r"case 'study.p1', ct: cannot be read \(NOT_FOUND: "
  ):
    store.read_slice('study.p1', Modality.CT, 1)


def test_black_slices_are_written(tmp_path):
  path, case = tmp_path / 'store', make_case()
  writer = StoreWriter(str(path), SETTINGS)
  black = np.full(case.shape, -1, np.float32)
  writer.write_case(
    case, dict.fromkeys(case.modalities, black), np.zeros(case.shape, bool)
  )
  writer.finish({case.id: 'train'})
  store = SliceStore.open(str(path))
  assert (store.read_volume(case.id, CT) == -1).all()
  assert not store.read_mask(case.id).any()


def test_unknown_case_array_and_address_are_named(finished):
  store = SliceStore.open(str(finished))
  with pytest.raises(StoreError, match=r"has no case 'study\.p9'"):
    store.case('study.p9')
  with pytest.raises(StoreError, match=r"'study\.p1' has no array 'pet'"):
    store.read_slice('study.p1', Modality.PET, 0)
  with pytest.raises(StoreError, match=r'ftp://x: a store is a local path'):
    SliceStore.open('ftp://x')


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_of_cases_are_plain_and_differ_whatever_the_ids(a, b):
  for case_id in (a, b):
    assert re.fullmatch(r'[a-z0-9_-][a-z0-9._-]*', case_key(case_id))
    assert len(case_key(case_id)) <= 120
  assert (case_key(a) == case_key(b)) == (a == b)


@pytest.mark.parametrize(
  ('case_id', 'name'),
  [
    ('study.p1', r'study\.p1'),
    ('study.P1', r'study\.p1-[0-9a-f]{8}'),
    ('study.a/b', r'study\.a_b-[0-9a-f]{8}'),
    ('..', r'-[0-9a-f]{8}'),
    ('x.__lock', r'x\.__lock-[0-9a-f]{8}'),
  ],
)
def test_names_of_cases_are_their_ids_where_these_are_plain(case_id, name):
  assert re.fullmatch(name, case_key(case_id))


def test_a_skipped_case_is_recorded_until_it_is_written(tmp_path):
  writer = fill(tmp_path / 's', make_case('p1'))
  writer.skip_case('study.P2', 'too dark')
  ids = ['study.p1', 'study.P2', 'study.p3']
  assert writer.skipped(ids) == {'study.P2'}
  (path,) = (tmp_path / 's/skipped').iterdir()
  row = {'id': 'study.P2', 'reason': 'too dark'}
  assert json.loads(path.read_text()) == row
  writer.write_case(make_case('P2'), *make_arrays())
  assert writer.skipped(ids) == set()
  assert writer.done(ids) == {'study.p1', 'study.P2'}


def test_a_case_is_written_without_its_split(tmp_path):
  writer = fill(tmp_path / 's', make_case(split='train'))
  (path,) = (tmp_path / 's/cases').iterdir()
  assert 'split' not in json.loads(path.read_text())
  writer.finish({'study.p1': 'test'})
  assert SliceStore.open(str(tmp_path / 's')).cases[0].split == 'test'


def test_checksums_and_transforms_are_in_the_manifest(tmp_path):
  moved = tuple(map(tuple, np.diag([1.0, 1, 1, 1]).tolist()))
  case = dataclasses.replace(
    make_case(), checksums={CT: 'a', MR: 'b'}, transforms={MR: moved}
  )
  fill(tmp_path / 's', case).finish({case.id: 'train'})
  row = json.loads((tmp_path / 's/manifest.jsonl').read_text())
  assert row['modalities']['ct']['checksum'] == 'a'
  assert 'transform' not in row['modalities']['ct']
  assert row['modalities']['mr']['transform'] == [list(r) for r in moved]
  assert SliceStore.open(str(tmp_path / 's')).cases == (case,)


def test_a_checksum_is_that_of_the_float32_voxels_in_the_order_of_a_file():
  data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  expected = hashlib.sha256(data.tobytes('F')).hexdigest()[:16]
  assert voxel_checksum(data) == expected
  assert voxel_checksum(np.asfortranarray(data)) == expected
  assert voxel_checksum(data.astype(np.float64)) == expected
  assert voxel_checksum(data + 1) != expected


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('store.json', '[]', r'store\.json: is not valid JSON'),
    ('manifest.jsonl', '{}\n', r'manifest\.jsonl:1: is damaged'),
    ('manifest.jsonl', '\xff\n', r'manifest\.jsonl:1: is damaged'),
  ],
)
def test_damaged_files_are_named(finished, name, text, message):
  (finished / name).write_text(text, 'latin-1')
  with pytest.raises(StoreError, match=message):
    SliceStore.open(str(finished))


def test_a_modality_that_is_not_registered_is_named(finished):
  path = finished / 'manifest.jsonl'
  path.write_text(path.read_text().replace('"ct"', '"us"'))
  with pytest.raises(StoreError, match=r"jsonl:1: Unknown modality 'us'"):
    SliceStore.open(str(finished))


def test_places_for_a_store_are_checked_before_any_work(tmp_path):
  (tmp_path / 'file').touch()
  (tmp_path / 'link').symlink_to(tmp_path / 'gone')
  check_folder(tmp_path / 'new/deep', '--store')
  check_folder('gs://bucket/x', '--store')
  assert not (tmp_path / 'new').exists()
  for path, message in (
    (tmp_path / 'file', r'file: it is a file, not a folder; .* --store'),
    (tmp_path / 'file/x', 'file is a file, not a folder'),
    (tmp_path / 'link', 'it is a broken link'),
    (tmp_path / ('x' * 300), 'File name too long'),
  ):
    with pytest.raises(StoreError, match=message):
      check_folder(path, '--store')


def test_storage_that_fails_is_one_line(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(StoreError, match=r'settings\.json: cannot be written'):
    StoreFiles(str(tmp_path / 'file')).write('settings.json', b'')
