"""What a synthetic volume cannot be, and that true volumes pass."""

import functools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.phantoms import cohorts
from synermedgen_jax.slices.grids import to_slices
from synermedgen_jax.slices.tissue_values import (
  Implausible,
  implausible,
  tissue_masks,
)
from synermedgen_jax.slices.volumes import read_volume

DATA = Path(__file__).parents[1] / 'data'
CROPS = [
  *sorted((DATA / 'sts').glob('*/*.nii.gz')),
  *sorted((DATA / 'openms').glob('*/*.nii.gz')),
  DATA / 'lung' / 'ct.mha',
]
PHANTOMS = {'brain': Region.BRAIN, 'pelvis': Region.PELVIS}


@functools.cache
def crop(path):
  return to_slices(read_volume(path).data)


@functools.cache
def phantom(cohort, modality):
  image = cohorts.render_phantom(cohort, 0, 0)[modality]
  return to_slices(nib.as_closest_canonical(image).get_fdata(dtype=np.float32))


@pytest.mark.parametrize(
  'path', CROPS, ids=lambda p: f'{p.parent.name}-{p.name}'
)
def test_real_volumes_pass(path):
  modality = Modality(path.name.partition('.')[0])
  assert implausible(crop(path), modality, Region.WHOLE_BODY) == []


@pytest.mark.parametrize('modality', [Modality.CT, Modality.CBCT, Modality.MR])
@pytest.mark.parametrize('cohort', PHANTOMS)
def test_phantoms_pass(cohort, modality):
  slices = phantom(cohort, modality)
  assert implausible(slices, modality, PHANTOMS[cohort]) == []


def cts():
  for path in CROPS:
    if path.name.startswith('ct.'):
      yield crop(path), Region.WHOLE_BODY
  for cohort, region in PHANTOMS.items():
    yield phantom(cohort, Modality.CT), region


CHANGES = {
  'too high by 300 HU': lambda ct: ct + 300,
  'too low by 300 HU': lambda ct: ct - 300,
  'too high by 1024 HU': lambda ct: ct + 1024,
  'inverted': lambda ct: -ct,
  'scaled by 2': lambda ct: 2 * ct,
  'in thousands': lambda ct: ct / 1000,
  'air alone': lambda ct: np.full_like(ct, -1000),
  'soft tissue alone': lambda ct: np.full_like(ct, 40),
  'without bone': lambda ct: np.minimum(ct, 140),
  'a voxel that is no number': lambda ct: np.where(ct == ct.max(), np.nan, ct),
}


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_ct_is_implausible(change):
  for ct, region in cts():
    assert implausible(CHANGES[change](ct), Modality.CT, region)


def test_a_region_that_need_not_have_bone_may_lack_it():
  ct = np.minimum(phantom('pelvis', Modality.CT), 140)
  (line,) = implausible(ct, Modality.CT, Region.PELVIS)
  assert line == Implausible('share of bone in the body', 0, (0.01, 0.4))
  assert implausible(ct, Modality.CT, Region.ABDOMEN) == []


def test_pet_and_mr():
  pet = crop(DATA / 'sts' / 'STS_035' / 'pet.nii.gz')
  for change in (lambda v: -v, lambda v: 5000 * v, lambda v: 0 * v):
    assert implausible(change(pet), Modality.PET, Region.WHOLE_BODY)
  mr = crop(DATA / 'sts' / 'STS_035' / 'mr.nii.gz')
  for constant in (0, 300):
    flat = np.full_like(mr, constant)
    assert implausible(flat, Modality.MR, Region.PELVIS)


def test_an_entry_states_number_and_range():
  entry = Implausible('share of bone in the body', 0.0, (0.01, 0.4))
  assert str(entry) == 'share of bone in the body: 0, expected 0.01 to 0.4'
  inf = float('inf')
  entry = Implausible('lowest, HU', -2000.0, (-1200.0, inf))
  assert str(entry) == 'lowest, HU: -2000, expected at least -1200'
  entry = Implausible('highest, HU', 4000.0, (-inf, 3071.0))
  assert str(entry).endswith('expected at most 3071')


def test_tissues_divide_the_body():
  ct = np.float32([[[-1000, -200.5, -200, 0, 149.5, 150, 900, 150]]])
  body = np.array([[[1, 1, 1, 1, 1, 1, 1, 0]]], bool)
  masks = {k: v.ravel().tolist() for k, v in tissue_masks(ct, body).items()}
  assert masks == {
    'air': [1, 1, 0, 0, 0, 0, 0, 0],
    'soft': [0, 0, 1, 1, 1, 0, 0, 0],
    'bone': [0, 0, 0, 0, 0, 1, 1, 0],
  }
