"""Answers and scores by subject."""

import pytest

from synermedgen_jax.evaluation.routes import RouteScore
from synermedgen_jax.evaluation.subjects import (
  answers_of,
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
