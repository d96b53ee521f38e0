"""Shifts: what each changes, by hand, and that nothing else changes."""

import dataclasses
import itertools
import json
import re

import nibabel as nib
import numpy as np
import pytest
from commands import ROOT

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.phantoms import cohorts, scanners
from synermedgen_jax.phantoms.canvas import Grid
from synermedgen_jax.phantoms.scanners import TISSUES, Sequence
from synermedgen_jax.phantoms.shifts import (
  NONE,
  SHIFTS,
  Shift,
  moved,
  moved_fractions,
  thicker,
)
from synermedgen_jax.slices.alignment import estimate_offset
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.volumes import Volume

CT, CBCT, PET, MR = Modality.CT, Modality.CBCT, Modality.PET, Modality.MR
GRID = Grid((40, 40, 10), (2.0, 2.0, 3.0))
SPIN_ECHO = Sequence(tr=500, te=10)


@pytest.fixture
def coarse(monkeypatch):
  """Cohorts on grids of a tenth of the voxels, which are quick to paint."""
  for name, cohort in cohorts.COHORTS.items():
    grid = cohort.grid
    shape = tuple(max(n // 3, 8) for n in grid.shape)
    spacing = tuple(
      s * n / k for s, n, k in zip(grid.spacing, grid.shape, shape, strict=True)
    )
    small = dataclasses.replace(cohort, grid=Grid(shape, spacing, grid.centre))
    monkeypatch.setitem(cohorts.COHORTS, name, small)


def rng():
  return np.random.default_rng(0)


def halves(tissue):
  """Air on the left, a tissue on the right."""
  right = np.zeros(GRID.shape, np.float32)
  right[20:] = 1
  return {'air': 1 - right, tissue: right}


def mr(tissue='muscle', **changes):
  """An MR of the halves, without gain."""
  image = scanners.image_mr(
    halves(tissue), SPIN_ECHO, rng(), GRID, Shift('', **changes)
  )
  return image.astype(np.float64)


def cbct(**changes):
  """A CBCT of air, water and bone without the field of view's edge."""
  ct = np.full(GRID.shape, -1000.0, np.float32)
  ct[10:] = 0
  ct[30:] = 1000
  return scanners.image_cbct(ct, rng(), GRID, 500.0, Shift('', **changes))


def test_subjects_of_training_sets_are_what_they_were():
  # Recorded before there were shifts; at 35, 50 and 60 % of every axis.
  for cohort, modality, expected, mean in (
    ('brain', MR, (436, 437, 71), 227.5421007),
    ('brain', CBCT, (-77, -102, -140), -430.5223669),
    ('brats', Modality.FLAIR, (219, 243, 190), 102.0616645),
  ):
    values = cohorts.render_phantom(cohort, 0, 0)[modality].get_fdata()
    size = np.array(values.shape)
    places = [tuple((share * size).astype(int)) for share in (0.35, 0.5, 0.6)]
    np.testing.assert_allclose([values[p] for p in places], expected, atol=1)
    assert values.mean() == pytest.approx(mean, rel=1e-5)
  assert cohorts.VERSION == 1


@pytest.mark.parametrize(
  ('tissue', 'field', 'expected'),
  [
    ('white', 3.0, 854.9),  # 656 * 2 ** 0.382 = 656 * 1.30314
    ('white', 0.55, 447.1),  # 656 * 0.366667 ** 0.382 = 656 * 0.68163
    ('grey', 3.0, 1541.7),  # 1188 * 2 ** 0.376 = 1188 * 1.29773
    ('muscle', 3.0, 1348.9),  # 1008 * 2 ** 0.4203 = 1008 * 1.33821
    ('fat', 0.55, 288.0),  # 343 * 0.366667 ** 0.1743 = 343 * 0.83956
    ('csf', 7.0, 4300.0),
    ('white', 1.5, 656.0),
  ],
)
def test_t1_follows_the_power_law(tissue, field, expected):
  assert TISSUES[tissue].t1_at(field) == pytest.approx(expected, abs=0.2)


def test_grey_and_white_matter_differ_less_in_t1_weighting_at_3_t():
  # White 656 -> 854.9, grey 1188 -> 1541.7 ms; TR 500, TE 10, PD 0.70, 0.82.
  # White at 1.5 T: 0.70 (1 - e^(-500/656)) e^(-10/72), which is
  # 0.70 * 0.53336 * 0.87032; grey at 3 T: 0.82 * 0.27698 * 0.90009.
  for field, white, grey in ((1.5, 0.32494, 0.25355), (3.0, 0.26979, 0.20443)):
    signals = [SPIN_ECHO.signal(TISSUES[t], field) for t in ('white', 'grey')]
    np.testing.assert_allclose(signals, (white, grey), atol=2e-5)


@pytest.mark.parametrize('factor', [2.0, 4.0])
def test_mr_noise_in_air_and_tissue_has_the_factor(factor):
  clean, noisy, noisier = (mr(mr_noise=f) for f in (0.0, 1.0, factor))
  air, tissue = np.s_[:20], np.s_[20:]
  # In air, the magnitude of the noise alone: a Rayleigh distribution.
  assert noisier[air].std() == pytest.approx(
    factor * noisy[air].std(), rel=1e-3
  )
  assert (noisier - clean)[tissue].std() == pytest.approx(
    factor * (noisy - clean)[tissue].std(), rel=0.02
  )


def test_mr_shading_has_three_times_the_logarithm():
  none, once, thrice = (
    mr(mr_noise=0.0, mr_bias=bias)[20:] for bias in (0.0, 1.0, 3.0)
  )
  # All three share the gain and the texture.
  np.testing.assert_allclose(
    np.log(thrice / none), 3 * np.log(once / none), atol=1e-4
  )
  assert np.log(once / none).std() > 0.05


def test_a_thick_slice_is_the_mean_of_three():
  volume = np.zeros((1, 1, 6), np.float32)
  volume[0, 0] = (6, 0, 0, 9, 0, 0)
  # At the edge, the outermost slice counts twice.
  np.testing.assert_allclose(thicker(volume, 3)[0, 0], (4, 2, 3, 3, 3, 0))
  np.testing.assert_array_equal(thicker(volume, 1), volume)


def test_a_thick_mr_slice_mixes_signals_and_not_noise():
  fractions = halves('muscle')
  fractions['muscle'][..., :5] = 0
  fractions['air'] = 1 - fractions['muscle']
  thick = Shift('', mr_slices=3, mr_noise=0.0)
  image = scanners.image_mr(fractions, SPIN_ECHO, rng(), GRID, thick)
  # The slice below the lowest one with muscle has a third, that one two.
  share = image[20:] / mr(mr_noise=0.0)[20:]
  for place, expected in ((3, 0), (4, 1 / 3), (5, 2 / 3), (6, 1)):
    np.testing.assert_allclose(share[..., place], expected, atol=1e-4)
  noise = [mr(mr_slices=slices)[:20].std() for slices in (1, 3)]
  assert noise[1] == pytest.approx(noise[0], rel=0.01)


def test_cbct_noise_grows_with_the_root_of_the_dose():
  full, quarter, sixteenth = (cbct(cbct_dose=d) for d in (1, 1 / 4, 1 / 16))
  body = np.s_[12:]  # -1000 clips the noise of air
  # The same noise once, twice and four times.
  np.testing.assert_allclose(
    (sixteenth - quarter)[body], 2 * (quarter - full)[body], atol=0.01
  )
  assert (quarter - full)[body].std() > 5


def test_cbct_scatter_raises_air_and_shades_the_body():
  none, once, half_more = (
    cbct(cbct_scatter=s, cbct_dose=1e12) for s in (0, 1, 1.5)
  )
  # Without scatter, the numbers are those of CT, but for streaks and rings.
  for part, expected in ((np.s_[14:26], 0), (np.s_[34:], 1000)):
    assert np.median(none[part]) == pytest.approx(expected, abs=60)
  # Air rises by 60 HU, and with half more scatter by 90.
  air = np.s_[2:6]
  assert (half_more - once)[air] == pytest.approx(30, abs=0.01)
  # Cupping and loss of contrast grow by the same factor.
  body = np.s_[14:]
  np.testing.assert_allclose(
    (half_more - none)[body], 1.5 * (once - none)[body], atol=0.01
  )
  assert (once - none)[34:].mean() < -100


def test_the_variance_of_pet_is_inverse_to_its_counts():
  uptake = np.full((40, 40, 20), 2.0, np.float32)
  full, quarter = (
    scanners.image_pet(uptake, rng(), GRID, shift=Shift('', pet_counts=c))
    for c in (1.0, 0.25)
  )
  assert quarter.mean() == pytest.approx(2, rel=0.01)
  assert quarter.var() == pytest.approx(4 * full.var(), rel=0.1)


def test_a_patient_moves_to_the_right_front_and_top():
  volume = np.zeros((8, 8, 8), np.float32)
  volume[3, 3, 3] = 1
  there = moved(volume, Grid((8, 8, 8), (2.0, 2.0, 3.0)), (2.0, 4.0, 3.0))
  np.testing.assert_allclose(there[4, 5, 4], 1, atol=1e-3)
  assert moved(volume, GRID, (0.0, 0.0, 0.0)) is volume


def test_fractions_of_a_moved_patient_sum_to_one():
  there = moved_fractions(halves('muscle'), GRID, (0.7, 0.3, 1.1))
  np.testing.assert_allclose(sum(there.values()), 1, atol=1e-5)
  assert min(values.min() for values in there.values()) >= 0


def test_the_page_describes_every_shift():
  page = (ROOT / 'docs' / 'holdout.md').read_text()
  _, _, table = page.partition('| `--shift` |')
  rows = re.findall(r'^\|([^|]*)\|', table.partition('\n\n')[0], re.MULTILINE)
  named = re.findall(r'`(\w+)`', ''.join(rows))
  assert named == list(SHIFTS)


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_any_two_volumes_of_a_subject_are_as_far_apart(cohort):
  for first, second in itertools.combinations(
    cohorts.COHORTS[cohort].modalities, 2
  ):
    a, b = (SHIFTS['shift_3mm'].offset(m) for m in (first, second))
    assert np.linalg.norm(np.subtract(a, b)) == pytest.approx(3)


def test_misregistration_is_what_the_alignment_finds():
  images = cohorts.render_phantom('brain', 0, 0, 'shift_5mm')
  spec = SliceSpec((64, 64))
  volumes = {
    m: Volume(image.get_fdata(dtype=np.float32), image.affine)
    for m, image in images.items()
  }
  windows = {m: spec.window(m, v.data) for m, v in volumes.items()}
  for modality in (MR, CBCT):
    offset = estimate_offset(
      volumes[CT], volumes[modality], (windows[CT], windows[modality])
    )
    expected = SHIFTS['shift_5mm'].offset(modality)
    np.testing.assert_allclose(offset.mm, expected, atol=0.5)
  # The headers claim that nothing moved.
  for image in images.values():
    np.testing.assert_array_equal(image.affine, images[CT].affine)


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_a_shift_changes_the_volumes_that_it_says_and_no_other(coarse, cohort):
  none = cohorts._render_files(cohort, 0, 0, NONE)
  for name, shift in SHIFTS.items():
    files = cohorts._render_files(cohort, 0, 0, name)
    changed = {key for key in none if files[key] != none[key]}
    expected = {
      m.value for m in cohorts.COHORTS[cohort].modalities if shift.changes(m)
    }
    assert changed == expected, name


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_a_holdout_has_other_subjects_than_any_training_set(coarse, cohort):
  holdout = cohorts.render_phantom(cohort, 0, 0, NONE)
  for seed, subject in itertools.product((0, 1), (0, 1)):
    training = cohorts.render_phantom(cohort, seed, subject)
    for modality, image in training.items():
      a, b = (x.get_fdata().ravel() for x in (image, holdout[modality]))
      assert np.corrcoef(a, b)[0, 1] < 0.97


def test_the_marker_records_the_shift(coarse, tmp_path, monkeypatch):
  brain = {'brain': cohorts.COHORTS['brain']}
  monkeypatch.setattr(cohorts, 'COHORTS', brain)
  cohorts.write_phantoms(
    tmp_path, subjects=1, shift='mr_3t', progress=False, workers=1
  )
  marker = json.loads((tmp_path / 'phantoms.json').read_text())
  assert marker['shift'] == {'name': 'mr_3t', 'field': 3.0}
  for shift in ('', NONE, 'mr_0p55t'):
    with pytest.raises(ValueError, match=r"'name': 'mr_3t'.*delete it"):
      cohorts.write_phantoms(tmp_path, subjects=1, shift=shift, progress=False)
  folder = tmp_path / 'brain' / 'brain_000'
  assert {p.name for p in folder.iterdir()} == {
    f'{name}.nii.gz' for name in ('ct', 'cbct', 'mr', 'mask', 'lesion')
  }
  mask = nib.load(folder / 'mask.nii.gz')
  ct = nib.load(folder / 'ct.nii.gz').get_fdata()
  body = mask.get_fdata() > 0
  assert ct[~body].max() < 0
  assert np.median(ct[body]) > -100
