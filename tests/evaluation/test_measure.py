"""Questions of `measure`: which are asked, and what a picture of one says."""

import types

import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation import measure
from synermedgen_jax.evaluation.measure import MeasureSettings, _ask, _picture
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  label,
  text,
  vit_image,
)
from synermedgen_jax.tasks.prompts import SHORT

REFS = [SliceRef('case0', Modality.CT, index) for index in range(2)]
FIRST, SECOND = map(vit_image, REFS)


@pytest.mark.parametrize(
  ('spans', 'question', 'labels'),
  [
    (
      (FIRST, label('left'), SECOND, label('right'), text('Which?')),
      'Which?',
      ['left', 'right'],
    ),
    (
      (FIRST, text('A'), text('turned'), label('I'), SECOND),
      'A\nturned I',
      ['', ''],
    ),
    ((text('A'), FIRST, text('B'), SECOND), 'A\nB', ['', '']),
    (
      (label('A'), FIRST, label('one'), label('two'), SECOND),
      'A two',
      ['one', ''],
    ),
  ],
)
def test_labels_are_those_of_the_task(spans, question, labels):
  picture, images = _picture(Example('own', spans))
  assert picture == {'question': question, 'letters': labels}
  assert images == REFS


class RightAnswers:
  """In the place of a model: the right answers."""

  def __init__(self, *model, batch_size):
    pass

  def capacity_for(self, examples):
    pass

  def answer(self, examples, *, capacity, progress):
    return [example.answer for example in examples]


@pytest.mark.parametrize('share', [None, 0.0, 0.2])
def test_descriptions_are_asked_of_runs_that_were_trained_on_them(
  store_path, monkeypatch, share
):
  monkeypatch.setattr(measure, 'Answerer', RightAnswers)
  tasks = {} if share is None else {'description': share}
  trained = types.SimpleNamespace(
    **dict.fromkeys(('model', 'params', 'tokenizer', 'geometry')),
    prompts=SHORT,
    config={'neighbours': 3, 'tasks': tasks},
  )
  store = SliceStore.open(str(store_path))
  answered = _ask(
    trained, store, store.split('train'), MeasureSettings(questions=2)
  )
  scores = answered.scores['understanding']
  asked = ['cts', 'mi', 'tia', *(['description'] if share else [])]
  assert list(scores) == list(answered.by_subject) == asked
  if share:
    # Modality, region, plane and level of two slices.
    assert scores['description']['count'] == 8
    assert set(scores['description']['facts']) == {
      *('modality', 'region', 'plane', 'level')
    }
