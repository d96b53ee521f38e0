"""Answers and scores by subject, and subjects.json."""

import math

import pytest
import subject_files

from synermedgen_jax.evaluation.routes import RouteScore
from synermedgen_jax.evaluation.subjects import (
  ResultError,
  answers_of,
  read_subjects,
  synthesis_by_subject,
)


def answers(task, answer, prediction, subjects):
  record = {'task': task, 'answer': answer, 'prediction': prediction}
  result = answers_of(record | {'route': 'r'}, subjects, 7)
  assert {(a['question'], a['route']) for a in result} == {(7, 'r')}
  return {a['subject']: (a['right'], a['asked']) for a in result}


@pytest.mark.parametrize(('given', 'right'), [('B', 1), ('A', 0), ('', 0)])
def test_a_letter_is_right_or_not(given, right):
  assert answers('cts', 'B', given, ['x'] * 5) == {'x': (right, 1)}


def test_panels_count_for_whom_they_show():
  result = answers(
    'mi',
    'A CT B PET C T1CE (MRI) D MRI',
    'A CT B CT C T1CE (MRI) D PET',
    ['x', 'y', 'x', 'z'],
  )
  assert result == {'x': (2, 2), 'y': (0, 1), 'z': (0, 1)}


def test_cases_of_a_subject_are_averaged_and_the_full_frame_is_left_out():
  def row(case, method, ssim, full_frame=False):
    values = {'ssim': ssim, 'psnr': 20.0, 'mae': 1.0}
    return RouteScore(
      'brain_mr_to_ct', case, 'brain.a', method, full_frame, values
    )

  result = synthesis_by_subject(
    [
      row('a1', 'model', 0.4),
      row('a2', 'model', 0.8),
      row('a1', 'model', 0.0, full_frame=True),
      row('a1', 'copy_source', 0.2),
      row('a2', 'copy_source', 0.3),
    ]
  )
  entry = result['brain_mr_to_ct']['brain.a']
  assert entry['ssim'] == pytest.approx(0.6)
  assert entry['baselines']['copy_source']['ssim'] == pytest.approx(0.25)


def without(setting):
  def change(record):
    del record['settings'][setting]

  return change


def with_score(value, method='', metric='ssim'):
  def change(record):
    entry = record['synthesis']['brain_mr_to_ct']['brain.b']
    (entry['baselines'][method] if method else entry)[metric] = value

  return change


def with_chance(value):
  def change(record):
    record['understanding']['cts']['chance'] = value

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (without('store'), 'settings without store'),
    (without('split'), 'settings without split'),
    (without('slices'), 'settings without slices'),
    (with_score(math.nan), 'brain_mr_to_ct, brain.b: ssim is nan'),
    (with_score(math.inf, metric='psnr'), 'brain.b: psnr is inf'),
    (with_score(math.nan, 'ceiling'), 'brain.b, ceiling: ssim is nan'),
    (with_score(math.nan, metric='added'), 'brain.b: added is nan'),
    (with_score('0.5'), 'brain.b: ssim is 0.5'),
    (with_score(None), 'brain.b: ssim is None'),
    (with_chance(math.nan), 'cts: chance is nan'),
  ],
)
def test_a_file_without_a_setting_or_with_a_number_that_is_none_is_refused(
  tmp_path, change, message
):
  record = subject_files.record()
  change(record)
  path = subject_files.write_record(tmp_path, 'arm', record)
  with pytest.raises(ResultError) as caught:
    read_subjects(path)
  assert str(caught.value).startswith(f'{path}: missing or invalid: ')
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)


def test_a_whole_file_is_read(tmp_path):
  path = subject_files.write(tmp_path, 'arm')
  result = read_subjects(path)
  assert result.settings['store'] == 'abcdef012345'
  assert result.synthesis['brain_mr_to_ct']['brain.b']['ssim'] == 0.7
