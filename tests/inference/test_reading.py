"""Reading which modality a volume shows, with scripted answers of the model."""

import types

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.inference import reading
from synermedgen_jax.inference.reading import Doubt, Reading
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.tasks.prompts import SHORT

CT, CBCT, PET = Modality.CT, Modality.CBCT, Modality.PET
MR, T1, T2 = Modality.MR, Modality.T1, Modality.T2


@pytest.mark.parametrize(
  ('claimed', 'votes', 'doubt'),
  [
    (MR, {MR: 16}, Doubt.NONE),
    (MR, {CBCT: 14, CT: 2}, Doubt.OTHER_FAMILY),
    # Votes for one family count together: 9 of 16.
    (MR, {CT: 5, CBCT: 4, MR: 7}, Doubt.OTHER_FAMILY),
    (MR, {CT: 8, MR: 8}, Doubt.NONE),
    (PET, {T1: 6, T2: 5, PET: 5}, Doubt.OTHER_FAMILY),
    (CT, {PET: 9, CT: 7}, Doubt.OTHER_FAMILY),
    # CT and CBCT do not speak against each other.
    (CT, {CBCT: 16}, Doubt.NONE),
    (T1, {T2: 9, T1: 7}, Doubt.OTHER_MODALITY),
    (T1, {T2: 8, T1: 8}, Doubt.NONE),
    (T1, {T2: 4, PET: 4, T1: 7}, Doubt.OTHER_MODALITY),
    # Too few legible answers say nothing.
    (MR, {}, Doubt.NONE),
    (MR, {CT: 8}, Doubt.NONE),
    (T1, {T2: 8}, Doubt.NONE),
  ],
)
def test_a_claim_is_doubted_by_a_majority(claimed, votes, doubt):
  assert Reading(votes, 16).doubt(claimed) is doubt


def test_a_reading_as_text():
  votes = {CBCT: 14, CT: 2}
  assert str(Reading(votes, 16)) == 'CBCT in 14, CT in 2 of 16 slices'
  assert str(Reading({}, 16)) == 'nothing legible of 16 slices'


@pytest.fixture
def asked(monkeypatch):
  """A model that names the modality of each panel by its brightness."""
  questions = []

  class Answerer:
    def __init__(self, *model, batch_size):
      *_, self.read = model
      self.batch_size = batch_size

    def answer(self, examples):
      assert len(examples) == self.batch_size
      answers = []
      for example in examples:
        images = [s.image for s in example.spans if s.image]
        questions.append(images)
        names = ['CT' if self.read(i).max() > 0.5 else 'MRI' for i in images]
        panels = zip('ABCD', names, strict=True)
        answers.append(' '.join(f'{k} {name}' for k, name in panels))
      return answers

  monkeypatch.setattr(reading, 'Answerer', Answerer)
  return questions


def trained(**attributes):
  return types.SimpleNamespace(
    model=None,
    params=None,
    tokenizer=None,
    geometry=None,
    prompts=SHORT,
    **attributes,
  )


def slices(count, body, bright=()):
  """Slices of 8 x 8 pixels, dark but for a body that some of them show."""
  images = np.full((count, 8, 8), -1, np.float32)
  images[body, 2:6, 2:6] = 0.0
  images[list(bright), 2:6, 2:6] = 1.0
  return images


def test_the_slices_lie_evenly_where_the_body_is(asked):
  images = slices(60, slice(20, 54), bright=range(20, 31))
  result = reading.read_slices(trained(), images, MR, slices=16)
  assert [len(panels) for panels in asked] == [4] * 4
  shown = sorted(image.index for panels in asked for image in panels)
  # 33 steps over the body in 17 equal parts.
  assert shown == [20 + round(33 * k / 17) for k in range(1, 17)]
  assert {image.modality for panels in asked for image in panels} == {MR}
  dark = sum(index > 30 for index in shown)
  assert result == Reading({MR: dark, CT: 16 - dark}, 16)
  assert list(result.votes) == [MR, CT]  # the most frequent first


def test_a_short_volume_shows_slices_twice_and_a_dark_one_all(asked):
  for images in (slices(3, slice(0, 3)), slices(3, slice(0, 0))):
    assert reading.read_slices(trained(), images, MR).votes == {MR: 16}
    shown = {image.index for panels in asked[-4:] for image in panels}
    assert shown == {0, 1, 2}


@pytest.mark.parametrize(
  ('air', 'window'), [(-1000.0, CT), (-150.0, MR), (0.0, MR)]
)
def test_a_volume_with_air_has_the_window_of_ct(
  asked, monkeypatch, air, window
):
  windows = []

  def cut(run, volumes):
    del run
    windows.extend(volumes)
    return None, dict.fromkeys(volumes, slices(4, slice(0, 4)))

  monkeypatch.setattr(reading, 'cut', cut)
  data = np.full((10, 10, 10), 40.0)
  data[:2] = air
  reading.read_modality(trained(), Volume(data, np.eye(4)), MR)
  assert windows == [window]
  assert len(asked) == 4
