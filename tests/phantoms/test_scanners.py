"""Scanners: the physics by hand."""

import dataclasses
import functools

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.phantoms import cohorts, scanners
from synermedgen_jax.phantoms.canvas import Grid

BRATS = cohorts.COHORTS['brats'].mr


@functools.cache
def fractions_and_ct(cohort):
  rng = np.random.default_rng(0)
  fractions = cohorts.render_fractions(cohort, rng)
  ct = scanners.image_ct(fractions, rng, cohorts.COHORTS[cohort].grid)
  return fractions, ct


def brightness(modality, tissue):
  return BRATS[modality].signal(scanners.TISSUES[tissue])


def test_spin_echo_signal_is_the_one_computed_by_hand():
  tissue = scanners.Tissue(hu=0, t1=1000, t2=100, pd=0.8, gd=0, suv=0)
  # 0.8 (1 - e^-0.5) e^-0.1 = 0.8 * 0.393469 * 0.904837
  signal = scanners.Sequence(tr=500, te=10).signal(tissue)
  assert signal == pytest.approx(0.284819, abs=1e-5)


def test_inversion_recovery_signal_is_the_one_computed_by_hand():
  tissue = scanners.Tissue(hu=0, t1=1000, t2=100, pd=1.0, gd=0, suv=0)
  # |1 - 2 e^-0.2 + e^-2| e^-0.5 = 0.502126 * 0.606531; before its null
  # the magnetisation is negative, and a magnitude image shows it positive.
  signal = scanners.Sequence(tr=2000, te=50, ti=200).signal(tissue)
  assert signal == pytest.approx(0.304555, abs=1e-5)


def test_inversion_at_ln2_t1_nulls_a_tissue():
  tissue = scanners.Tissue(hu=0, t1=1000, t2=100, pd=1.0, gd=0, suv=0)
  sequence = scanners.Sequence(tr=60000, te=5, ti=1000 * np.log(2))
  assert sequence.signal(tissue) == pytest.approx(0, abs=1e-9)


def test_contrast_agent_shortens_t1():
  plain = scanners.Tissue(hu=0, t1=1000, t2=100, pd=1.0, gd=1.0, suv=0)
  # 1/T1 = 0.001 + 0.0041 * 1.0, hence T1 = 196.078 ms.
  short = dataclasses.replace(plain, t1=196.0784, gd=0.0)
  sequence = scanners.Sequence(tr=500, te=10)
  enhanced = dataclasses.replace(sequence, contrast=True)
  assert enhanced.signal(plain) == pytest.approx(sequence.signal(short))


@pytest.mark.parametrize(
  ('modality', 'brighter', 'darker'),
  [
    (Modality.T1, 'fat', 'white'),
    (Modality.T1, 'white', 'grey'),
    (Modality.T1, 'grey', 'csf'),
    (Modality.T2, 'csf', 'grey'),
    (Modality.T2, 'grey', 'white'),
    (Modality.T2, 'oedema', 'grey'),
    (Modality.FLAIR, 'oedema', 'grey'),
    (Modality.FLAIR, 'grey', 'csf'),
    (Modality.T1CE, 'rim', 'white'),
    (Modality.T1CE, 'vessel', 'white'),
  ],
)
def test_contrasts_order_tissues_as_radiologists_know(
  modality, brighter, darker
):
  assert brightness(modality, brighter) > 1.15 * brightness(modality, darker)


@pytest.mark.parametrize('tissue', ['vessel', 'mucosa', 'choroid', 'rim'])
def test_enhancing_tissue_is_brighter_in_t1ce(tissue):
  t1, t1ce = (brightness(m, tissue) for m in (Modality.T1, Modality.T1CE))
  assert t1ce > 1.8 * t1


def test_healthy_brain_does_not_enhance():
  for tissue in ('grey', 'white', 'csf'):
    assert brightness(Modality.T1, tissue) == brightness(Modality.T1CE, tissue)


@pytest.mark.parametrize(
  ('cohort', 'tissue', 'hu'),
  [
    ('brain', 'white', 29),
    ('brain', 'csf', 8),
    ('pelvis', 'fat', -98),
    ('pelvis', 'muscle', 52),
    ('whole_body', 'lung', -800),
    ('whole_body', 'liver', 60),
    ('whole_body', 'air', -1000),
  ],
)
def test_ct_numbers_are_the_tissues(cohort, tissue, hu):
  fractions, ct = fractions_and_ct(cohort)
  pure = fractions[tissue] > 0.99
  assert pure.sum() > 100
  assert ct[pure].mean() == pytest.approx(hu, abs=4)


def test_pet_keeps_the_total_uptake_and_spreads_it():
  grid = Grid((24, 24, 4), (4.0, 4.0, 4.0))
  uptake = np.zeros(grid.shape, np.float32)
  uptake[10:14, 10:14] = 5.0
  pet = scanners.image_pet(uptake, np.random.default_rng(0), grid)
  assert pet.sum() == pytest.approx(5 * 16 * 4, rel=0.05)
  assert pet[9, 12].mean() > 0.2
  assert pet[2:6, 2:6].max() == 0


def test_fdg_is_hot_in_brain_and_bladder():
  fractions, _ = fractions_and_ct('whole_body')
  uptake = scanners.fdg_uptake(fractions, np.random.default_rng(1))
  tissues = ('urine', 'grey', 'liver', 'muscle', 'fat')
  mean = {t: uptake[fractions[t] > 0.85].mean() for t in tissues}
  assert mean['urine'] > mean['grey'] > mean['liver'] > mean['muscle']
  assert mean['muscle'] > mean['fat'] > 0
  assert 1.5 < mean['liver'] < 3.3
