"""The holdout command on hand-made evaluations."""

import json
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
from commands import assert_refused
from report_fakes import write_panel

sys.path.insert(0, str(Path(__file__).parent / 'evaluation'))
import subject_files

from synermedgen_jax.evaluation.holdouts import read_results
from synermedgen_jax.evaluation.subjects import FILE
from synermedgen_jax.reporting import holdout_figures


def write(root, holdout, system='ours', **values):
  content = subject_files.record(**values)
  content['settings']['store'] = holdout
  if system != 'ours':
    del content['understanding']
  path = root / holdout / system / FILE
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(content))
  return path.parent


def holdout(root, *flags):
  return commands.run('holdout', f'--runs={root}', '--resamples=50', *flags)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Our run and a U-Net on two holdouts, of which one has other scanners."""
  root = tmp_path_factory.mktemp('runs')
  for name, brain in (('none', (0.5, 0.7)), ('mr_noise_4x', (0.4, 0.6))):
    for system in ('ours', 'unet'):
      folder = write(root, name, system, brain=brain) / 'panels'
      folder.mkdir()
      write_panel(folder / 'brain_mr_to_ct.npz')
  code, _, err = holdout(root, '--systems=unet,ours')
  assert code == 0, err
  return root


@pytest.fixture(scope='module')
def page(root):
  return (root / 'holdout.md').read_text()


def cells(text, *starts):
  """The cells of the row that begins with these."""
  begin = f'| {" | ".join(starts)} |'
  (row,) = [x for x in text.splitlines() if x.startswith(begin)]
  return [cell.strip() for cell in row.strip('|').split('|')][len(starts) :]


def section(page, title):
  return page.partition(f'## {title}\n')[2].partition('\n## ')[0]


def test_a_row_has_values_and_paired_differences_of_every_system(page):
  text = section(page, 'SSIM')
  assert '| holdout | routes | unet | ours | *copy of the source* |' in text
  unet, ours, copy = cells(text, '`mr_noise_4x`', 'the truth stays (1)')
  assert unet == ours
  assert ours.startswith('50.0 [')
  # Each brain subject falls by 0.1.
  assert ours.endswith('<br>minus none **−10.0 [−10.0, −10.0]**')
  assert copy.endswith('minus none +0.0 [+0.0, +0.0]')
  assert 'minus' not in cells(text, '`none`', 'all (2)')[1]


def test_tasks_have_tables_of_the_runs_that_answer(page):
  text = section(page, 'CTS, accuracy')
  assert '| holdout | routes | ours | chance |' in text
  ours, chance = cells(text, '`mr_noise_4x`', 'all (1)')
  assert ours.startswith('60.0 [')
  assert chance == '25.0'
  assert 'MI, accuracy' not in page


def test_holdouts_are_described_and_numbers_defined(page):
  assert cells(page, '`mr_noise_4x`', 'MR noise x 4') == ['2 brain, 3 brats']
  text = section(page, 'Definitions')
  for word in ('SSIM', 'Accuracy', 'Routes', '[low, high]', 'Measured on'):
    assert f'**{word}**' in text
  assert '6 slices of each case, split `test`; random seed 0' in text


def test_the_figures_are_pictures_of_the_page(root, page):
  for name in ('holdout_change.png', 'holdout_slices.png'):
    assert f']({name})' in page
    assert (root / name).read_bytes()[:4] == b'\x89PNG'


def test_the_picture_has_source_syntheses_and_truth_of_each_shift(root):
  figure = holdout_figures.holdout_picture(root, read_results(root))
  titles = [axis.get_title() for axis in figure.axes]
  assert titles == [
    *('source\ntraining scanner', 'source', 'ours', 'unet', 'truth'),
  ]
  assert figure.axes[0].get_ylabel().startswith('mr_noise_4x\n')
  with np.load(
    root / 'none' / 'ours' / 'evaluation' / 'panels' / 'brain_mr_to_ct.npz'
  ) as panel:
    shown = [axis.images[0].get_array() for axis in figure.axes]
    for image, name in zip(
      shown,
      ('source', 'source', 'synthesis', 'synthesis', 'truth'),
      strict=True,
    ):
      np.testing.assert_array_equal(image, panel[name][0])


def test_another_subject_stands_not_beside_the_source_of_none(root, tmp_path):
  for name in ('none', 'mr_noise_4x'):
    folder = write(tmp_path, name) / 'panels'
    folder.mkdir()
    write_panel(folder / 'brain_mr_to_ct.npz', subject=np.array(name))
  figure = holdout_figures.holdout_picture(tmp_path, read_results(tmp_path))
  assert not figure.axes[0].images
  assert figure.axes[1].images


def test_notes_are_kept(root, page):
  path = root / 'holdout.md'
  path.write_text(page + 'What was seen.\n')
  assert holdout(root, '--systems=unet,ours')[0] == 0
  assert path.read_text() == page + 'What was seen.\n'


def test_other_data_have_no_difference(tmp_path):
  write(tmp_path, 'synthrad2025')
  code, out, err = holdout(tmp_path, f'--output={tmp_path}/page.md')
  assert code == 0, err
  text = section(out, 'SSIM')
  assert cells(text, '`synthrad2025`', 'brain (1)')[0].startswith('60.0 [')
  assert cells(out, '`synthrad2025`', 'other data') == ['2 brain, 3 brats']
  assert 'minus' not in out
  assert (tmp_path / 'page_change.png').is_file()


def test_one_subject_has_no_interval(tmp_path):
  path = write(tmp_path, 'myops') / 'subjects.json'
  record = json.loads(path.read_text())
  record['synthesis'] = {
    'brain_mr_to_ct': {
      'brain.a': record['synthesis']['brain_mr_to_ct']['brain.a']
    }
  }
  path.write_text(json.dumps(record))
  code, out, _ = holdout(tmp_path)
  assert code == 0
  assert cells(section(out, 'SSIM'), '`myops`', 'all (1)')[0] == (
    '50.0, one subject'
  )


def test_a_folder_without_results_is_refused(tmp_path):
  assert_refused(holdout(tmp_path), 'launch/holdout.sh writes them')
