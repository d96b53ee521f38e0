"""Volumes that look wrong are told by what is wrong with them."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from volume_files import affine_of, disc, write_nifti

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings
from synermedgen_jax.slices.inspection import (
  CaseFacts,
  canvas_advice,
  inspect,
  suspicious_units,
)
from synermedgen_jax.slices.volumes import Volume

CT, PET, MR = Modality.CT, Modality.PET, Modality.MR
BODY = disc((8, 24, 24), 9).transpose(2, 1, 0)


def values(modality, low, high, *, typical=None):
  """A volume from `low` to `high`, most of it `typical`."""
  data = np.full((10, 10, 10), low if typical is None else typical, np.float32)
  data[0, 0, 0], data[1, 1, 1] = low, high
  return suspicious_units(modality, Volume(data, np.eye(4)))


@pytest.mark.parametrize(
  ('result', 'words'),
  [
    (values(CT, -1024, 2000), None),
    (values(CT, -3024, 3000), None),  # padding outside the bore
    (values(CT, 0, 3000), 'shifted by 1024'),
    (values(Modality.CBCT, -1, 1), 'normalised values'),
    (values(CT, 0, 255), '8-bit'),
    (values(PET, 0, 25, typical=0.5), None),
    (values(PET, 0, 40_000, typical=5_000), 'Bq/ml'),
    (values(PET, -1000, 40), 'a CT'),
    (values(MR, 0, 1), None),
    (values(MR, -3, 4000), None),
  ],
)
def test_units_that_look_wrong_are_told(result, words):
  if words is None:
    assert result == []
  else:
    (line,) = result
    assert words in line


def case(folder, **arrays):
  files = {}
  for name, data in arrays.items():
    path = folder / f'{name}.nii.gz'
    files[Modality(name)] = write_nifti(path, data, affine_of((2, 2, 4)))
  return CaseFiles('study', 'p1', Region.PELVIS, files)


def pair():
  noise = np.random.default_rng(0).integers(200, 900, BODY.shape)
  return {
    'ct': np.where(BODY, 40, -1000).astype(np.int16),
    'mr': np.where(BODY, noise, 0).astype(np.int16),
  }


def test_a_good_case_has_its_facts_and_pictures(tmp_path):
  result = inspect(case(tmp_path, **pair()), Settings(SliceSpec((24, 24))))
  assert result.problems == ()
  assert result.usable == 8
  facts = result.volumes[CT]
  assert (facts.shape, facts.axes) == ((24, 24, 8), 'RAS')
  assert facts.spacing == pytest.approx((2, 2, 4))
  assert (facts.low, facts.high) == (-1000, 40)
  assert facts.same_grid
  assert facts.offset is None
  assert set(result.pictures) == {CT, MR}
  assert all(p.shape == (128, 128) for p in result.pictures.values())


def test_everything_wrong_with_a_case_is_told_at_once(tmp_path):
  arrays = pair() | {'cbct': np.zeros((24, 24, 8), np.int16)}
  arrays['ct'] = arrays['ct'] + 1000
  result = inspect(case(tmp_path, **arrays), Settings(SliceSpec((24, 24))))
  assert len(result.problems) == 2
  empty, shifted = result.problems
  assert 'cbct.nii.gz: is empty' in empty
  assert shifted.startswith('ct.nii.gz: values from 0 to 1040: no air')
  assert set(result.volumes) == {CT, MR}
  # A bad case is shown as well.
  assert set(result.pictures) == {CT, MR}
  assert all(p.shape == (128, 128) for p in result.pictures.values())


def test_two_positions_in_one_header_are_noted(tmp_path):
  files = case(tmp_path, **pair())
  image = nib.load(files.files[MR])
  other = image.affine.copy()
  other[:3, 3] += (3, 0, 4)
  image.set_qform(other, 1)
  image.set_sform(image.affine, 1)
  nib.save(image, files.files[MR])
  result = inspect(files, Settings(SliceSpec((24, 24))))
  assert result.problems == ()
  assert result.notes == (
    'mr.nii.gz: sform and qform differ by 5.0 mm; the sform is used.',
  )


def test_another_grid_is_a_problem_without_a_reference_alone(tmp_path):
  arrays = pair()
  files = case(tmp_path, **arrays)
  write_nifti(files.files[MR], arrays['mr'], affine_of((2, 2, 4), (1, 0, 0)))
  (problem,) = inspect(files, Settings(SliceSpec((24, 24)))).problems
  assert 'its affine differs from ct.nii.gz' in problem
  result = inspect(files, Settings(SliceSpec((24, 24)), reference=(CT,)))
  assert result.problems == ()
  assert [v.same_grid for v in result.volumes.values()] == [True, False]


def test_a_canvas_of_another_shape_is_advised():
  """120 mm high and 60 mm wide: half of a square is padding."""
  facts = [CaseFacts('a', {}, (), 0, {}, extent=(120.0, 60.0))]
  spec = SliceSpec((256, 256), plane='coronal')
  assert canvas_advice(facts, spec) == (
    'coronal slices are 120 x 60 mm (height x width, median): 50% of a canvas '
    'of 256 is padding; --canvas=256x128 fits them.'
  )
  fits = dataclasses.replace(spec, canvas=(256, 128))
  assert canvas_advice(facts, fits) == ''
  assert canvas_advice([CaseFacts('a', {}, (), 0, {})], spec) == ''
  assert canvas_advice(facts, dataclasses.replace(spec, frame='body')) == ''
