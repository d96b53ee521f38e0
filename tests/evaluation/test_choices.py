"""Accuracy on a file of questions, from records written by hand."""

import pytest

from synermedgen_jax.evaluation import choices
from synermedgen_jax.tasks.scoring import CHOICE

RECORDS = [
  {'pair': pair, 'answer': answer, 'given': given}
  for pair, answer, given in (
    ('t1->t2', 'A', 'A'),
    ('t1->t2', 'B', 'A'),
    ('ct->pet', 'A', ''),
    ('ct->pet', 'D', 'D'),
    ('ct->pet', 'D', 'D'),
    ('not stated', 'D', 'C'),
  )
]


@pytest.mark.parametrize(
  ('answer', 'letter'),
  [
    ('D', 'D'),
    (' d\n', 'D'),
    ('D.', 'D'),
    ('Option B', 'B'),
    ('The answer is (C).', 'C'),
    ('A is further away, so B', 'B'),
    ('a CT of the brain', ''),  # an article is no answer
    ('CT', ''),
    ('E', ''),
    ('', ''),
  ],
)
def test_the_letter_of_an_answer_is_the_last_that_stands_alone(answer, letter):
  assert CHOICE.read(answer) == (letter,)


def test_accuracy_is_counted_over_all_and_per_pair():
  scores = choices.score(RECORDS)
  assert scores['questions']['accuracy'] == 3 / 6
  assert scores['questions']['chance'] == 0.25
  assert scores['questions']['count'] == 6
  assert scores['pairs'] == {
    'ct->pet': {'accuracy': 2 / 3, 'chance': 0.25, 'count': 3},
    'not stated': {'accuracy': 0.0, 'chance': 0.25, 'count': 1},
    't1->t2': {'accuracy': 1 / 2, 'chance': 0.25, 'count': 2},
  }


def test_the_confusion_table_has_right_and_given_letters():
  assert choices.score(RECORDS)['questions']['confusion'] == {
    'truth': ['A', 'B', 'D'],
    'given': ['A', 'B', 'C', 'D', 'unread'],
    'counts': [[1, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 1, 2, 0]],
  }


def test_every_number_has_a_definition():
  scores = choices.score(RECORDS)
  assert scores['definition'].keys() >= {*scores['questions'], 'pairs'}


def test_the_tables_show_pairs_and_confusion():
  assert choices.table(choices.score(RECORDS)).splitlines() == [
    'pair        accuracy  chance  count',
    'ct->pet        0.667   0.250      3',
    'not stated     0.000   0.250      1',
    't1->t2         0.500   0.250      2',
    'all            0.500   0.250      6',
    '',
    'right  A  B  C  D  unread',
    'A      1  0  0  0       1',
    'B      1  0  0  0       0',
    'D      0  0  1  2       0',
  ]
