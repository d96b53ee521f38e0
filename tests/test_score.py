"""Exported test slices, and the scores of outputs that come back."""

import json
import shutil

import commands
import nibabel as nib
import numpy as np
import pytest
from commands import assert_refused
from external_fakes import (
  AFFINE,
  CASE,
  ROUTE,
  USABLE,
  WINDOWS,
  hounsfield,
  levels,
  slice_paths,
  truths,
  write_store,
  write_volumes,
)
from PIL import Image

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.evaluation.output_files import output_name
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES
from synermedgen_jax.tasks.prompts import PROMPTS

REVERSE = 'brain_ct_to_mr'
FIRST = output_name(ROUTE, CASE, USABLE[0])


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return write_store(tmp_path_factory.mktemp('external') / 'store')


def run(command, **flags):
  return commands.run(command, *(f'--{k}={v}' for k, v in flags.items()))


@pytest.fixture(scope='module')
def export(store, tmp_path_factory):
  output = tmp_path_factory.mktemp('external') / 'export'
  code, out, err = run('export_tests', store=store.path, output=output)
  assert code == 0, err
  assert out == f'16 slices of 4 volumes, 2 routes.\n{output}\n'
  return output


def index_of(export):
  lines = (export / 'index.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_the_index_names_route_case_slice_file_and_window(export):
  rows = index_of(export)
  assert len(rows) == 2 * 2 * len(USABLE)
  assert rows[0] == {
    'route': ROUTE,
    'case': CASE,
    'slice': USABLE[0],
    'source': f'{ROUTE}/slices/{ROUTE}__brain.b1__0001.png',
    'source_window': [0, 800],
    'volume': f'{ROUTE}/volumes/{ROUTE}__brain.b1.nii.gz',
    'file': f'{ROUTE}__brain.b1__0001.png',
    'window': [-1000, 1000],
    'unit': 'HU',
  }


def test_sources_are_exported_and_no_target_of_the_route(export, store):
  mr, ct = (store.read_volume(CASE, m) for m in (Modality.MR, Modality.CT))
  for route, source, window in (
    (ROUTE, mr, WINDOWS[Modality.MR]),
    (REVERSE, ct, WINDOWS[Modality.CT]),
  ):
    name = output_name(route, CASE)
    volume = nib.load(export / route / 'volumes' / f'{name}.nii.gz')
    np.testing.assert_allclose(volume.affine, AFFINE)
    values = volume.get_fdata().transpose(2, 1, 0)
    np.testing.assert_allclose(values, window.denormalise(source), atol=0.1)
    for index in USABLE:
      picture = export / route / 'slices' / f'{name}__{index:04d}.png'
      assert (np.array(Image.open(picture)) == levels(source[index])).all()
  # A volume and four slices of each test subject.
  files = [p for p in (export / ROUTE).rglob('*') if p.is_file()]
  assert len(files) == 2 * 5


def test_the_metadata_has_a_picture_and_a_prompt_for_every_output(export):
  metadata = json.loads((export / 'metadata.json').read_text())
  assert [f'{key}.png' for key in metadata] == [
    row['file'] for row in index_of(export)
  ]
  assert metadata[FIRST] == {
    'id': f'{ROUTE}/slices/{FIRST}.png',
    'prompt': PROMPTS['paper'].canonical(route_named(ROUTE)),
  }
  assert all((export / entry['id']).is_file() for entry in metadata.values())


def test_the_slices_and_routes_to_export_can_be_chosen(store, tmp_path):
  flags = {'routes': ROUTE, 'slices': 2, 'prompts': 'short'}
  output = tmp_path / 'export'
  code, _, err = run('export_tests', store=store.path, output=output, **flags)
  assert code == 0, err
  rows = index_of(output)
  assert {row['route'] for row in rows} == {ROUTE}
  assert [row['slice'] for row in rows] == [2, 4, 2, 4]
  again = run('export_tests', store=store.path, output=output, **flags)
  assert_refused(again, f'{output}: is not empty; name a new folder.')


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ({'routes': 'brain'}, "--routes: Unknown route 'brain': the nearest are "),
    ({'split': 'holdout'}, "no subject of split 'holdout'"),
    (
      {'routes': 'brats_t2+t1_to_flair'},
      "--routes: Route 'brats_t2+t1_to_flair': its sources are in another",
    ),
  ],
)
def test_what_cannot_be_exported_is_refused(store, tmp_path, flags, message):
  output = tmp_path / 'export'
  result = run('export_tests', store=store.path, output=output, **flags)
  assert_refused(result, message)
  assert not output.exists()


def score(store, outputs, workdir, **flags):
  flags = {'name': 'Other', 'routes': ROUTE} | flags
  return run(
    'score', store=store.path, outputs=outputs, workdir=workdir, **flags
  )


def read(workdir, name):
  return json.loads((workdir / 'evaluation' / name).read_text())


@pytest.fixture(scope='module')
def perfect(store, tmp_path_factory):
  """A workdir with the scores of the truth, and the printed text."""
  folder = tmp_path_factory.mktemp('outputs')
  volumes = {k: hounsfield(v) for k, v in truths(store).items()}
  write_volumes(folder / 'volumes', volumes)
  workdir = folder / 'all' / '0' / 'other'
  code, out, err = score(store, folder / 'volumes', workdir)
  assert code == 0, err
  return workdir, out


def test_the_truth_scores_1(perfect, store):
  workdir, out = perfect
  metrics = read(workdir, 'metrics.json')
  assert metrics['synthesis'][ROUTE]['ssim'] == pytest.approx(1, abs=1e-6)
  assert metrics['synthesis'][ROUTE]['count'] == 2
  assert metrics['sampling'] == {'synthesiser': 'Other'}
  assert metrics['split'] == 'test'
  assert metrics['slices'] == 'all usable'
  for metric in ('roughness', 'roughness_z', 'ssim_3d'):
    assert metrics['synthesis'][ROUTE][metric] == pytest.approx(1, rel=1e-5)
  assert metrics['outputs']['steps']['volumes'] == 2
  subjects = read(workdir, 'subjects.json')
  assert subjects['settings'] == {
    'split': 'test',
    'slices': 0,
    'store': store.fingerprint,
  }
  assert 'Other: 8 of 8 slices scored.\nRead: volumes 2.' in out


def test_the_source_under_its_own_name_scores_as_the_copy(
  export, store, tmp_path
):
  # As from a program that keeps the names of its inputs.
  code, _, err = score(store, export / ROUTE / 'slices', tmp_path)
  assert code == 0, err
  result = read(tmp_path, 'metrics.json')['synthesis'][ROUTE]
  copy = result['baselines']['copy_source']
  assert result['ssim'] == pytest.approx(copy['ssim'], abs=1e-3)


def test_the_exported_index_lists_the_outputs(export, store, tmp_path):
  shutil.copy(export / 'index.jsonl', tmp_path)
  for path, image in slice_paths(tmp_path, truths(store), '.png'):
    Image.fromarray(levels(image)).save(path)
  code, out, err = score(store, tmp_path / 'index.jsonl', tmp_path / 'out')
  assert code == 0, err
  assert 'Read: slices 8, 8-bit 8.' in out


ACROSS_SLICES = ['roughness_z', 'ssim_3d']


def test_slices_apart_have_no_scores_across_slices(store, tmp_path):
  volumes = {k: hounsfield(v) for k, v in truths(store).items()}
  write_volumes(tmp_path / 'volumes', volumes)
  workdir = tmp_path / 'two'
  code, out, err = score(store, tmp_path / 'volumes', workdir, slices=2)
  assert code == 0, err
  assert 'Left out: roughness_z, ssim_3d. They need two or more' in out
  metrics = read(workdir, 'metrics.json')
  assert metrics['left_out'] == dict.fromkeys(ACROSS_SLICES, CASE)
  assert not {*ACROSS_SLICES} & metrics['synthesis'][ROUTE].keys()
  code, out, err = run('report', workdir=workdir)
  assert code == 0, err
  page = (workdir / 'report' / 'index.html').read_text()
  for shown in (page, out):
    assert f'which {CASE} was not scored on.' in shown
  assert '>roughness<' in page
  assert '>ssim_3d<' not in page


def test_a_case_of_one_usable_slice_has_no_scores_across_slices(tmp_path):
  store = write_store(tmp_path / 'store', depth=3)
  volumes = {k: hounsfield(v) for k, v in truths(store).items()}
  write_volumes(tmp_path / 'volumes', volumes)
  code, _, err = score(store, tmp_path / 'volumes', tmp_path / 'out')
  assert code == 0, err
  left_out = read(tmp_path / 'out', 'metrics.json')['left_out']
  assert list(left_out) == ACROSS_SLICES


@pytest.mark.parametrize(
  ('missing', 'left_out'), [(USABLE[0], []), (USABLE[1], ACROSS_SLICES)]
)
def test_a_gap_between_partial_slices_leaves_scores_out(
  store, tmp_path, missing, left_out
):
  for path, image in slice_paths(tmp_path / 'png', truths(store), '.png'):
    Image.fromarray(levels(image)).save(path)
  name = output_name(ROUTE, CASE, missing)
  (tmp_path / 'png' / f'{name}.png').unlink()
  workdir = tmp_path / 'out'
  code, _, err = score(store, tmp_path / 'png', workdir, partial=True)
  assert code == 0, err
  assert list(read(workdir, 'metrics.json')['left_out']) == left_out


def test_the_report_shows_the_system(perfect, tmp_path):
  workdir, _ = perfect
  code, out, err = run('report', workdir=workdir, output=tmp_path)
  assert code == 0, err
  page = (tmp_path / 'index.html').read_text()
  assert 'Synthesised by Other' in page
  assert 'outputs.steps.volumes' in page
  for metric in ('roughness', 'roughness_z', 'ssim_3d'):
    assert f'>{metric}</th>' in page
    assert f'>{metric}.dimension<' in page
  assert 'synermedgen_jax.main' not in page  # nothing to train
  assert ROUTE in out


def own_evaluation(workdir, arm, **settings):
  """A copy of an evaluation, as one of a trained model."""
  record = read(workdir, 'subjects.json')
  record['settings'] |= {'questions': 9, 'seed': 1, 'neighbours': 3} | settings
  record['sampling'] = {'points': 50}
  path = workdir.parent / arm / 'evaluation' / 'subjects.json'
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(record))


def test_systems_are_compared_with_a_trained_model(perfect):
  workdir, _ = perfect
  own_evaluation(workdir, 'ours')
  root = workdir.parents[1]
  flags = {'reference': 'ours', 'resamples': 20}
  code, out, err = run('compare', runs=root, **flags)
  assert code == 0, err
  assert '| other | ' in out
  own_evaluation(workdir, 'fewer', slices=2)
  assert_refused(run('compare', runs=root, **flags), 'slices, questions')


def test_a_partial_score_says_what_it_scored(store, tmp_path):
  for path, image in slice_paths(tmp_path / 'png', truths(store), '.png'):
    Image.fromarray(levels(image)).save(path)
  (tmp_path / 'png' / f'{FIRST}.png').unlink()
  workdir = tmp_path / 'all' / '0' / 'other'
  refused = score(store, tmp_path / 'png', workdir)
  assert_refused(refused, f'no output {FIRST}; 1 of 8 slices are missing')
  assert not workdir.exists()
  code, out, err = score(store, tmp_path / 'png', workdir, partial=True)
  assert code == 0, err
  assert 'Other: 7 of 8 slices scored.' in out
  assert read(workdir, 'metrics.json')['slices'].startswith('7 of 8, ')
  # It stands beside scores of the same slices only.
  own_evaluation(workdir, 'ours', slices=0)
  result = run('compare', runs=tmp_path / 'all', reference='ours')
  assert_refused(result, 'slices, questions, seed or store')


def test_outputs_that_cannot_be_right_are_refused(store, tmp_path):
  volumes = {k: hounsfield(v)[:, ::-1] for k, v in truths(store).items()}
  write_volumes(tmp_path / 'volumes', volumes)
  refused = score(store, tmp_path / 'volumes', tmp_path / 'out')
  assert_refused(refused, f'{output_name(ROUTE, CASE)}.nii.gz', 'upside down')
  assert not (tmp_path / 'out').exists()


def test_crops_and_force_are_printed_and_recorded(store, tmp_path):
  for path, image in slice_paths(tmp_path / 'png', truths(store), '.png'):
    picture = Image.fromarray(levels(image) // 4)
    picture.crop(picture.getbbox()).save(path)
  workdir = tmp_path / 'out'
  flags = {'crop': 'target', 'force': True}
  code, out, err = score(store, tmp_path / 'png', workdir, **flags)
  assert code == 0, err
  assert 'Crops undone by the box of the target.\n' in out
  assert 'Scored with --force: 2 refusals overridden.\n' in out
  outputs = read(workdir, 'metrics.json')['outputs']
  assert outputs['crop'] == 'target'
  assert outputs['force'] is True
  assert outputs['steps']['forced'] == 2  # the contrast of each case


RUN = json.dumps({'config': {'stage': 'ucg', 'init_from': ''}})


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('config.json', RUN),
    ('config.json', RUN[:20]),  # truncated
    (f'{ROUTE}/config.json', RUN),  # a system that is trained per pair
    ('checkpoints/0/weights', ''),
  ],
)
def test_a_workdir_with_other_files_is_refused(store, tmp_path, name, text):
  (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
  (tmp_path / name).write_text(text)
  refused = score(store, tmp_path, tmp_path)
  assert_refused(refused, f'--workdir: {tmp_path} holds other files than')
  assert (tmp_path / name).read_text() == text


def test_results_of_score_are_replaced(perfect, store):
  workdir, _ = perfect
  outputs = read(workdir, 'metrics.json')['outputs']['path']
  (workdir / 'evaluation' / 'metrics.json').unlink()
  code, _, err = score(store, outputs, workdir)
  assert code == 0, err
  assert read(workdir, 'metrics.json')['synthesis'][ROUTE]['count'] == 2


def test_outputs_have_scores_of_volumes(tmp_path):
  store = write_store(tmp_path / 'store', depth=10)
  volumes = {k: hounsfield(v) for k, v in truths(store).items()}
  write_volumes(tmp_path / 'volumes', volumes)
  flags = {'score': 'synthrad2023,synthrad2025,tissue'}
  code, out, err = score(store, tmp_path / 'volumes', tmp_path / 'out', **flags)
  assert code == 0, err
  metrics = read(tmp_path / 'out', 'metrics.json')
  assert metrics['synthrad2023'][ROUTE]['ssim'] == pytest.approx(1, abs=1e-6)
  assert metrics['synthrad2025'][ROUTE]['ms_ssim'] == pytest.approx(1, abs=1e-6)
  assert metrics['synthrad2025'][ROUTE]['count'] == 2
  zero = dict.fromkeys(VOLUME_SCORES['tissue'].numbers, 0)
  assert metrics['tissue'] == {
    ROUTE: pytest.approx(zero | {'bone_dice': 1, 'count': 2}, abs=1e-3)
  }
  assert '150 HU' in metrics['definition']['tissue']['tissues']
  assert 'five scales' in metrics['definition']['synthrad2025']['window']
  assert f'{ROUTE}, SynthRAD2025: MAE 0.0 HU' in out
  assert f'{ROUTE}, tissues: air MAE 0.0 HU' in out


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ({'score': 'mae'}, '--score: unknown mae; expected some of synthrad2023'),
    ({'score': 'synthrad2023', 'slices': 2}, '--score: scores of volumes need'),
    ({'score': 'synthrad2023', 'partial': True}, '--score: scores of volumes'),
    ({'score': 'synthrad2023'}, 'brain.b1 has no body voxel at least 3'),
    ({'score': 'brasyn'}, 'brasyn: no route has one of its targets'),
  ],
)
def test_scores_of_volumes_that_outputs_cannot_have_are_refused(
  store, tmp_path, flags, message
):
  refused = score(store, tmp_path, tmp_path / 'out', **flags)
  assert_refused(refused, message)
  assert not (tmp_path / 'out').exists()
