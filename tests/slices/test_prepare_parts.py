"""Parts of one store: any order, interrupted, repeated, at the same moment."""

import concurrent.futures
import dataclasses
import functools
import itertools
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import affine_of, write_nifti

from synermedgen_jax.core.errors import UserError, VolumeError
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices import prepare_store
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings
from synermedgen_jax.slices.prepare_store import (
  Part,
  PrepareSettings,
  prepare,
  prepare_part,
)
from synermedgen_jax.slices.store import SliceStore, StoreError, StoreWriter
from synermedgen_jax.slices.store_files import StoreFiles, to_json_line

CT, MR = Modality.CT, Modality.MR
# Names that a file system may mix up, refuse or interpret.
NAMES = (
  *('p1', 'P1', 'a/b', 'a_b', '../p', '50 %', 'x.__lock', 'Jürgen', '张' * 60),
  *('.hidden', 'end.', 'p:1', 'p\\1', 'p\n1', 'ct', 'settings.json'),
)
SKIPPED = 'study.bad'
SHARED = 'study.twin'
PLAIN = PrepareSettings(
  Settings(SliceSpec((8, 8)), most_offset=0.0, check_units=False),
  dataset='study',
  skip_bad=True,
)
new_store = functools.partial(
  next, map('memory://parts/{}'.format, itertools.count())
)


def case_of(folder, subject, **more):
  files = {m: folder / f'{m}.nii.gz' for m in (CT, MR)}
  return CaseFiles('study', subject, Region.PELVIS, files, **more)


@pytest.fixture(scope='module')
def cases(tmp_path_factory):
  """Subjects of all NAMES, one with a broken file, one that is a copy."""
  root, result = tmp_path_factory.mktemp('study'), []
  rng = np.random.default_rng(0)
  for number, name in enumerate((*NAMES, 'bad')):
    folder = root / str(number)
    for modality, low in ((CT, -100), (MR, 100)):
      data = rng.integers(low, low + 900, (8, 8, 3)).astype(np.int16)
      write_nifti(folder / f'{modality}.nii.gz', data, affine_of((2, 2, 3)))
    result.append(case_of(folder, name))
  (root / str(len(NAMES)) / 'mr.nii.gz').write_bytes(b'damaged')
  return [*result, case_of(root / '3', 'twin')]


@pytest.fixture(autouse=True)
def threads(monkeypatch):
  """Workers as threads, which share memory:// and start at once."""
  monkeypatch.setattr(
    concurrent.futures,
    'ProcessPoolExecutor',
    lambda workers, *_, **__: concurrent.futures.ThreadPoolExecutor(workers),
  )


@pytest.fixture(scope='module')
def expected(cases):
  """Files of the store that one command writes, except its arrays."""
  with pytest.MonkeyPatch.context() as patch:
    threads.__wrapped__(patch)
    return contents(prepare(cases, new_store(), PLAIN).path)


def contents(store):
  files = StoreFiles(store)
  return {
    name: files.read(name)
    for name in ('settings.json', 'manifest.jsonl', 'store.json')
  }


def test_one_command_keeps_every_name_apart(cases, expected, tmp_path):
  store = prepare(cases, tmp_path / 'store', PLAIN)
  assert {case.subject for case in store.cases} == {*NAMES}
  assert contents(store.path) == expected
  for case, files in itertools.product(store.cases, cases):
    if case.subject == files.subject:
      volume = store.read_volume(case.id, CT)
      assert volume.shape == (3, 8, 8)
  arrays = {store.read_volume(c.id, CT).tobytes() for c in store.cases}
  assert len(arrays) == len(NAMES)
  assert {p.name for p in tmp_path.iterdir()} == {'store'}
  names = [p.name for p in (tmp_path / 'store/cases').iterdir()]
  assert len({name.lower() for name in names}) == len(names)
  skipped = {p.name for p in (tmp_path / 'store/skipped').iterdir()}
  assert skipped == {'study.bad.json', 'study.twin.json'}


@settings(
  max_examples=4,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.permutations(range(1, 17)), st.integers(0, 15))
def test_sixteen_parts_give_the_store_of_one_command(
  cases, expected, order, killed
):
  store = new_store()
  missing = {case.id for case in cases}
  for number, index in enumerate(order):
    part = Part(index, 16)
    if number == killed:
      with pytest.MonkeyPatch.context() as patch:
        # Arrays are written, the case's own file is not.
        patch.setattr(StoreFiles, 'write', stop_at_cases)
        with pytest.raises(KeyboardInterrupt):
          prepare_part(cases, store, PLAIN, part)
    missing -= {*part.of([case.id for case in cases])}
    assert prepare_part(cases, store, PLAIN, part) == sorted(missing)
    if missing:
      with pytest.raises(StoreError, match='not finished'):
        SliceStore.open(store)
  assert contents(store) == expected
  assert prepare_part(cases, store, PLAIN, Part(1, 3)) == []


write = StoreFiles.write


def stop_at_cases(files, key, data):
  if key.startswith(('cases/', 'skipped/')):
    raise KeyboardInterrupt
  write(files, key, data)


def test_parts_that_finish_at_the_same_moment_are_harmless(cases, expected):
  store = new_store()
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    parts = [Part(k, 4) for k in (1, 2, 3, 4, 4, 4)]
    left = list(
      pool.map(lambda part: prepare_part(cases, store, PLAIN, part), parts)
    )
  assert [] in left
  assert contents(store) == expected


def test_a_store_that_another_part_finishes_is_not_written_again(
  cases, monkeypatch, capsys
):
  """Part 2 tries a repaired case again while part 1 finishes without it."""
  store, ids = new_store(), ['study.a_b', 'study.bad', 'study.ct', 'study.p1']
  some = [c for c in cases if c.id in ids]
  shares = dataclasses.replace(PLAIN, val=0.0, test=0.4)
  assert Part(2, 2).of(ids) == ['study.bad', 'study.p1']
  prepare_part(some, store, shares, Part(2, 2))
  good = next(c for c in cases if c.subject == 'end.')
  repaired = [
    dataclasses.replace(c, files=good.files) if c.id == SKIPPED else c
    for c in some
  ]
  write_cases, finished = prepare_store._write_cases, []

  def meanwhile(*arguments):
    monkeypatch.setattr(prepare_store, '_write_cases', write_cases)
    prepare_part(some, store, shares, Part(1, 2))
    finished.append(contents(store))
    write_cases(*arguments)

  monkeypatch.setattr(prepare_store, '_write_cases', meanwhile)
  assert prepare_part(repaired, store, shares, Part(2, 2)) == []
  assert [contents(store)] == finished
  assert len(SliceStore.open(store).cases) == 3
  assert 'Another part has finished the store' in capsys.readouterr().err


def test_parts_that_finish_with_other_splits_are_refused(cases, monkeypatch):
  some = [c for c in cases if c.subject in ('a_b', 'ct', 'p1')]
  store, one = new_store(), dataclasses.replace(PLAIN, val=0.0, test=0.4)
  write_cases = prepare_store._write_cases

  def meanwhile(*arguments):
    monkeypatch.setattr(prepare_store, '_write_cases', write_cases)
    write_cases(*arguments)
    prepare(some, store, one)

  monkeypatch.setattr(prepare_store, '_write_cases', meanwhile)
  with pytest.raises(StoreError, match=r'other splits \(seed: 0 in the store'):
    prepare(some, store, dataclasses.replace(one, seed=1))


def test_a_bad_case_stops_its_part_alone_and_is_tried_again(cases):
  store = new_store()
  strict = PrepareSettings(PLAIN.ingest, dataset='study')
  good = [c for c in cases if c.id != SHARED]
  ids = sorted(case.id for case in good)
  bad = Part(ids.index(SKIPPED) + 1, len(ids))
  other = Part(bad.index % len(ids) + 1, len(ids))
  with pytest.raises(VolumeError, match=r'mr\.nii\.gz: '):
    prepare_part(good, store, strict, bad)
  assert SKIPPED in prepare_part(good, store, strict, other)
  assert SKIPPED not in prepare_part(good, store, PLAIN, bad)


def test_a_copy_of_another_person_is_refused_and_of_one_patient_kept(cases):
  twins = [c for c in cases if c.subject in ('a_b', 'twin', 'p1', 'ct')]
  strict = PrepareSettings(PLAIN.ingest, val=0.0, test=0.5)
  store = new_store()
  with pytest.raises(VolumeError, match=r'study\.twin: ct has the same voxels'):
    prepare(twins, store, strict)
  with pytest.raises(StoreError, match='not finished'):
    SliceStore.open(store)
  persons = [
    CaseFiles('study', c.subject, c.region, c.files, patient='one')
    if c.subject in ('a_b', 'twin')
    else c
    for c in twins
  ]
  result = prepare(persons, new_store(), strict)
  splits = {case.subject: case.split for case in result.cases}
  assert splits['a_b'] == splits['twin']


def test_splits_are_drawn_from_the_cases_that_remain(cases):
  """Of four subjects, one is bad: each split has one."""
  some = [c for c in cases if c.subject in ('p1', 'ct', 'a_b', 'bad')]
  shares = {'val': 0.25, 'test': 0.25, 'skip_bad': True}
  result = prepare(some, new_store(), PrepareSettings(PLAIN.ingest, **shares))
  assert sorted(c.split for c in result.cases) == ['test', 'train', 'val']


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'region': Region.BRAIN},
      r"\{'region': \{'study\.p1': 'pelvis'\}\} in the store, "
      r"\{'region': \{'study\.p1': 'brain'\}\} now",
    ),
    ({'reference': (MR,)}, r'now\); choose another --store or delete it\.$'),
    ({'lesion_labels': (1, 4)}, r"'lesion_labels': \{'study\.p1': \[1, 4\]\}"),
  ],
)
def test_a_part_with_other_settings_of_a_subject_is_refused(
  cases, change, message
):
  some = [c for c in cases if c.subject in ('ct', 'a_b', 'p1')]
  others = [
    dataclasses.replace(c, **change) if c.subject == 'p1' else c for c in some
  ]
  store = new_store()
  prepare_part(some, store, PLAIN, Part(1, 2))
  with pytest.raises(StoreError, match=r'other settings \(sources: ') as error:
    prepare_part(others, store, PLAIN, Part(2, 2))
  assert re.search(message, str(error.value))
  assert prepare_part(some, store, PLAIN, Part(2, 2)) == []
  with pytest.raises(StoreError, match='other settings'):
    prepare(others, store, PLAIN)


def test_a_store_from_before_these_settings_is_used_if_it_is_finished(cases):
  some = [c for c in cases if c.subject in ('ct', 'a_b', 'p1')]
  store = new_store()

  def forget():
    files = StoreFiles(store)
    settings = files.read_json('settings.json')
    del settings['sources']
    files.write('settings.json', to_json_line(settings))

  prepare_part(some, store, PLAIN, Part(1, 2))
  recorded = StoreFiles(store).read('settings.json')
  forget()
  with pytest.raises(StoreError, match='sources: None in the store'):
    prepare_part(some, store, PLAIN, Part(2, 2))
  StoreFiles(store).write('settings.json', recorded)
  prepare_part(some, store, PLAIN, Part(2, 2))
  forget()
  assert len(prepare(some, store, PLAIN).cases) == 3


def test_too_few_remaining_cases_lose_no_work(cases):
  some = [c for c in cases if c.subject in ('p1', 'bad', 'ct')]
  store = new_store()
  shares = PrepareSettings(PLAIN.ingest, val=0.3, test=0.3, skip_bad=True)
  with pytest.raises(UserError, match=r'2 subject\(s\) cannot be split'):
    prepare(some, store, shares)
  fewer = PrepareSettings(PLAIN.ingest, val=0.0, test=0.3, skip_bad=True)
  assert len(prepare(some, store, fewer).cases) == 2
  with pytest.raises(StoreError, match=r'other splits \(val: 0\.0 in the st'):
    prepare(some, store, shares)


@pytest.mark.parametrize('text', ['', '3', '0/4', '5/4', '1/0', 'a/b', '1/2/3'])
def test_a_part_is_one_of_its_number(text):
  with pytest.raises(UserError, match='expected K/N'):
    Part.parse(text)


@given(st.sets(st.text()), st.integers(1, 20))
def test_parts_hold_every_case_once(ids, count):
  parts = [Part(k, count).of(sorted(ids)) for k in range(1, count + 1)]
  assert sorted(itertools.chain(*parts)) == sorted(ids)
  sizes = [len(part) for part in parts]
  assert max(sizes) - min(sizes) <= 1


def test_a_store_that_is_started_twice_at_once_has_one_start(monkeypatch):
  """The second part lists the folder after the first wrote its settings."""
  store = new_store()
  StoreWriter(store, {'canvas': 8})
  monkeypatch.setattr(StoreFiles, 'occupied', lambda files: True)
  read, answers = StoreFiles.read, iter([None])
  monkeypatch.setattr(
    StoreFiles,
    'read',
    lambda files, key: next(answers, read(files, key)),
  )
  StoreWriter(store, {'canvas': 8})
