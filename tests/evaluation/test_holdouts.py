"""Changes from one holdout to another, on hand-made evaluations."""

import json

import pytest
import subject_files

from synermedgen_jax.core.modalities import ROUTES, route_named
from synermedgen_jax.evaluation import holdouts
from synermedgen_jax.evaluation.comparison import ComparisonError
from synermedgen_jax.evaluation.subjects import FILE

TO_CT = ('brain_cbct_to_ct', 'pelvis_cbct_to_ct')
TO_CBCT = ('brain_ct_to_cbct', 'pelvis_ct_to_cbct')


def write(root, holdout, system='ours', settings=None, **values):
  """A file of five subjects, two of a brain route and three of a BraTS one."""
  content = subject_files.record(**values)
  content['settings'] |= {'store': holdout} | (settings or {})
  path = root / holdout / system / FILE
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(content))


def rows(root, systems=()):
  results = holdouts.read_results(root, systems)
  return holdouts.synthesis_rows(results, resamples=50)


def groups(holdout, routes=ROUTES):
  return {
    group.title: group.routes for group in holdouts.groups_of(holdout, routes)
  }


def test_a_shift_is_measured_on_the_routes_that_it_touches():
  assert groups('cbct_scatter') == {
    'all': (TO_CT[0], TO_CBCT[0], TO_CT[1], TO_CBCT[1]),
    'the truth stays': TO_CT,
    'the truth changes': TO_CBCT,
  }
  mr = groups('mr_3t')
  assert len(mr['all']) == 16
  assert mr['the truth stays'] == ('brain_mr_to_ct', 'pelvis_mr_to_ct')
  assert groups('pet_low_counts')['the truth stays'] == (
    'whole_body_pet_to_ct',
  )


def test_of_misregistered_volumes_neither_is_the_wrong_one():
  assert groups('shift_1mm') == {'all': tuple(r.name for r in ROUTES)}


def test_other_data_have_all_their_routes_and_cohorts():
  routes = list(map(route_named, ('thorax_mr_to_ct', 'abdomen_mr_to_ct')))
  assert groups('synthrad2025', routes) == {
    'all': ('thorax_mr_to_ct', 'abdomen_mr_to_ct'),
    'thorax': ('thorax_mr_to_ct',),
    'abdomen': ('abdomen_mr_to_ct',),
  }
  assert list(groups('synthrad2025', routes[:1])) == ['all']


def test_differences_are_paired_by_subject(tmp_path):
  # Brain subjects fall by 0.1 each, BraTS subjects by 0.2, 0.1 and 0.
  write(tmp_path, 'none', brain=(0.5, 0.7), brats=(0.4, 0.5, 0.6))
  write(tmp_path, 'shift_1mm', brain=(0.4, 0.6), brats=(0.2, 0.4, 0.6))
  none, shifted = rows(tmp_path)
  assert none.cells['ours'].difference is None
  # The mean of the two routes: (0.6 + 0.5) / 2 and (0.5 + 0.4) / 2.
  assert none.cells['ours'].value.value == pytest.approx(55)
  cell = shifted.cells['ours']
  assert cell.value.value == pytest.approx(45)
  assert cell.difference.value == pytest.approx(-10)
  assert cell.subjects == 5
  # With the brain's -10 alone on one route, BraTS alone varies: -20 to 0.
  assert (
    -15 - 1e-9 <= cell.difference.low < -10 < cell.difference.high <= -5 + 1e-9
  )


def test_a_difference_is_over_the_touched_routes_alone(tmp_path):
  write(tmp_path, 'none', brain=(0.5, 0.7), brats=(0.4, 0.5, 0.6))
  # T1 to T2 is of MR volumes alone, MR to CT keeps its truth.
  write(tmp_path, 'mr_3t', brain=(0.4, 0.6), brats=(0.4, 0.5, 0.6))
  by_group = {row.group.title: row.cells['ours'] for row in rows(tmp_path)[1:]}
  assert by_group['the truth stays'].difference.value == pytest.approx(-10)
  assert by_group['the truth changes'].difference.value == pytest.approx(0)
  assert by_group['all'].difference.value == pytest.approx(-5)


def test_the_copy_of_the_source_is_measured_too(tmp_path):
  write(tmp_path, 'none')
  (row,) = rows(tmp_path)
  assert row.cells[holdouts.COPY].value.value == pytest.approx(25)


def test_subjects_of_one_holdout_alone_do_not_count(tmp_path):
  write(tmp_path, 'none', brain=(0.5, 0.7))
  write(tmp_path, 'shift_1mm', brain=(0.4, 0.0))
  path = tmp_path / 'shift_1mm' / 'ours' / FILE
  record = json.loads(path.read_text())
  for part in (record['subjects'], record['synthesis']['brain_mr_to_ct']):
    del part['brain.b']
  record['understanding'] = {}
  path.write_text(json.dumps(record))
  cell = rows(tmp_path)[1].cells['ours']
  assert cell.subjects == 4
  # Brain 0.5 to 0.4 for the one subject, and BraTS the same.
  assert cell.difference.value == pytest.approx(-5)


def test_a_route_that_a_subject_lacks_under_a_shift_is_left_out_of_both(
  tmp_path,
):
  write(tmp_path, 'none', brain=(0.5, 0.7))
  write(tmp_path, 'shift_1mm', brain=(0.4, 0.0))
  path = tmp_path / 'shift_1mm' / 'ours' / FILE
  record = json.loads(path.read_text())
  del record['synthesis']['brain_mr_to_ct']['brain.b']
  path.write_text(json.dumps(record))
  cell = rows(tmp_path)[1].cells['ours']
  # Brain falls from 0.5 to 0.4, and BraTS is the same: not from 0.6.
  assert cell.difference.value == pytest.approx(-5)


def test_a_system_that_was_not_measured_has_no_cell(tmp_path):
  write(tmp_path, 'none')
  write(tmp_path, 'none', 'unet')
  write(tmp_path, 'shift_1mm')
  none, shifted = rows(tmp_path, ['unet', 'ours'])
  assert list(none.cells) == ['unet', 'ours', 'copy_source']
  assert list(shifted.cells) == ['ours', 'copy_source']


def test_tasks_count_questions_about_the_touched_routes(tmp_path):
  # The five questions of CTS are about brain MR to CT.
  write(tmp_path, 'none', right=(1, 1, 1, 1, 1))
  write(tmp_path, 'mr_3t', right=(1, 0, 1, 0, 0))
  write(tmp_path, 'cbct_scatter', right=(0, 0, 0, 0, 0))
  results = holdouts.read_results(tmp_path)
  assert holdouts.asked(results) == ['cts']
  none, shifted = holdouts.task_rows(results, 'cts', resamples=50)
  assert (none.holdout, shifted.holdout) == ('none', 'mr_3t')
  assert shifted.cells['ours'].value.value == pytest.approx(40)
  assert shifted.cells['ours'].difference.value == pytest.approx(-60)


def test_questions_without_a_route_count_for_subjects_of_the_routes(tmp_path):
  write(tmp_path, 'mr_3t')
  path = tmp_path / 'mr_3t' / 'ours' / FILE
  record = json.loads(path.read_text())
  answers = [
    {'question': 0, 'subject': s, 'route': '', 'right': r, 'asked': 2}
    for s, r in (('brain.a', 2), ('brain.b', 1), ('brats.c', 0))
  ]
  record['understanding']['mi'] = {'chance': 0.2, 'answers': answers}
  del record['synthesis']['brats_t1_to_t2']
  path.write_text(json.dumps(record))
  results = holdouts.read_results(tmp_path)
  (row,) = holdouts.task_rows(results, 'mi', resamples=50)
  # CTS asked about brain MR to CT; subject brats.c was asked about it too.
  assert row.cells['ours'].value.value == pytest.approx(50)


@pytest.mark.parametrize(
  ('settings', 'named'),
  [({'slices': 3}, 'slices'), ({'steps': [7]}, 'steps')],
)
def test_other_settings_than_those_of_none_are_refused(
  tmp_path, settings, named
):
  write(tmp_path, 'none')
  write(tmp_path, 'mr_3t', settings=settings)
  with pytest.raises(ComparisonError, match=f'mr_3t.*has other {named} than'):
    rows(tmp_path)


def test_systems_on_other_slices_of_a_holdout_are_refused(tmp_path):
  write(tmp_path, 'none')
  write(tmp_path, 'none', 'unet', settings={'store': 'other'})
  with pytest.raises(ComparisonError, match=r'unet.*has other store than'):
    rows(tmp_path)


def test_a_folder_without_results_is_named(tmp_path):
  with pytest.raises(ComparisonError, match=r'has no HOLDOUT/SYSTEM'):
    holdouts.read_results(tmp_path)
