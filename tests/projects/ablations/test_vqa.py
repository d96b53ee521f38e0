"""Ordinary questions about hand-made findings."""

import collections

import numpy as np
import pytest

from projects.ablations import vqa
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.phantoms.truth import ORGANS, Finding
from synermedgen_jax.tasks.example import SliceRef

LESION = np.zeros((16, 16), np.float32)
LESION[4:10, 3:9] = 1
SHOWN = np.where(LESION > 0, 0.5, -0.5).astype(np.float32)


def finding(**values):
  plain = {
    'lesion': LESION,
    'lesion_mm2': 700.0,
    'lesions': 1,
    'right': 1.0,
    'offset': 30.0,
    'organs': dict.fromkeys(ORGANS, 0.0),
  }
  return Finding(**plain | values)


def asked(finding, image=SHOWN):
  return dict(vqa.ask(finding, image))


def test_a_lesion_has_a_side_and_a_size():
  assert asked(finding()) == {
    'lesion': 'yes',
    'side': 'right',
    'size': 'medium',
  }
  left = asked(finding(right=0.0, offset=-30.0))
  assert left['side'] == 'left'


@pytest.mark.parametrize(
  'values', [{'right': 0.7}, {'right': 1.0, 'offset': 5.0}]
)
def test_near_the_midline_no_side_is_asked(values):
  assert 'side' not in asked(finding(**values))


def test_several_lesions_have_no_question_about_size():
  assert 'size' not in asked(finding(lesions=2))


def test_without_a_lesion_the_answer_is_no():
  none = finding(
    lesion=0 * LESION, lesion_mm2=0.0, lesions=0, right=0.5, offset=0.0
  )
  assert asked(none) == {'lesion': 'no'}


def test_a_trace_of_a_lesion_is_not_asked_about():
  assert asked(finding(lesion_mm2=40.0)) == {}


def test_a_lesion_that_the_modality_does_not_show_is_not_asked_about():
  assert asked(finding(), np.zeros((16, 16), np.float32)) == {}


@pytest.mark.parametrize(
  ('diameter', 'size'),
  [(20, 'small'), (26, ''), (33, 'medium'), (40, ''), (50, 'large')],
)
def test_size_is_that_of_the_circle(diameter, size):
  assert vqa.size_of(np.pi * diameter**2 / 4) == size


@pytest.mark.parametrize(
  ('areas', 'organ'),
  [
    ({'liver': 9000.0, 'lung': 3000.0}, 'liver'),
    ({'liver': 9000.0, 'lung': 8000.0}, ''),
    ({'kidney': 300.0}, ''),
  ],
)
def test_the_largest_organ_has_to_be_plain(areas, organ):
  organs = dict.fromkeys(ORGANS, 0.0) | areas
  assert vqa.largest(finding(organs=organs)) == organ


def test_a_question_is_a_picture_words_and_an_answer():
  ref = SliceRef('brats.brats_000', Modality.T2, 4)
  example = vqa.build(ref, 'side', 'left')
  assert [span.kind for span in example.spans] == ['vit_image', 'text', 'text']
  assert example.spans[0].image == ref
  assert example.spans[1].text == vqa.QUESTIONS['side']
  assert [span.has_loss for span in example.spans] == [False, False, True]
  assert example.task == 'vlm'
  assert example.answer == 'left'


def test_two_answers_are_drawn_equally_often():
  ref = SliceRef('a', Modality.CT, 0)
  asked = [(ref, 'lesion', 'no')] * 9 + [(ref, 'lesion', 'yes')] * 2
  asked += [(ref, 'organ', o) for o in ('brain', 'brain', 'liver', 'lung')]
  drawn = vqa.balanced(asked, 99, np.random.default_rng(0))
  counts = collections.Counter((kind, answer) for _, kind, answer in drawn)
  assert counts['lesion', 'yes'] == counts['lesion', 'no'] == 2
  assert counts['organ', 'brain'] == counts['organ', 'lung'] == 1
