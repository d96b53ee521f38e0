import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation import understanding
from synermedgen_jax.tasks import prompts

CT, PET, T1, MR = Modality.CT, Modality.PET, Modality.T1, Modality.MR


def record(task, answer, prediction):
  return {'task': task, 'answer': answer, 'prediction': prediction}


def mi(truth, given):
  """A question of MI; `given` is modalities, or the words of an answer."""
  words = given if isinstance(given, str) else prompts.mi_answer(given)
  return record('mi', prompts.mi_answer(truth), words)


@pytest.mark.parametrize('task', ['cts', 'tia'])
@pytest.mark.parametrize(
  ('prediction', 'right'),
  [
    ('B', True),
    (' B', True),
    ('B from brain CT to MRI', True),
    ('B.', True),
    ('A', False),
    ('BA', False),
    ('b', False),
    ('the answer is B', False),
    ('', False),
  ],
)
def test_an_answer_is_right_if_it_begins_with_the_letter(
  task, prediction, right
):
  assert understanding.is_correct(record(task, 'B', prediction)) == right


def test_an_answer_without_a_letter_is_refused_and_not_matched_by_nothing():
  with pytest.raises(ValueError, match="CTS: The right answer 'none' cannot"):
    understanding.is_correct(record('cts', 'none', ''))


def test_letters_are_scored_against_one_in_four():
  records = [record('tia', 'A', given) for given in ('A', 'A', 'B', '')]
  assert understanding.score(records) == {
    'understanding': {'tia': {'accuracy': 0.5, 'chance': 0.25, 'count': 4}}
  }


def test_mi_counts_panels_and_its_chance_is_the_most_frequent_modality():
  records = [
    mi([CT, CT, CT, PET], [CT, CT, PET, PET]),
    mi([CT, T1, MR, CT], [CT, T1, MR, CT]),
  ]
  result = understanding.score(records)['understanding']['mi']
  assert result['accuracy'] == 7 / 8
  assert result['chance'] == 5 / 8
  assert result['count'] == 8
  assert result['exact'] == 0.5
  assert result['questions'] == 2


def test_a_panel_that_was_not_named_is_wrong():
  result = understanding.score([mi([CT, PET, T1, MR], 'A CT C T1 (MRI)')])
  assert result['understanding']['mi']['accuracy'] == 0.5


def test_panels_say_what_each_was_taken_for():
  assert understanding.parts_of(mi([CT, PET, T1], 'A CT B MRI junk')) == [
    ('CT', 'CT'),
    ('PET', 'MRI'),
    ('T1 (MRI)', ''),
  ]


def test_the_confusion_has_a_row_per_truth_and_unread_last():
  records = [
    mi([CT, CT, PET, T1], [CT, MR, PET, MR]),
    mi([CT, PET, PET, T1], 'A CT B PET'),
    record('cts', 'A', 'A'),
  ]
  result = understanding.score(records)['understanding']['mi']
  assert result['confusion'] == {
    'truth': ['CT', 'PET', 'T1 (MRI)'],
    'given': ['CT', 'PET', 'T1 (MRI)', 'MRI', 'unread'],
    'counts': [[2, 0, 0, 1, 0], [0, 2, 0, 0, 1], [0, 0, 0, 1, 1]],
  }


def test_every_panel_is_counted_once_in_the_confusion():
  records = [mi([CT, PET, T1, MR], [MR, PET, CT, MR])] * 3
  result = understanding.score(records)['understanding']['mi']
  assert sum(map(sum, result['confusion']['counts'])) == result['count'] == 12


def test_tasks_come_in_order_and_those_not_asked_are_left_out():
  records = [record('tia', 'A', 'A'), record('cts', 'A', 'A')]
  assert list(understanding.score(records)['understanding']) == ['cts', 'tia']


def test_an_unknown_task_is_refused():
  with pytest.raises(ValueError, match="Unknown task 'vqa'"):
    understanding.score([record('vqa', 'A', 'A')])


def test_an_mi_answer_without_panels_is_refused():
  with pytest.raises(ValueError, match='MI: The right answer'):
    understanding.score([record('mi', 'CT', 'A CT')])


def test_the_table_as_text():
  records = [
    record('cts', 'A', 'B'),
    mi([CT, CT, PET, T1], [CT, CT, PET, MR]),
  ]
  table = understanding.understanding_table(understanding.score(records))
  assert table == '\n'.join(
    [
      'task  accuracy  chance  count',
      'CTS      0.000   0.250      1',
      'MI       0.750   0.500      4  all panels 0.000',
    ]
  )


DESCRIPTIONS = (
  ('axial CT of the brain; lesion on the left', 'axial CT of the brain'),
  ('axial PET of the brain; no lesion', 'axial CT of the brain; no lesion'),
)


def test_a_description_is_scored_by_fact_too():
  records = [record('description', *words) for words in DESCRIPTIONS]
  result = understanding.score(records)['understanding']['description']
  assert (result['accuracy'], result['count']) == (6 / 9, 9)
  # One of two modalities, both regions and planes, one lesion, the side.
  assert result['chance'] == 7 / 9
  assert (result['exact'], result['questions']) == (0, 2)
  assert result['facts'] == {
    'modality': {'accuracy': 0.5, 'chance': 0.5, 'count': 2},
    'region': {'accuracy': 1, 'chance': 1, 'count': 2},
    'plane': {'accuracy': 1, 'chance': 1, 'count': 2},
    'lesion': {'accuracy': 0.5, 'chance': 0.5, 'count': 2},
    'side': {'accuracy': 0, 'chance': 1, 'count': 1},
  }


def test_the_table_has_a_line_per_fact():
  records = [record('description', *words) for words in DESCRIPTIONS]
  table = understanding.understanding_table(understanding.score(records))
  assert table.splitlines()[1:3] == [
    'DESCRIPTION     0.667   0.778      9  all facts 0.000',
    '  modality      0.500   0.500      2',
  ]


def test_every_score_has_a_definition():
  records = [mi([CT, PET], [CT, PET]), record('cts', 'A', 'A')]
  scores = understanding.score(records)['understanding']
  definitions = understanding.definitions(scores)
  assert definitions.keys() == scores.keys() == {'cts', 'mi'}
  for task, result in scores.items():
    assert {'task', 'accuracy', 'chance'} <= definitions[task].keys()
    assert definitions[task].keys() <= result.keys() | {'task'}
