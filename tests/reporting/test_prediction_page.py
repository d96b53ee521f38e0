"""The page of `predict --report`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference.predicting import Written
from synermedgen_jax.inference.prediction import Findings, Prediction
from synermedgen_jax.inference.prediction_inputs import Request, Requests
from synermedgen_jax.inference.reading import Reading
from synermedgen_jax.reporting import prediction_page
from synermedgen_jax.reporting.prediction_page import PredictionPage
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

MR = Modality.MR


def written(name, warnings=()):
  data = np.random.default_rng(0).uniform(0, 900, (8, 9, 5)).astype(np.float32)
  findings = Findings(
    {MR: Reading({MR: 16}, 16)}, Reading({MR: 9}, 16), warnings=warnings
  )
  request = Request(
    name,
    route_named('brain_mr_to_ct'),
    {MR: Path('mr.nii.gz')},
    Path(f'{name}_ct.nii.gz'),
  )
  volume = Volume(data, np.eye(4))
  prediction = Prediction(volume, Window(-1000.0, 1000.0), findings)
  return Written(request, {MR: volume}, prediction)


def test_every_source_is_in_the_viewer():
  data = np.random.default_rng(0).uniform(1, 900, (8, 9, 5)).astype(np.float32)
  volume = Volume(data, np.eye(4))
  route = route_named('brats_t1+t2_to_t1ce')
  sources = dict.fromkeys((Modality.T2, Modality.T1), volume)
  request = Request('a', route, {}, Path('a.nii.gz'))
  prediction = Prediction(volume, Window(0.0, 1000.0), Findings())
  case = prediction_page.shown_case(Written(request, sources, prediction), 'a')
  assert [(view.role, view.label) for view in case.views] == [
    *(('source', 'T2 (MRI)'), ('source', 'T1 (MRI)')),
    ('synthesis', 'T1CE (MRI)'),
  ]


def cases(page):
  """The records of the viewer's cases."""
  (text,) = re.findall(
    r'<script[^>]*data-part="cases"[^>]*>(.*?)</script>', page, re.DOTALL
  )
  return json.loads(text)


def test_every_prediction_is_in_the_viewer_and_has_its_checks(tmp_path):
  page = PredictionPage(tmp_path / 'index.html')
  page.add(written('anna', ('a doubt <b>',)))
  page.add(written('bert'))
  page.write(5)
  text = page.path.read_text()
  assert '3 further volumes of the input are not on this page' in text
  assert [case['title'] for case in cases(text)] == ['anna', 'bert']
  assert 'a doubt &lt;b&gt;' in text
  assert text.count('No warnings.') == 1
  assert 'The source is read as MRI in 16 of 16 slices' in text
  assert 'The synthesis is read as MRI in 9 of 16 slices' in text
  assert 'not for diagnosis' in text


def test_volumes_beyond_the_limit_are_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(prediction_page, '_BUDGET', 0)
  page = PredictionPage(tmp_path / 'index.html')
  page.add(written('anna'))
  page.add(written('bert'))
  page.write(2)
  text = page.path.read_text()
  assert 'further volumes' not in text
  assert '2 of 2 volumes are not in the viewer' in text
  assert 'data-part="cases"' not in text
  assert text.count('is read as MRI in 16 of 16 slices') == 2


def test_without_a_prediction_there_is_no_page(tmp_path):
  page = PredictionPage(tmp_path / 'index.html')
  page.write(1)
  assert not page.path.exists()


@pytest.mark.parametrize(
  ('single', 'name'), [(True, 'anna_ct.html'), (False, 'index.html')]
)
def test_the_page_lies_beside_the_outputs(single, name):
  requests = Requests([written('anna').request], single=single)
  assert requests.page == Path(name)
