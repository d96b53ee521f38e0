"""The compare command on hand-made evaluations."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import commands
import pytest
from commands import assert_refused

sys.path.insert(0, str(Path(__file__).parent / 'evaluation'))
import subject_files

from synermedgen_jax.config.sampling import SamplingConfig

STUDY = Path(__file__).parent / 'data/study.json'


def compare(root, *flags):
  return commands.run(
    'compare',
    f'--runs={root}',
    f'--output={root}/out/page.md',
    '--resamples=200',
    f'--study={STUDY}',
    '--arms=base,stage1,stage2',
    *flags,
  )


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Stage I + II twice, Stage I once, the base not at all."""
  root = tmp_path_factory.mktemp('runs')
  subject_files.write(root, 'stage2', 0, brats=(0.2, 0.4, 0.6))
  subject_files.write(root, 'stage2', 1, brats=(0.4, 0.6, 0.8))
  subject_files.write(root, 'stage1', 0, brain=(0.4, 0.6), right=[0] * 5)
  code, _, err = compare(root)
  assert code == 0, err
  return root


@pytest.fixture(scope='module')
def page(root):
  return (root / 'out' / 'page.md').read_text()


def section(page, title):
  (actual,) = re.findall(
    rf'^## {re.escape(title)}.*?\n(.*?)(?=^## |\Z)', page, re.M | re.S
  )
  return actual


def cells(text, name):
  (row,) = [x for x in text.splitlines() if x.startswith(f'| {name} |')]
  return [cell.strip() for cell in row.strip('|').split('|')]


def test_means_are_over_subjects_seeds_and_routes(page):
  # Brain 0.6; BraTS 0.4 and 0.6 in the two seeds.
  text = section(page, 'SSIM, 22 routes')
  _, mean, difference, seeds, published = cells(text, 'Stage I + II')
  assert mean.startswith('55.0 [')
  assert difference == 'reference'
  assert published == '–'
  assert seeds == '2: 50.0, 60.0'


def test_differences_are_paired(page):
  # Every brain subject is worse by 10: no resample says anything else.
  text = section(page, 'SSIM, 10 CT/CBCT/PET/MR routes')
  _, mean, difference, _, published = cells(text, 'Stage I alone, zero-shot')
  assert mean.startswith('50.0 [40.0, 60.0')
  assert difference == '−10.0 [−10.0, −10.0]'
  assert published == '66.8'


def test_accuracy_stands_beside_chance(page):
  text = section(page, 'CTS, accuracy')
  assert cells(text, 'Stage I + II')[1].startswith('60.0 [')
  row = cells(text, 'Stage I alone, zero-shot')
  assert (row[1], row[4]) == ('0.0 [0.0, 0.0]', '83.2')
  assert cells(text, '*chance*')[1] == '25.0'


def test_baselines_have_their_rows(page):
  text = section(page, 'SSIM, 12 BraTS routes')
  assert cells(text, '*copy of the source*')[1] == '25.0 [25.0, 25.0]'
  ceiling = '*ceiling: the truth through the autoencoder*'
  assert cells(text, ceiling)[1] == '75.0 [75.0, 75.0]'


def test_what_is_missing_is_said(page):
  assert '**Not run:** Base alone, zero-shot (`base`).' in page
  assert '**Seeds missing** of Stage I alone, zero-shot (`stage1`): seed1.' in (
    page
  )
  text = section(page, 'CTS, accuracy')
  assert cells(text, 'Base alone, zero-shot')[1] == 'not run'
  assert '1 of them scored' in page
  # Nobody was asked.
  assert '## MI, accuracy' not in page


def test_numbers_are_defined_and_subjects_counted(page):
  assert '5 subjects of split `test` (2 brain, 3 brats)' in page
  assert '**Few subjects** of brain, brats' in page
  text = section(page, 'Definitions')
  for word in ('SSIM, 22 routes', 'CTS, accuracy', '[95 %]', 'Baselines'):
    assert f'**{word}**' in text
  assert '**Published**: SynerMedGen, ICML 2026' in text


def test_the_plot_is_a_picture_of_the_page(root, page):
  assert '](page.png)' in page
  assert (root / 'out' / 'page.png').read_bytes()[:4] == b'\x89PNG'


def test_the_same_files_give_the_same_page(root, page):
  assert compare(root)[0] == 0
  assert (root / 'out' / 'page.md').read_text() == page


def test_notes_are_kept(tmp_path):
  subject_files.write(tmp_path, 'stage2')
  assert compare(tmp_path)[0] == 0
  path = tmp_path / 'out' / 'page.md'
  path.write_text(path.read_text() + 'What was tried.\n')
  assert compare(tmp_path)[0] == 0
  assert path.read_text().endswith('<!-- notes -->\nWhat was tried.\n')


def test_an_arm_without_synthesis_says_so(tmp_path):
  subject_files.write(tmp_path, 'stage2')
  record = subject_files.record()
  del record['synthesis']
  subject_files.write_record(tmp_path, 'stage1', record)
  assert compare(tmp_path)[0] == 0
  text = section((tmp_path / 'out/page.md').read_text(), 'SSIM, 22 routes')
  assert cells(text, 'Stage I alone, zero-shot')[1] == 'not measured'


def fewer_subjects(record):
  del record['subjects']['brats.e']
  del record['synthesis']['brats_t1_to_t2']['brats.e']
  del record['understanding']['cts']['answers'][-1]


def more_subjects(record):
  record['subjects']['brain.f'] = 'brain'


def other_slices(record):
  record['settings']['slices'] = 3


def other_store(record):
  record['settings']['store'] = '0123456789ab'


def other_sampling(record):
  record['sampling'] = {'points': 10}


def fewer_routes(record):
  del record['synthesis']['brain_mr_to_ct']


def as_many_other_routes(record):
  routes = record['synthesis']
  routes['brain_ct_to_mr'] = routes.pop('brain_mr_to_ct')


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    (fewer_subjects, 'subjects, routes, slices'),
    (more_subjects, 'subjects, routes, slices'),
    (other_slices, 'subjects, routes, slices'),
    (fewer_routes, 'subjects, routes, slices'),
    (as_many_other_routes, 'subjects, routes, slices'),
    (other_store, 'subjects, routes, slices, questions, seed or store'),
    (other_sampling, "sampled with {'points': 10}, but"),
  ],
)
def test_runs_that_were_not_asked_the_same_are_refused(
  tmp_path, change, reason
):
  subject_files.write(tmp_path, 'stage2')
  record = subject_files.record()
  change(record)
  path = subject_files.write_record(tmp_path, 'stage1', record)
  assert_refused(compare(tmp_path), f'{path}: {reason}')


def longer(record):
  record['settings']['steps'] = [1500]


def of_another_program(record):
  """As `score` writes it."""
  record['settings'] = {
    key: record['settings'][key] for key in ('store', 'split', 'slices')
  }
  record['sampling'] = {'synthesiser': 'Theirs'}
  del record['understanding']


def of_a_system_of_the_arena(record):
  of_another_program(record)
  record['settings']['steps'] = [40]
  record['sampling'] = {'system': 'unet'}


@pytest.mark.parametrize(
  'change', [longer, of_another_program, of_a_system_of_the_arena]
)
def test_trainings_and_systems_are_compared_on_the_same_slices(
  tmp_path, change
):
  subject_files.write(tmp_path, 'stage2')
  record = subject_files.record()
  change(record)
  subject_files.write_record(tmp_path, 'stage1', record)
  code, _, err = compare(tmp_path)
  assert code == 0, err
  text = section((tmp_path / 'out/page.md').read_text(), 'SSIM, 22 routes')
  assert cells(text, 'Stage I alone, zero-shot')[2].startswith('+0.0')


def test_results_from_before_a_setting_are_those_without_it(tmp_path):
  sampling = {'points': 2, 'shift': 1.0}
  newer = dataclasses.fields(SamplingConfig)[3:]  # behind guidance
  off = json.loads(json.dumps({field.name: field.default for field in newer}))
  for arm, values in (('stage2', {}), ('stage1', off)):
    record = subject_files.record() | {'sampling': sampling | values}
    path = subject_files.write_record(tmp_path, arm, record)
  assert compare(tmp_path)[0] == 0
  record['sampling']['grain'] = 3.0
  subject_files.write_record(tmp_path, 'stage1', record)
  assert_refused(compare(tmp_path), f'{path}: sampled with')


def test_scores_that_one_run_lacks_change_nothing(tmp_path):
  subject_files.write(tmp_path, 'stage2')
  path = subject_files.write(tmp_path, 'stage1', brain=(0.4, 0.6))
  code, expected, err = compare(tmp_path)
  assert code == 0, err
  record = json.loads(path.read_text())
  for entries in record['synthesis'].values():
    for entry in entries.values():
      entry |= {'ssim_3d': 0.1, 'roughness_z': 2.0}
  path.write_text(json.dumps(record))
  assert compare(tmp_path) == (0, expected, '')


def write_with_tissue(root, arm, mae, dice=(0.5, 0.7), seed=0):
  """A run whose brain subjects have scores of bone."""
  record = subject_files.record()
  entries = record['synthesis']['brain_mr_to_ct'].values()
  for entry, error, overlap in zip(entries, mae, dice, strict=True):
    entry |= {'tissue/bone_mae': error, 'tissue/bone_dice': overlap}
  return subject_files.write_record(root, arm, record, seed)


def test_scores_of_volumes_are_compared_in_their_units(tmp_path):
  write_with_tissue(tmp_path, 'stage2', mae=(100, 140))
  write_with_tissue(tmp_path, 'stage2', mae=(140, 180), seed=1)
  write_with_tissue(tmp_path, 'stage1', mae=(150, 190), dice=(0.4, 0.6))
  code, page, err = compare(tmp_path)
  assert code == 0, err
  mae = section(page, 'tissues: bone MAE, 16 routes (1 of them scored)')
  assert '| mean, HU [95 %] |' in mae
  _, mean, _, seeds, _ = cells(mae, 'Stage I + II')
  assert mean == '140.0 [120.0, 160.0]'
  assert seeds == '2: 120.0, 160.0'
  # Both subjects are worse by 30 HU.
  assert cells(mae, 'Stage I alone, zero-shot')[1:3] == [
    '170.0 [150.0, 190.0]',
    '+30.0 [+30.0, +30.0]',
  ]
  assert 'copy of the source' not in mae
  dice = section(page, 'tissues: bone Dice, 16 routes (1 of them scored)')
  assert '| mean, x 100 [95 %] |' in dice
  row = cells(dice, 'Stage I alone, zero-shot')
  assert row[1:3] == ['50.0 [40.0, 60.0]', '−10.0 [−10.0, −10.0]']
  assert 'bone from 150 HU' in section(page, 'Definitions')


def test_a_score_of_volumes_that_one_run_lacks_is_not_measured(tmp_path):
  subject_files.write(tmp_path, 'stage1')
  write_with_tissue(tmp_path, 'stage2', mae=(100, 140))
  code, page, err = compare(tmp_path)
  assert code == 0, err
  text = section(page, 'tissues: bone MAE, 16 routes (1 of them scored)')
  assert cells(text, 'Stage I alone, zero-shot')[1] == 'not measured'
  assert cells(text, 'Stage I + II')[1] == '120.0 [100.0, 140.0]'
  assert 'SynthRAD' not in page


def test_a_score_of_volumes_that_only_a_later_seed_has_counts_its_routes(
  tmp_path,
):
  subject_files.write(tmp_path, 'stage2')
  write_with_tissue(tmp_path, 'stage2', mae=(100, 140), seed=1)
  code, page, err = compare(tmp_path)
  assert code == 0, err
  text = section(page, 'tissues: bone MAE, 16 routes (1 of them scored)')
  assert cells(text, 'Stage I + II')[3] == '1: 120.0'


def test_no_run_at_all_is_refused(tmp_path):
  assert_refused(compare(tmp_path), f'{tmp_path}: has no SEED/ARM/')


def test_a_missing_reference_is_refused(tmp_path):
  subject_files.write(tmp_path, 'stage1')
  assert_refused(compare(tmp_path), "reference arm 'stage2' has no evaluation")


def test_what_is_no_such_file_is_refused(tmp_path):
  path = subject_files.write(tmp_path, 'stage2')
  whole = json.loads(path.read_text())
  for content, message in (
    ('{', 'cannot be read'),
    (json.dumps(whole | {'version': 9}), 'has version 9'),
    (json.dumps(whole | {'subjects': {}}), "missing or invalid: 'brain.a'"),
  ):
    path.write_text(content)
    assert_refused(compare(tmp_path), str(path), message)


def test_without_a_study_arms_are_the_workdirs_by_name(tmp_path):
  subject_files.write(tmp_path, 'one')
  subject_files.write(tmp_path, 'two')
  code, _, err = commands.run(
    'compare', f'--runs={tmp_path}', '--reference=two', '--resamples=20'
  )
  assert code == 0, err
  page = (tmp_path / 'comparison.md').read_text()
  overview = section(page, 'Overview')
  assert [cells(overview, name)[-1] for name in ('one', 'two')] == ['1', '1']
  assert 'published' not in page.lower()


def test_without_a_study_the_reference_has_to_be_named(tmp_path):
  subject_files.write(tmp_path, 'one')
  assert_refused(
    commands.run('compare', f'--runs={tmp_path}'), '--reference: name the arm'
  )


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{', 'is not a study'),
    ('{"arm": {}}', "unexpected keyword argument 'arm'"),
    ('{"reference": "a"}', "reference 'a' is not one of the arms"),
    (
      '{"arms": {"a": {"title": "A", "published": {"psnr": 1}}}}',
      "arm 'a' has figures for unknown psnr",
    ),
  ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path, content, message):
  path = tmp_path / 'study.json'
  path.write_text(content)
  result = commands.run('compare', f'--runs={tmp_path}', f'--study={path}')
  assert_refused(result, str(path), message)
