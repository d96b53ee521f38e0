"""Results as pages show them."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image
from serving_fakes import (
  CT,
  MR,
  ROUTES,
  SHAPE,
  SPACING,
  WINDOWS,
  FakeModel,
  FakePredictor,
  ball,
  write_pair,
)

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.inference.asking import Answers
from synermedgen_jax.inference.predicting import Written
from synermedgen_jax.inference.prediction import Findings
from synermedgen_jax.inference.prediction_inputs import Request
from synermedgen_jax.inference.reading import Reading
from synermedgen_jax.reporting import prediction_page
from synermedgen_jax.serving import display
from synermedgen_jax.slices.alignment import Offset
from synermedgen_jax.slices.volumes import Volume, VolumeError, read_volume
from synermedgen_jax.slices.windows import Window

ROUTE = ROUTES[0]


@pytest.fixture
def written(tmp_path):
  source = write_pair(tmp_path) / 'mr.nii.gz'
  sources = {MR: read_volume(source)}
  prediction = FakePredictor().predict(
    sources, ROUTE, names={MR: source}, progress=lambda count: None
  )
  request = Request('mr', ROUTE, {MR: source}, tmp_path / 'ct.nii.gz')
  return Written(request, sources, prediction)


def test_a_case_shows_source_and_synthesis_in_the_body(written):
  case = prediction_page.shown_case(written, 'mr.nii.gz')
  assert [view.role for view in case.views] == ['source', 'synthesis']
  assert [view.label for view in case.views] == ['MRI', 'CT']
  assert case.views[1].span == (-1000, 1000)
  synthesis = written.prediction.volume.data
  # A byte is 2000 HU / 255.
  shown = case.views[1].volume.transpose(2, 1, 0) * (2000 / 255) - 1000
  assert np.abs(shown - synthesis).max() <= 0.5 * 2000 / 255 + 1e-3
  body = case.mask.transpose(2, 1, 0)
  assert body[ball() < 0.6].all()
  assert not body[ball() > 1].any()


def test_a_true_volume_gives_the_mean_difference_in_the_body(written):
  case = prediction_page.shown_case(written, 'mr.nii.gz')
  synthesis = written.prediction.volume
  body = case.mask.transpose(2, 1, 0)
  # 30 HU off in the body, and far off elsewhere, which does not count.
  truth = Volume(
    np.where(body, synthesis.data - 30, 900).astype(np.float32), SPACING
  )
  case, lines = display.compared(case, synthesis, truth, CT, WINDOWS[CT])
  assert [view.role for view in case.views] == ['source', 'synthesis', 'truth']
  assert lines == [
    'Mean absolute difference 30 HU: mean of |synthesis − truth| '
    'over the voxels of the body in the source, both within -1000 to 1000 HU.'
  ]
  # Another true volume replaces the first.
  case, _ = display.compared(case, synthesis, synthesis, CT, WINDOWS[CT])
  assert [view.role for view in case.views] == ['source', 'synthesis', 'truth']
  np.testing.assert_array_equal(case.views[1].volume, case.views[2].volume)


@pytest.mark.parametrize(
  ('modality', 'window'),
  [
    (CT, Window(-1000, 1000)),
    (CT, Window(-1000, 2000)),
    (CT, Window(-160, 240)),
    (Modality.PET, Window(0, 25)),
  ],
)
def test_a_true_volume_equal_to_the_synthesis_differs_by_nothing(
  written, modality, window
):
  case = prediction_page.shown_case(written, 'mr.nii.gz')
  values = np.linspace(
    window.low, window.high, np.prod(SHAPE), dtype=np.float32
  )
  truth = Volume(values.reshape(SHAPE), SPACING)
  case, lines = display.compared(case, truth, truth, modality, window)
  (error,) = re.findall(r'difference (\S+) ', lines[0])
  assert float(error) == pytest.approx(0, abs=1e-3)
  np.testing.assert_array_equal(
    case.views[-1].volume, prediction_page.scaled_bytes(truth, window)
  )


def test_a_true_mr_of_another_scale_is_compared_from_black_to_white(written):
  case = prediction_page.shown_case(written, 'mr.nii.gz')
  half = np.indices(SHAPE)[0] < SHAPE[0] // 2
  truth = Volume(np.where(half, 0, 400).astype(np.float32), SPACING)
  synthesis = Volume(truth.data * 2.5, SPACING)
  _, lines = display.compared(case, synthesis, truth, MR, Window(0, 1000))
  assert lines[0].startswith('Mean absolute difference 0 a.u.')
  assert lines[0].endswith('0 to 1000 a.u., each volume in its own window.')


def test_a_true_volume_on_another_grid_is_resampled(written):
  case = prediction_page.shown_case(written, 'mr.nii.gz')
  synthesis = written.prediction.volume
  finer = SPACING @ np.diag([0.5, 0.5, 1, 1])
  truth = Volume(np.full((48, 40, SHAPE[2]), 100, np.float32), finer)
  truth.data[0] = 0
  case, lines = display.compared(case, synthesis, truth, CT, WINDOWS[CT])
  assert lines[0] == (
    'The true volume is resampled onto the grid of the source.'
  )
  middle = case.views[2].volume[4, 10, 12]
  assert middle == round(1100 / 2000 * 255)


def test_a_true_volume_elsewhere_is_refused(written):
  case = prediction_page.shown_case(written, 'mr.nii.gz')
  far = SPACING.copy()
  far[:3, 3] = 1000
  truth = Volume(written.prediction.volume.data, far)
  with pytest.raises(VolumeError, match='does not overlap'):
    display.compared(case, written.prediction.volume, truth, CT, WINDOWS[CT])


def test_findings_as_lines():
  findings = Findings(
    {MR: Reading({MR: 15, CT: 1}, 16)},
    Reading({CT: 16}, 16),
    {'cts': Answers([], [], right=10, asked=16, chance=0.25)},
    Offset((8.0, 0.0, 0.0), gain=1.0),
    ('a doubt',),
  )
  said = prediction_page.described(findings)
  assert said['warnings'] == ['a doubt']
  assert said['lines'] == [
    'The source is read as MRI in 15, CT in 1 of 16 slices; it was stated as '
    'MRI.',
    'The synthesis is read as CT in 16 of 16 slices.',
    'Shift of the synthesis from the source, estimated by mutual information: '
    '8 mm right.',
  ]
  (row,) = said['answers']
  assert row['task'].startswith('CTS: ')
  assert (row['right'], row['accuracy'], row['chance']) == (
    '10 of 16',
    '0.62',
    '0.25',
  )
  near = dataclasses.replace(findings, offset=Offset((1.0, 0, 0), gain=0.0))
  assert prediction_page.described(near)['lines'][-1] == (
    'No shift between source and synthesis is significant.'
  )


def test_a_question_marks_the_right_answer_and_the_given_one(tmp_path):
  folder = write_pair(tmp_path)
  volumes = {
    MR: read_volume(folder / 'mr.nii.gz'),
    CT: read_volume(folder / 'ct.nii.gz'),
  }
  asked = FakeModel().ask(volumes, ROUTE)
  question = display.shown_question(asked)
  panels = question['panels']
  titles = [panel['title'] for panel in panels]
  assert titles == ['source: MRI', 'A', 'B', 'C', 'D']
  example, given = asked.answers['cts'].examples[1], asked.answers['cts'].given
  (right,) = (p for p in panels if p['right'])
  (chosen,) = (p for p in panels if p['given'])
  assert (right['title'], chosen['title']) == (example.answer, given[1])
  assert question['words'] == f'The model answers {given[1]}, which is wrong.'
  content = base64.b64decode(right['picture'].partition('base64,')[2])
  pixels = np.asarray(Image.open(io.BytesIO(content)))
  scale = 192 // SHAPE[0]
  truth = (asked.slices[CT][4] + 1) * 127.5  # the second question is about 4
  np.testing.assert_allclose(pixels[::scale, ::scale], truth, atol=0.51)
