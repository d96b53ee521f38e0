"""Questions about a pair of volumes, with scripted answers of the model."""

import types

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference import asking
from synermedgen_jax.tasks.prompts import SHORT

ROUTE = route_named('brain_mr_to_ct')
MR, CT = Modality.MR, Modality.CT


def volume(count, body, value):
  """Slices that hold their index; black where there is no body."""
  slices = np.full((count, 4, 4), -1.0, np.float32)
  for i in body:
    slices[i] = value + i / 1000
  return slices


@pytest.fixture
def model(monkeypatch):
  """Answers a share of the questions right; keeps the slices it was shown."""
  state = types.SimpleNamespace(right=lambda place: True, shown=[])

  class Answerer:
    def __init__(self, *model, batch_size):
      *_, self.read = model

    def answer(self, examples):
      given = []
      for place, example in enumerate(examples):
        for span in example.prompt.spans:
          if span.image is not None:
            pixels = self.read(span.image)
            state.shown.append((example.task, span.image, pixels[0, 0]))
        given.append(example.answer if state.right(place) else '')
      return given

  monkeypatch.setattr(asking, 'Answerer', Answerer)
  return state


def trained(**tasks):
  slices = types.SimpleNamespace(plane='axial')
  return types.SimpleNamespace(
    **dict.fromkeys(('model', 'params', 'tokenizer', 'geometry')),
    prompts=SHORT,
    config={'neighbours': 3, 'tasks': tasks},
    slices=slices,
  )


def ask(source, target, **options):
  return asking.ask_about_pair(trained(), ROUTE, source, target, **options)


def test_every_task_is_asked_about_slices_that_show_the_body(model):
  body = range(5, 25)
  answers = ask(volume(30, body, 0.2), volume(30, body, 0.6))
  assert set(answers) == {'cts', 'mi', 'tia'}
  assert answers['cts'].asked == answers['tia'].asked == 16
  assert answers['mi'].asked == 16 * 4
  assert answers['cts'].chance == answers['tia'].chance == 0.25
  assert [a.accuracy for a in answers.values()] == [1, 1, 1]
  for _, image, pixel in model.shown:
    assert image.index in body
    # Each panel shows the volume of its own modality.
    value = {MR: 0.2, CT: 0.6}[image.modality] + image.index / 1000
    assert pixel == pytest.approx(value, abs=1e-6)


def test_a_description_is_asked_of_a_run_that_was_trained_on_it(model):
  volumes = volume(30, range(30), 0.2), volume(30, range(30), 0.6)
  answers = asking.ask_about_pair(
    trained(description=0.2), ROUTE, *volumes, questions=3
  )
  asked = answers['description']
  assert [example.answer for example in asked.examples] == [
    'axial MRI of the brain, lower third',
    'axial MRI of the brain, middle third',
    'axial MRI of the brain, upper third',
  ]
  # Modality, region, plane and level: a user's pair has no lesion mask.
  assert (asked.right, asked.asked) == (12, 12)


def test_wrong_answers_are_counted(model):
  model.right = lambda place: place % 4 == 0
  answers = ask(volume(30, range(30), 0.2), volume(30, range(30), 0.6))
  assert (answers['cts'].right, answers['cts'].accuracy) == (4, 0.25)
  assert answers['mi'].right == 16  # all four panels of every fourth question


def test_the_slices_of_a_question_are_spread_over_the_body(model):
  ask(
    volume(40, range(40), 0.2),
    volume(40, range(40), 0.6),
    tasks=('tia',),
    questions=3,
  )
  sources = [i.index for _, i, _ in model.shown if i.modality is MR]
  # Quarters of 0 to 39: 9.75, 19.5 and 29.25.
  assert sources == [10, 20, 29]


def test_a_task_without_enough_slices_is_left_out(model):
  """CTS shows four slices of the target."""
  few = volume(9, range(3), 0.2), volume(9, range(3), 0.6)
  assert set(ask(*few)) == {'mi', 'tia'}
  assert ask(volume(9, (), 0.2), volume(9, (), 0.6)) == {}
