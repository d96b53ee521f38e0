"""Cases of SynthRAD's interface are synthesised on the grid of their source."""

import json

import numpy as np
import pytest

from synermedgen_jax.core.errors import VolumeError
from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference import challenge
from synermedgen_jax.inference.challenge import CaseError, synthesise_cases
from synermedgen_jax.slices.itk import read_itk, write_mha
from synermedgen_jax.slices.volumes import Volume

SHAPE = (4, 5, 3)
AFFINE = np.array(
  [[-1.5, 0, 0, 88.25], [0, 0, 2.5, -30.125], [0, 2, 0, 7.0625], [0, 0, 0, 1]]
)
MR = np.arange(60, dtype=np.float32).reshape(SHAPE)
BODY = np.zeros(SHAPE, np.uint8)
BODY[1:3, 1:4] = 1


@pytest.fixture
def calls(monkeypatch):
  """A model whose CT is the source times ten, plus 0.4, in HU."""
  calls = []

  def translate(trained, volumes, route):
    calls.append((trained, route.name))
    ((modality, volume),) = volumes.items()
    assert modality is route.source
    return Volume(volume.data * 10 + np.float32(0.4), volume.affine)

  monkeypatch.setattr(challenge, 'translate', translate)
  return calls


@pytest.fixture
def inputs(tmp_path):
  return tmp_path / 'input'


def add(inputs, name, *, data=MR, mask=BODY, mask_name=None, folder='mri'):
  images = inputs / 'images'
  write_mha(images / folder / name, data, AFFINE)
  if mask is not None:
    write_mha(images / 'body' / (mask_name or name), mask, AFFINE)


def synthesise(inputs, route='brain_mr_to_ct'):
  lines = []
  synthesise_cases(
    'model',
    route_named(route),
    inputs,
    inputs.parent / 'output',
    report=lines.append,
  )
  return lines


def result(inputs, name):
  folder = inputs.parent / 'output' / 'images' / 'synthetic-ct'
  return read_itk(folder / name)


def test_a_case_of_the_platform_has_the_name_and_the_grid_of_its_source(
  inputs, calls
):
  add(inputs, 'b0f1.mha', mask_name='77aa.mha')
  (line,) = synthesise(inputs)
  data, affine = result(inputs, 'b0f1.mha')
  np.testing.assert_allclose(affine, AFFINE, atol=1e-6)
  np.testing.assert_array_equal(data[BODY == 1], MR[BODY == 1] * 10)
  np.testing.assert_array_equal(data[BODY == 0], -1024)
  assert 'b0f1.mha: shape (4, 5, 3), 180 to 410 HU' in line
  assert calls == [('model', 'brain_mr_to_ct')]


def test_several_cases_have_the_mask_of_their_name(inputs, calls):
  other = np.ones(SHAPE, np.uint8)
  add(inputs, '1BA001.mha')
  add(inputs, '1BA002.mha', data=MR + 100, mask=other)
  assert len(synthesise(inputs)) == 2
  data, _ = result(inputs, '1BA002.mha')
  np.testing.assert_array_equal(data, (MR + 100) * 10)
  data, _ = result(inputs, '1BA001.mha')
  assert (data == -1024).sum() == (BODY == 0).sum()


def test_cbct_has_a_folder_of_its_own(inputs, calls):
  add(inputs, 'a.mha', folder='cbct')
  synthesise(inputs, 'pelvis_cbct_to_ct')
  assert calls == [('model', 'pelvis_cbct_to_ct')]
  with pytest.raises(CaseError, match=r'images/mri: holds no \.mha file'):
    synthesise(inputs)


def test_several_cases_without_a_mask_of_their_name_are_refused(inputs, calls):
  add(inputs, 'a.mha')
  add(inputs, 'b.mha', mask_name='c.mha')
  with pytest.raises(CaseError, match=r'mri/b\.mha: has no mask'):
    synthesise(inputs)
  assert not calls


def test_a_case_without_a_mask_is_refused(inputs, calls):
  add(inputs, 'a.mha', mask=None)
  with pytest.raises(CaseError, match=r'mri/a\.mha: has no mask'):
    synthesise(inputs)


@pytest.mark.parametrize(
  ('mask', 'error', 'message'),
  [
    (BODY * 0, CaseError, r'body/a\.mha: is empty'),
    (BODY[:3], VolumeError, r'body/a\.mha: its shape differs'),
  ],
)
def test_a_mask_that_does_not_fit_is_refused(
  inputs, calls, mask, error, message
):
  add(inputs, 'a.mha', mask=mask)
  with pytest.raises(error, match=message):
    synthesise(inputs)
  assert not calls


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      json.dumps('Pelvis'),
      'the case shows pelvis, the container is for',
    ),
    (json.dumps('Head and Neck'), r'shows head.*--region=head_neck'),
    (json.dumps('Knee'), '"Knee" is no region; expected one of brain'),
    (json.dumps(['brain']), r'is no region'),
    ('brain', r'is no region'),
  ],
)
def test_another_region_is_refused(inputs, calls, text, message):
  add(inputs, 'a.mha')
  (inputs / 'region.json').write_text(text)
  with pytest.raises(CaseError, match=message):
    synthesise(inputs)
  assert not calls


def test_the_region_of_the_route_is_accepted(inputs, calls):
  add(inputs, 'a.mha')
  (inputs / 'region.json').write_text('"Brain"\n')
  assert len(synthesise(inputs)) == 1


@pytest.mark.parametrize(
  'route', ['brain_ct_to_mr', 'brats_t1_to_t2', 'whole_body_pet_to_ct']
)
def test_the_challenge_has_no_other_routes(route):
  with pytest.raises(CaseError, match='one source, mr or cbct, and the target'):
    challenge.check_interface(route_named(route))


def test_the_sources_are_those_of_the_challenge():
  assert challenge.SOURCES == {Modality.MR: 'mri', Modality.CBCT: 'cbct'}
