"""The table of tasks: rows, names, order of ids."""

import dataclasses

import numpy as np
import pytest

from synermedgen_jax.tasks import registry
from synermedgen_jax.tasks.registry import (
  TASKS,
  Task,
  asked_tasks,
  register_task,
  task_named,
  task_names,
)
from synermedgen_jax.tasks.scoring import (
  FACTS,
  LETTER,
  PANELS,
  WORDS,
  Scoring,
)


@pytest.fixture
def table(monkeypatch):
  """A table of its own."""
  monkeypatch.setattr(registry, 'TASKS', dict(TASKS))


def row(name='probe', **fields):
  return Task(name, 'question', 'a probe', 'what a probe asks', **fields)


def names(tasks):
  return [task.name for task in tasks]


def test_evaluate_asks_the_three_tasks_of_the_paper():
  for shares in ({}, {'synthesis': 1.0}, {'cts': 1.0, 'description': 0.0}):
    assert names(asked_tasks(shares)) == ['cts', 'mi', 'tia']


def test_a_task_may_be_asked_where_it_was_trained_alone():
  every = ['cts', 'mi', 'tia', 'description']
  assert names(asked_tasks({'description': 0.1})) == every
  assert names(asked_tasks()) == every


def test_a_task_has_a_name_and_is_asked_if_it_can_be_scored(table):
  trained_only = register_task(row('drill', build=lambda *_: None))
  probe = register_task(row(build=lambda *_: None, scoring=WORDS))
  assert task_named('probe') is probe
  assert asked_tasks()[-1] is probe
  assert trained_only not in asked_tasks()


def test_a_name_is_taken_once(table):
  with pytest.raises(ValueError, match="Task 'cts' is registered already"):
    register_task(dataclasses.replace(TASKS['cts']))


def test_an_unknown_task_lists_the_known_ones_and_the_key_of_modules():
  with pytest.raises(
    ValueError, match=r"'vqa': expected one of cts, mi, .*config\.modules"
  ):
    task_named('vqa')


@pytest.mark.parametrize('name', ['Same', 'a/b', 'a b', '', '1st'])
def test_names_that_cannot_be_keys_are_refused(name):
  with pytest.raises(ValueError, match='lower-case'):
    row(name)


def test_examples_come_from_one_place():
  with pytest.raises(ValueError, match='both `build` and `source`'):
    row(build=lambda *_: None, source=lambda _: None)


def test_ids_are_places_among_the_sorted_names_that_have_a_share():
  shares = {'tia': 0.5, 'vlm': 0.0, 'cts': 0.2, 'mi': 0.3}
  assert task_names(shares) == ('cts', 'mi', 'tia')


def test_letters_are_read_at_the_beginning_alone():
  assert LETTER.parts('B', ' B, since') == [('B', 'B')]
  assert LETTER.parts('B', 'the answer is B') == [('B', '')]
  assert LETTER.chance(['A', 'B']) == 0.25


def test_panels_are_parts_and_chance_is_the_most_frequent_one():
  parts = PANELS.parts('A CT B PET C CT', 'A CT B CT')
  assert parts == [('CT', 'CT'), ('PET', 'CT'), ('CT', '')]
  assert PANELS.chance([right for right, _ in parts]) == 2 / 3


def test_the_chance_of_facts_is_the_most_frequent_value_of_each():
  # Of three regions, two are brain; of one side, one is left: 3 of 4.
  right = ['region brain', 'side left', 'region pelvis', 'region brain']
  assert FACTS.chance(right) == 3 / 4


def test_facts_that_the_right_description_leaves_out_do_not_count():
  parts = FACTS.parts(
    'axial CT of the brain, upper third', 'CT, lower third; lesion on the left'
  )
  assert parts == [
    ('modality CT', 'modality CT'),
    ('region brain', ''),
    ('plane axial', ''),
    ('level upper third', 'level lower third'),
  ]


def test_words_are_compared_without_the_spaces_around_them():
  assert WORDS.parts('yes', ' yes\n') == [('yes', 'yes')]
  assert WORDS.parts('yes', 'yes it is') == [('yes', 'yes it is')]


def test_a_right_answer_that_cannot_be_read_is_refused():
  with pytest.raises(ValueError, match="'none' cannot be read"):
    LETTER.parts('none', 'A')


def test_a_reader_returns_as_many_parts_for_every_answer():
  scoring = Scoring(str.split, np.mean, {})
  with pytest.raises(ValueError, match='zip'):
    scoring.parts('a b', 'a')
