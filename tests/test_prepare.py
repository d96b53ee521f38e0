"""The prepare command: what it makes, what it refuses, and kill -9."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.inference.reading import Reading
from synermedgen_jax.reporting import inspection
from synermedgen_jax.slices import prepare_store
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings
from synermedgen_jax.slices.store import SliceStore, StoreError
from synermedgen_jax.slices.windows import Window

DATA = Path(__file__).parent / 'data'
_SERVER = multiprocessing.get_context('forkserver')
_SERVER.set_forkserver_preload(
  ['synermedgen_jax.prepare', 'synermedgen_jax.reporting.inspection']
)


def _command(args, out, err):
  """The command in a process of its own, its workers threads: quick."""
  sys.stdout, sys.stderr = out.open('w'), err.open('w')
  concurrent.futures.ProcessPoolExecutor = lambda workers, *_, **__: (
    concurrent.futures.ThreadPoolExecutor(workers)
  )
  sys.argv = ['prepare', *args]
  from synermedgen_jax import prepare
  from synermedgen_jax.config.command_line import run_command

  run_command(prepare.main)


@pytest.fixture
def prepare(tmp_path):
  def run(*args, store=tmp_path / 'store'):
    out, err = tmp_path / 'out.txt', tmp_path / 'err.txt'
    args = [*map(str, args), f'--store={store}']
    process = _SERVER.Process(target=_command, args=(args, out, err))
    process.start()
    process.join(600)
    return process.exitcode, out.read_text(), err.read_text()

  return run


def write_subject(folder, *modalities, seed=0, shape=(24, 24, 6), origin=0):
  """A round body; its MR and the tissue of its CT are noise of the seed."""
  folder.mkdir(parents=True, exist_ok=True)
  affine = np.diag([2.0, 2, 4, 1])
  affine[2, 3] = origin
  x, y, _ = np.indices(shape)
  half = (shape[0] - 1) / 2
  body = (x - half) ** 2 + (y - half) ** 2 < (0.4 * shape[0]) ** 2
  noise = np.random.default_rng(seed).integers(200, 900, shape)
  for modality in modalities:
    tissue = np.where(body, 40 + 20 * (noise % 2), -1000)
    data = tissue if modality == 'ct' else body * noise
    image = nib.Nifti1Image(data.astype(np.int16), affine)
    nib.save(image, folder / f'{modality}.nii.gz')


def study(root, count=4):
  for i in range(count):
    write_subject(root / f's{i:02d}', 'mr', 'ct', seed=i)
  return root


def folder_args(root, *more):
  return '--dataset=folder', f'--root={root}', '--region=pelvis', *more


def assert_refused(result, *message):
  """A non-zero exit, one `Error:` line that says why, and no traceback."""
  code, _, err = result
  assert code not in (0, None)
  errors = [line for line in err.splitlines() if 'Error' in line]
  assert len(errors) == 1, err
  assert errors[0].startswith('Error: ')
  assert 'Traceback' not in err
  for words in message:
    assert words in errors[0]


def contents(store):
  """Everything that training reads, bit for bit."""
  opened = SliceStore.open(str(store))
  arrays = {
    (case.id, name): opened.read_volume(case.id, name)
    for case in opened.cases
    for name in case.modalities
  }
  arrays |= {(c.id, 'mask'): opened.read_mask(c.id) for c in opened.cases}
  return (store / 'manifest.jsonl').read_bytes(), arrays


def assert_same_contents(a, b):
  (manifest_a, arrays_a), (manifest_b, arrays_b) = contents(a), contents(b)
  assert manifest_a == manifest_b
  assert arrays_a.keys() == arrays_b.keys()
  for key, array in arrays_a.items():
    np.testing.assert_array_equal(array, arrays_b[key], err_msg=str(key))


def test_folder_becomes_a_finished_store_split_by_subject(tmp_path, prepare):
  root = study(tmp_path / 'clinic', 6)
  code, out, err = prepare(
    *folder_args(root, '--canvas=16', '--val=0.2', '--test=0.3')
  )
  assert code == 0, err
  assert '6 cases, finished' in out
  assert re.search(r'clinic +test +2 subjects +12 slices', out)
  store = SliceStore.open(str(tmp_path / 'store'))
  assert [len(store.split(s)) for s in ('train', 'val', 'test')] == [3, 1, 2]
  assert store.slices.canvas == (16, 16)
  assert store.cases[0].id == 'clinic.s00'


def test_two_runs_are_equal_and_a_second_run_does_nothing(tmp_path, prepare):
  args = folder_args(study(tmp_path / 'in'), '--canvas=16')
  store = tmp_path / 'store'
  assert prepare(*args)[0] == 0
  before = {p: p.stat().st_mtime_ns for p in store.rglob('*') if p.is_file()}
  code, out, _ = prepare(*args)
  assert code == 0
  assert '4 cases, finished' in out
  after = {p: p.stat().st_mtime_ns for p in store.rglob('*') if p.is_file()}
  assert after == before
  store.rename(tmp_path / 'first')
  assert prepare(*args)[0] == 0
  assert_same_contents(tmp_path / 'first', store)


def test_table_gives_datasets_regions_and_splits(tmp_path, prepare):
  study(tmp_path / 'in', 3)
  rows = ['subject,modality,path,region,dataset,split']
  for i, (dataset, split) in enumerate(
    [('a', 'train'), ('a', 'test'), ('b', 'holdout')]
  ):
    for modality in ('mr', 'ct'):
      path = f'in/s{i:02d}/{modality}.nii.gz'
      rows.append(f'p{i},{modality},{path},brain,{dataset},{split}')
  (tmp_path / 'table.csv').write_text('\n'.join(rows))
  code, _, err = prepare(
    '--dataset=csv', f'--root={tmp_path / "table.csv"}', '--canvas=16'
  )
  assert code == 0, err
  store = SliceStore.open(str(tmp_path / 'store'))
  assert [(c.id, c.region, c.split) for c in store.cases] == [
    ('a.p0', 'brain', 'train'),
    ('a.p1', 'brain', 'test'),
    ('b.p2', 'brain', 'holdout'),
  ]


@pytest.mark.parametrize(
  ('args', 'cases', 'slices'),
  [
    (['sts', '--region=whole_body', '--reference=ct'], 2, 16),
    (['sts', '--region=pelvis', '--reference=ct'], 2, 16),
    (['openms', '--region=brain'], 1, 10),
  ],
)
def test_real_crops_are_prepared(tmp_path, prepare, args, cases, slices):
  name, *more = args
  code, out, err = prepare(
    *('--dataset=folder', f'--root={DATA / name}', '--holdout', '--canvas=64'),
    *more,
  )
  assert code == 0, err
  actual = re.search(r'holdout +(\d+) subjects +(\d+) slices', out)
  assert actual.groups() == (str(cases), str(slices))
  for case in SliceStore.open(str(tmp_path / 'store')).cases:
    assert case.routes
    for modality, window in case.modalities.items():
      if modality in ('ct', 'pet'):
        assert window in (Window(-1000, 1000), Window(0, 10))


def test_missing_modality_is_refused_before_anything_is_written(
  tmp_path, prepare
):
  root = study(tmp_path / 'in')
  (root / 's02/mr.nii.gz').unlink()
  assert_refused(
    prepare(*folder_args(root, '--modalities=mr,ct')), 's02', 'has ct but no mr'
  )
  assert not (tmp_path / 'store').exists()


def test_unknown_modality_file_is_refused(tmp_path, prepare):
  root = study(tmp_path / 'in')
  (root / 's01/dwi.nii.gz').touch()
  assert_refused(
    prepare(*folder_args(root)), 's01/dwi.nii.gz', "Unknown modality 'dwi'"
  )


def test_pair_on_two_grids_is_refused_and_then_resampled(tmp_path, prepare):
  root = study(tmp_path / 'in')
  write_subject(root / 's03', 'mr', seed=3, origin=3)
  args = folder_args(root, '--canvas=16')
  assert_refused(prepare(*args), 's03/mr.nii.gz', '--reference=ct')
  with pytest.raises(StoreError, match='not finished'):
    SliceStore.open(str(tmp_path / 'store'))
  shutil.rmtree(tmp_path / 'store')
  assert prepare(*args, '--reference=ct')[0] == 0


def test_volumes_apart_in_the_world_are_refused(tmp_path, prepare):
  root = study(tmp_path / 'in')
  write_subject(root / 's03', 'mr', origin=900)
  assert_refused(
    prepare(*folder_args(root, '--reference=ct')),
    's03/mr.nii.gz: does not overlap ct.nii.gz',
  )


def test_truncated_file_is_refused_through_the_real_pool(tmp_path):
  root = study(tmp_path / 'in')
  whole = (root / 's03/ct.nii.gz').read_bytes()
  (root / 's03/ct.nii.gz').write_bytes(whole[: len(whole) // 2])
  process = start(root, tmp_path / 'store')
  out, err = process.communicate(timeout=300)
  assert_refused((process.returncode, out, err), 's03/ct.nii.gz', 'truncated')
  with pytest.raises(StoreError, match='not finished'):
    SliceStore.open(str(tmp_path / 'store'))


def test_any_number_of_workers_writes_the_same_store(tmp_path, prepare):
  args = folder_args(study(tmp_path / 'in', 5), '--canvas=16')
  assert prepare(*args, '--workers=1')[0] == 0
  command = [*(sys.executable, '-m', 'synermedgen_jax.prepare'), *args]
  subprocess.run(
    [*command, f'--store={tmp_path / "other"}', '--workers=3'],
    check=True,
    capture_output=True,
  )
  assert_same_contents(tmp_path / 'store', tmp_path / 'other')


def test_windows_are_kept_with_the_store(tmp_path, prepare):
  args = folder_args(study(tmp_path / 'in'), '--canvas=16')
  code, _, err = prepare(*args, '--windows=ct:-200:300')
  assert code == 0, err
  store = SliceStore.open(str(tmp_path / 'store'))
  ct = {'ct': Window(-200.0, 300.0)}
  assert {c.modalities['ct'] for c in store.cases} == set(ct.values())
  assert ct.items() <= store.slices.windows.items()


def test_bad_subjects_are_skipped_when_asked_and_named(tmp_path, prepare):
  root = study(tmp_path / 'in', 6)
  (root / 's01/ct.nii.gz').write_bytes(b'')
  (root / 's04/mr.nii.gz').unlink()
  args = folder_args(root, '--canvas=16', '--skip_bad', '--val=0', '--test=0')
  code, out, err = prepare(*args)
  assert code == 0
  assert '4 cases, finished' in out
  assert 'Skipped in.s01: ' in err
  assert 'Skipped in.s04: ' in err
  store = SliceStore.open(str(tmp_path / 'store'))
  assert [c.subject for c in store.cases] == ['s00', 's02', 's03', 's05']


def test_store_is_not_finished_when_every_subject_is_bad(tmp_path, prepare):
  root = study(tmp_path / 'in', 3)
  for path in root.rglob('ct.nii.gz'):
    path.write_bytes(b'')
  args = folder_args(root, '--skip_bad', '--holdout')
  assert_refused(prepare(*args), 'no subject can be used')
  with pytest.raises(StoreError, match='not finished'):
    SliceStore.open(str(tmp_path / 'store'))


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['--dataset=folder', '--root=none', '--region=brain'], 'no such folder'),
    (['--dataset=csv', '--root=none.csv'], 'none.csv: no such file'),
    (['--dataset=folder', '--root=none'], '--dataset=folder needs --region'),
    (
      ['--dataset=csv', '--root=none.csv', '--reference=xray'],
      "--reference or --modalities: Unknown modality 'xray'",
    ),
  ],
)
def test_wrong_arguments_are_refused(prepare, args, message):
  assert_refused(prepare(*args), message)


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--canvas=0', '--canvas=0: expected HEIGHTxWIDTH in pixels'),
    ('--canvas=100000', '--canvas=100000: a slice would take 40,000,000,000 b'),
    ('--part=3', "--part: '3': expected K/N"),
    ('--part=5/4', '--part: part 5/4: expected K/N'),
    ('--register=affine', 'should be one of <none|rigid>'),
  ],
)
def test_values_that_cannot_work_are_refused_before_any_work(
  tmp_path, prepare, flag, message
):
  args = folder_args(study(tmp_path / 'in', 2), '--holdout', flag)
  assert_refused(prepare(*args), message)
  assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('flag', ['check', 'store'])
def test_a_result_in_the_place_of_a_file_is_refused_first(
  tmp_path, prepare, flag
):
  (tmp_path / 'file').write_text('mine')
  args = folder_args(tmp_path / 'none')  # not looked for
  assert_refused(
    prepare(*args, f'--{flag}={tmp_path / "file"}', store=tmp_path / 'file/x'),
    'a file, not a folder; choose another --',
  )
  assert (tmp_path / 'file').read_text() == 'mine'


def test_a_store_and_a_report_inside_the_root_are_no_subjects(
  tmp_path, prepare
):
  root = study(tmp_path / 'in', 3)
  args = folder_args(root, '--holdout', '--canvas=16')
  assert prepare(*args, f'--check={root / "report"}')[0] == 0
  for _ in range(2):
    code, out, err = prepare(*args, store=root / 'store')
    assert code == 0, err
    assert '3 cases, finished' in out


def test_parts_say_what_is_missing_and_the_last_one_finishes(tmp_path, prepare):
  args = folder_args(study(tmp_path / 'in', 5), '--canvas=16')
  code, out, _ = prepare(*args, '--part=2/3')
  assert code == 0
  assert 'Part 2/3 is written.' in out
  assert (
    '3 of 5 cases are missing, of the parts 1/3, 3/3: in.s00, in.s02' in out
  )
  assert prepare(*args, '--part=3/3')[0] == 0
  code, out, _ = prepare(*args, '--part=1/3')
  assert '5 cases, finished' in out
  assert prepare(*args, store=tmp_path / 'whole')[0] == 0
  assert_same_contents(tmp_path / 'store', tmp_path / 'whole')


def test_faults_of_the_layout_are_skipped_or_checked_with_the_rest(
  tmp_path, prepare
):
  root = study(tmp_path / 'in', 6)
  (root / 's01/dwi.nii.gz').touch()
  (root / 's03/ct.nii.gz').rename(root / 's03/CT_1.nii.gz')
  shutil.copy(root / 's04/ct.nii.gz', root / 's05/ct.nii.gz')
  args = folder_args(root, '--canvas=16')
  code, _, err = prepare(*args)
  assert code == 1
  assert 'Error: 2 problems; --skip_bad skips their subjects:' in err
  code, out, _ = prepare(*args, f'--check={tmp_path / "report"}')
  assert code == 1
  for line in (
    f'in.s01: {root}/s01/dwi.nii.gz: Unknown modality',
    f'in.s03: {root}/s03/CT_1.nii.gz: Unknown modality',
    'in.s05: ct has the same voxels as ct of in.s04',
    '6 cases, 3 of them with problems',
  ):
    assert line in out
  code, out, err = prepare(*args, '--skip_bad')
  assert code == 0
  assert '3 cases, finished' in out
  assert err.count('Skipped in.s0') == 3


def test_an_unknown_layout_is_drafted_and_read(tmp_path, prepare):
  root = study(tmp_path / 'in', 3)
  for path in root.glob('*/*.nii.gz'):
    path.rename(path.with_name(f'scan_{path.name.upper()}'))
  table = tmp_path / 'table.csv'
  code, out, err = prepare(f'--root={root}', f'--draft={table}')
  assert code == 0, err
  assert '6 volumes, 0 without a subject or a modality' in out
  args = ('--dataset=csv', f'--root={table}', '--region=pelvis', '--holdout')
  code, out, err = prepare(*args, '--canvas=16')
  assert code == 0, err
  assert '3 cases, finished' in out


def test_other_settings_and_too_few_subjects_are_refused(tmp_path, prepare):
  root = study(tmp_path / 'in', 3)
  assert prepare(*folder_args(root, '--canvas=16'))[0] == 0
  assert_refused(
    prepare(*folder_args(root, '--canvas=32')),
    'canvas: [16, 16] in the store, [32, 32] now',
  )
  shutil.rmtree(root / 's02')
  assert_refused(prepare(*folder_args(root)), '2 subject(s) cannot be split')


def start(root, store):
  command = [sys.executable, '-m', 'synermedgen_jax.prepare']
  command += folder_args(root, '--canvas=96', '--workers=1', f'--store={store}')
  return subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    cwd=Path(__file__).parents[1],
  )


@pytest.mark.parametrize('who', ['group', 'parent'])
def test_store_survives_kill_9(tmp_path, prepare, who):
  root = study(tmp_path / 'in', 12)
  killed, whole = tmp_path / 'killed', tmp_path / 'store'
  process = start(root, killed)
  try:
    while not list(killed.glob('cases/*.json')):
      assert process.poll() is None, process.communicate()
      time.sleep(0.01)
  finally:
    if who == 'group':
      os.killpg(process.pid, signal.SIGKILL)
    else:
      process.kill()
  # The pipes close when the last worker is gone: none is left to write on.
  process.communicate(timeout=120)
  assert process.returncode == -signal.SIGKILL
  assert len(list(killed.glob('cases/*.json'))) < 12
  with pytest.raises(StoreError, match='not finished; run the same prepare'):
    SliceStore.open(str(killed))
  if who == 'parent':
    return
  for store in (killed, whole):
    assert prepare(*folder_args(root, '--canvas=96'), store=store)[0] == 0
  assert_same_contents(killed, whole)
  assert json.loads((killed / 'store.json').read_text())['cases'] == 12


def shift(path, millimetres):
  """Moves a volume in the world, towards the feet."""
  image = nib.load(path)
  affine = image.affine.copy()
  affine[2, 3] -= millimetres
  nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def structured(folder, *, seed):
  """A pair whose body changes along z, so that its place can be told."""
  rng = np.random.default_rng(seed)
  level = sum(
    ndimage.gaussian_filter(rng.standard_normal((24, 24, 24)), s) * s**1.5
    for s in (2, 4)
  )
  level = (level - level.min()) / np.ptp(level)
  x, y, _ = np.indices(level.shape)
  body = (x - 11.5) ** 2 + (y - 11.5) ** 2 < 100
  affine = np.diag([3.0, 3, 4, 1])
  folder.mkdir(parents=True)
  for name, data in (
    ('ct', np.where(body, 900 * level - 100, -1000)),
    ('mr', np.where(body, 800 - 600 * level, 0)),
  ):
    image = nib.Nifti1Image(data.astype(np.int16), affine)
    nib.save(image, folder / f'{name}.nii.gz')


def test_a_pair_that_does_not_correspond_is_left_out(prepare, tmp_path):
  root = tmp_path / 'study'
  for i in range(4):
    structured(root / f's{i}', seed=i)
  shift(root / 's2/mr.nii.gz', 12)
  args = folder_args(root, '--reference=ct', '--canvas=24')
  code, _, err = prepare(*args)
  assert code == 0, err
  assert 'appears to be 12 mm inferior of ct.nii.gz' in err
  ids = [c.subject for c in SliceStore.open(tmp_path / 'store').cases]
  assert ids == ['s0', 's1', 's3']
  code, _, err = prepare(*args, '--most_offset=0', store=tmp_path / 'all')
  assert code == 0, err
  assert len(SliceStore.open(tmp_path / 'all').cases) == 4
  code, _, err = prepare(*args, '--register=rigid', store=tmp_path / 'moved')
  assert code == 0, err
  corrected = SliceStore.open(tmp_path / 'moved').case('study.s2')
  assert corrected.transforms.keys() == {Modality.MR}
  np.testing.assert_allclose(
    np.array(corrected.transforms[Modality.MR])[:3, 3], (0, 0, 12), atol=1.5
  )
  others = SliceStore.open(tmp_path / 'moved').cases
  assert [c.subject for c in others if not c.transforms] == ['s0', 's1', 's3']


def test_a_mirrored_volume_is_left_out_and_not_registered(prepare, tmp_path):
  root = tmp_path / 'study'
  for i in range(4):
    structured(root / f's{i}', seed=i)
  image = nib.load(root / 's1/mr.nii.gz')
  flipped = np.asarray(image.dataobj)[::-1]
  nib.save(nib.Nifti1Image(flipped, image.affine), root / 's1/mr.nii.gz')
  args = folder_args(root, '--reference=ct', '--canvas=24', '--register=rigid')
  code, _, err = prepare(*args)
  assert code == 0, err
  assert 'appears to be mirrored left to right, compared with ct.nii.gz' in err
  ids = [c.subject for c in SliceStore.open(tmp_path / 'store').cases]
  assert ids == ['s0', 's2', 's3']


def test_several_sets_go_into_one_store_and_people_into_one_split(
  prepare, tmp_path
):
  synthrad = tmp_path / 'synthrad'
  for i in (0, 3, 4, 7):  # ids have gaps
    structured(synthrad / f'Task1/pelvis/1PA00{i}', seed=i)
  table = tmp_path / 'more.csv'
  lines = ['subject,modality,path,region,patient']
  for i in range(4):
    structured(tmp_path / f'more/p{i}', seed=10 + i)
    for modality in ('ct', 'mr'):
      path = f'more/p{i}/{modality}.nii.gz'
      lines.append(f'p{i},{modality},{path},brain,person{i // 2}')
  table.write_text('\n'.join(lines) + '\n')
  code, _, err = prepare(
    '--dataset=synthrad2023,csv',
    f'--root={synthrad},{table}',
    '--canvas=24',
    '--val=0',
    '--test=0.5',
  )
  assert code == 0, err
  cases = SliceStore.open(tmp_path / 'store').cases
  assert [c.id for c in cases] == [
    *(f'more.p{i}' for i in range(4)),
    *(f'synthrad2023.1PA00{i}' for i in (0, 3, 4, 7)),
  ]
  splits = [case.split for case in cases]
  assert splits[0] == splits[1] != splits[2] == splits[3]
  assert [case.person for case in cases[:5]] == [
    *('more.person0', 'more.person0', 'more.person1', 'more.person1'),
    'synthrad2023.1PA000',
  ]
  assert sorted(splits[4:]) == ['test', 'test', 'train', 'train']


def test_layouts_and_places_have_to_match(prepare, tmp_path):
  assert_refused(
    prepare('--dataset=brats,csv', f'--root={tmp_path}'),
    '--dataset names 2 layouts, but --root 1 paths',
  )
  assert_refused(
    prepare('--dataset=dicom', f'--root={tmp_path}'),
    "--dataset 'dicom': expected some of phantom, csv, folder, flat, nnunet",
  )


def test_names_of_another_layout_are_refused_with_the_flag_to_use(
  prepare, tmp_path
):
  for name in ('s1_mr.nii.gz', 's1_ct.nii.gz'):
    (tmp_path / name).touch()
  options = (f'--root={tmp_path}', '--region=brain')
  for layout in ('folder', 'nnunet', 'bids', 'csv'):
    assert_refused(
      prepare(f'--dataset={layout}', *options),
      f'{tmp_path}: holds no volume of --dataset={layout}, but names such as '
      's1_ct.nii.gz; use --dataset=flat.',
    )
  assert_refused(
    prepare(*options),
    f'--dataset is required: {tmp_path} holds names such as s1_ct.nii.gz, so '
    'use --dataset=flat.',
  )


def test_check_inspects_volumes_of_a_layout_that_it_recognises_and_prints(
  tmp_path, monkeypatch
):
  root = tmp_path / 'study'
  structured(root / 's1', seed=0)
  monkeypatch.chdir(tmp_path)
  code, out, err = commands.run(
    'check', '-i', root, '--region=pelvis', '--workers=1', '--reference=ct'
  )
  assert code == 0, err
  assert err.startswith(f'{root}: read with --dataset=folder, since it holds ')
  assert '1 cases, 0 of them with problems' in out
  assert out.endswith('check-study/index.html\n')
  assert (tmp_path / 'check-study' / 'index.html').is_file()


def test_a_check_writes_a_report_and_no_store(prepare, tmp_path):
  root = tmp_path / 'study'
  for i in range(3):
    structured(root / f's{i}', seed=i)
  args = folder_args(root, '--reference=ct', f'--check={tmp_path / "report"}')
  code, out, err = prepare(*args)
  assert code == 0, err
  assert '3 cases, 0 of them with problems; 72 usable slices.' in out
  shift(root / 's1/mr.nii.gz', 12)
  path = root / 's2/ct.nii.gz'
  path.write_bytes(path.read_bytes()[:-200])
  code, out, _ = prepare(*args)
  assert code == 1
  assert 'study.s1: mr.nii.gz: appears to be 12 mm inferior of ct.nii' in out
  assert 's2/ct.nii.gz: cannot be read, truncated' in out
  assert (tmp_path / 'report' / 'index.html').is_file()
  assert not (tmp_path / 'store').exists()


def test_a_check_reads_the_modality_of_every_volume(tmp_path, monkeypatch):
  root = tmp_path / 'study'
  for i in range(2):
    structured(root / f's{i}', seed=i)
  votes = {
    ('s0', 'ct'): {Modality.CBCT: 16},  # a CT looks like a CBCT
    ('s0', 'mr'): {Modality.MR: 16},
    ('s1', 'ct'): {Modality.MR: 9, Modality.CT: 7},
    ('s1', 'mr'): {Modality.T1: 16},
  }
  asked = iter(sorted(votes))
  readings = [Reading(votes[key], 16) for key in asked]
  monkeypatch.setattr(
    inspection, 'read_modality', lambda *_: readings.pop(0), raising=True
  )
  loaded = []
  monkeypatch.setattr(inspection.Trained, 'load', loaded.append)
  code, out, _ = commands.run(
    'check',
    *folder_args(root, '--reference=ct', '--workers=1', '--reader=RUN'),
    f'--output={tmp_path / "report"}',
  )
  assert code == 1
  lines = out.splitlines()
  assert lines[0] == (
    f'study.s1: {root}/s1/ct.nii.gz: stated as CT, but the model reads MRI in '
    '9, CT in 7 of 16 slices.'
  )
  assert lines[1] == (
    f'study.s1: note: {root}/s1/mr.nii.gz: stated as MRI, but the model reads '
    'T1 (MRI) in 16 of 16 slices.'
  )
  assert lines[2].startswith('2 cases, 1 of them with problems')
  assert loaded == ['RUN']
  page = (tmp_path / 'report' / 'index.html').read_text()
  assert 'CBCT in 16 of 16 slices' in page


def test_slices_like_those_of_a_run_need_a_store(prepare, tmp_path):
  assert_refused(
    prepare(f'--root={tmp_path}', f'--check={tmp_path}/report', '--like=RUN'),
    '--like: has an effect on --store alone; leave it out.',
  )


def test_a_reader_without_a_check_is_refused(prepare, tmp_path):
  assert_refused(
    prepare(*folder_args(tmp_path, '--reader=RUN')),
    '--reader: has no effect without --check.',
  )


def run_record(folder, **record):
  """The config.json of a run with its own canvas and window of CT."""
  folder.mkdir()
  windows = {'ct': {'low': -900.0, 'high': 2000.0}}
  config = {'image': {'vit_size': [8, 8], 'vae_size': [8, 8]}}
  record = {'config': config, 'canvas': [12, 20], 'windows': windows} | record
  (folder / 'config.json').write_text(json.dumps(record))
  return folder


def test_a_holdout_has_the_slices_of_a_run(tmp_path, prepare):
  run = run_record(tmp_path / 'run')
  root = study(tmp_path / 'in', 2)
  code, _, err = prepare(*folder_args(root, '--holdout', f'--like={run}'))
  assert code == 0, err
  store = SliceStore.open(str(tmp_path / 'store'))
  assert store.slices.canvas == (12, 20)
  assert {case.split for case in store.cases} == {'holdout'}
  assert store.cases[0].modalities[Modality.CT] == Window(-900, 2000)


def test_slices_of_a_run_and_of_flags_are_refused(tmp_path, prepare):
  run = run_record(tmp_path / 'run')
  args = folder_args(study(tmp_path / 'in', 1), f'--like={run}')
  assert_refused(
    prepare(*args, '--canvas=16', '--frame=body'), '--canvas, --frame: --like='
  )
  assert_refused(prepare(*args[:-1], '--like=nowhere'), 'has no config.json')


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (('--dataset=phantom', '--root=R'), '--shift=mr_3t: makes phantoms to'),
    (
      ('--dataset=folder', '--root=R', '--region=brain', '--holdout'),
      '--shift=mr_3t: changes the scanners of --dataset=phantom',
    ),
  ],
)
def test_other_scanners_are_for_holdouts_of_phantoms(prepare, args, message):
  assert_refused(prepare(*args, '--shift=mr_3t'), message)


def test_a_store_of_one_shift_is_not_taken_for_another(tmp_path):
  cases = [CaseFiles('brain', 'a', Region.BRAIN, {})]
  settings = prepare_store.PrepareSettings(
    Settings(SliceSpec((16, 16))), dataset='phantom', holdout=True
  )

  def begin(shift):
    return prepare_store.prepare_part(
      cases,
      tmp_path / 'store',
      dataclasses.replace(settings, shift=shift, skip_bad=True),
      prepare_store.Part(2, 2),  # which has no case
    )

  assert begin('mr_3t') == begin('mr_3t') == ['brain.a']
  with pytest.raises(StoreError, match="'mr_3t' in the store, 'mr_bias' now"):
    begin('mr_bias')
