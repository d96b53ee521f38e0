"""Phantoms: the physics by hand, the files as a reader finds them."""

import dataclasses
import functools
import json

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.core.modalities import ROUTES, Modality
from synermedgen_jax.slices import anatomy, phantoms

CT, CBCT, PET, MR = Modality.CT, Modality.CBCT, Modality.PET, Modality.MR
BRATS = phantoms.COHORTS['brats'].mr


@functools.cache
def render(cohort, subject=0, seed=0):
  return phantoms.render_phantom(cohort, seed, subject)


def values(cohort, modality, subject=0, seed=0):
  """The voxels along right, anterior, superior."""
  image = nib.as_closest_canonical(render(cohort, subject, seed)[modality])
  return image.get_fdata(dtype=np.float32)


def brightness(modality, tissue):
  return BRATS[modality].signal(phantoms.TISSUES[tissue])


def test_cohorts_serve_every_route():
  for route in ROUTES:
    modalities = phantoms.COHORTS[route.cohort].modalities
    assert {route.source, route.target} <= set(modalities)


def test_spin_echo_signal_is_the_one_computed_by_hand():
  tissue = phantoms.Tissue(hu=0, t1=1000, t2=100, pd=0.8, gd=0, suv=0)
  # 0.8 (1 - e^-0.5) e^-0.1 = 0.8 * 0.393469 * 0.904837
  signal = phantoms.Sequence(tr=500, te=10).signal(tissue)
  assert signal == pytest.approx(0.284819, abs=1e-5)


def test_inversion_recovery_signal_is_the_one_computed_by_hand():
  tissue = phantoms.Tissue(hu=0, t1=1000, t2=100, pd=1.0, gd=0, suv=0)
  # |1 - 2 e^-0.2 + e^-2| e^-0.5 = 0.502126 * 0.606531; before its null
  # the magnetisation is negative, and a magnitude image shows it positive.
  signal = phantoms.Sequence(tr=2000, te=50, ti=200).signal(tissue)
  assert signal == pytest.approx(0.304555, abs=1e-5)


def test_inversion_at_ln2_t1_nulls_a_tissue():
  tissue = phantoms.Tissue(hu=0, t1=1000, t2=100, pd=1.0, gd=0, suv=0)
  sequence = phantoms.Sequence(tr=60000, te=5, ti=1000 * np.log(2))
  assert sequence.signal(tissue) == pytest.approx(0, abs=1e-9)


def test_contrast_agent_shortens_t1():
  plain = phantoms.Tissue(hu=0, t1=1000, t2=100, pd=1.0, gd=1.0, suv=0)
  # 1/T1 = 0.001 + 0.0041 * 1.0, hence T1 = 196.078 ms.
  short = dataclasses.replace(plain, t1=196.0784, gd=0.0)
  sequence = phantoms.Sequence(tr=500, te=10)
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


def test_t1_and_t1ce_volumes_differ():
  t1, t1ce = (values('brats', m) for m in (Modality.T1, Modality.T1CE))
  t1, t1ce = (a / np.percentile(a, 90) for a in (t1, t1ce))
  assert (t1ce - t1 > 0.4).mean() > 0.01


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
  rng = np.random.default_rng(0)
  grid = phantoms.COHORTS[cohort].grid
  fractions = phantoms.render_fractions(cohort, rng)
  ct = phantoms.image_ct(fractions, rng, grid)
  pure = fractions[tissue] > 0.99
  assert pure.sum() > 100
  assert ct[pure].mean() == pytest.approx(hu, abs=4)


@pytest.mark.parametrize('cohort', list(phantoms.COHORTS))
def test_tissue_fractions_sum_to_one(cohort):
  fractions = phantoms.render_fractions(cohort, np.random.default_rng(3))
  assert set(fractions) <= set(phantoms.TISSUES)
  np.testing.assert_allclose(sum(fractions.values()), 1, atol=1e-5)


@pytest.mark.parametrize('cohort', ['brain', 'pelvis'])
def test_cbct_follows_ct_inside_a_circle_and_is_air_outside(cohort):
  ct, cbct = values(cohort, CT), values(cohort, CBCT)
  spec = phantoms.COHORTS[cohort]
  x, y = np.meshgrid(
    *((np.arange(n) - (n - 1) / 2) * 1.0 for n in ct.shape[:2]), indexing='ij'
  )
  dx, dy, _ = spec.grid.spacing
  outside = np.hypot(x * dx, y * dy) > spec.field_of_view + 0.1
  assert outside.any()
  assert (cbct[outside] == -1000).all()
  inside = ~outside
  assert np.corrcoef(ct[inside].ravel(), cbct[inside].ravel())[0, 1] > 0.95
  assert np.abs(ct - cbct)[inside].mean() > 30


def test_pet_keeps_the_total_uptake_and_spreads_it():
  grid = anatomy.Grid((24, 24, 4), (4.0, 4.0, 4.0))
  uptake = np.zeros(grid.shape, np.float32)
  uptake[10:14, 10:14] = 5.0
  pet = phantoms.image_pet(uptake, np.random.default_rng(0), grid)
  assert pet.sum() == pytest.approx(5 * 16 * 4, rel=0.05)
  assert pet[9, 12].mean() > 0.2
  assert pet[2:6, 2:6].max() == 0


def test_fdg_is_hot_in_brain_and_bladder():
  fractions = phantoms.render_fractions('whole_body', np.random.default_rng(0))
  uptake = phantoms.fdg_uptake(fractions, np.random.default_rng(1))
  tissues = ('urine', 'grey', 'liver', 'muscle', 'fat')
  mean = {t: uptake[fractions[t] > 0.85].mean() for t in tissues}
  assert mean['urine'] > mean['grey'] > mean['liver'] > mean['muscle']
  assert mean['muscle'] > mean['fat'] > 0
  assert 1.5 < mean['liver'] < 3.3


def test_air_is_near_zero_in_mr_and_pet():
  for cohort, modality in (('brats', Modality.T2), ('brain', MR)):
    image = values(cohort, modality)
    assert image[:3, :3].mean() < 0.06 * np.percentile(image, 99)
  assert values('whole_body', PET)[:3, :3].max() < 0.05


@pytest.mark.parametrize('cohort', list(phantoms.COHORTS))
def test_rendering_is_a_function_of_its_arguments(cohort):
  modality = phantoms.COHORTS[cohort].modalities[0]
  first = values(cohort, modality, subject=1)
  again = phantoms.render_phantom(cohort, 0, 1)[modality].get_fdata()
  image = render(cohort, 1)[modality].get_fdata()
  np.testing.assert_array_equal(image, again)
  assert not np.array_equal(first, values(cohort, modality, 1, seed=1))


@pytest.mark.parametrize('cohort', list(phantoms.COHORTS))
def test_subjects_differ_in_anatomy(cohort):
  modality = phantoms.COHORTS[cohort].modalities[-1]
  a, b = (values(cohort, modality, subject) for subject in (0, 1))
  assert np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.93


@pytest.mark.parametrize('cohort', list(phantoms.COHORTS))
def test_neighbouring_slices_differ(cohort):
  for modality in phantoms.COHORTS[cohort].modalities:
    image = values(cohort, modality)
    image = np.clip(image, *np.percentile(image, [0.5, 99.5]))
    change = np.sqrt(np.square(np.diff(image, axis=2)).mean((0, 1)))
    change /= image.std((0, 1))[1:]
    assert change.min() > 0.05
    assert np.median(change) > 0.15


@pytest.mark.parametrize('cohort', ['brain', 'pelvis', 'brats'])
def test_modalities_of_a_subject_share_one_grid(cohort):
  first, *others = render(cohort).values()
  for image in others:
    assert image.shape == first.shape
    np.testing.assert_array_equal(image.affine, first.affine)


def test_pet_and_ct_share_a_frame_on_different_grids():
  pet, ct = (values('whole_body', m) for m in (PET, CT))
  assert pet.shape[0] < ct.shape[0]
  affines = {m: render('whole_body')[m].affine for m in (PET, CT)}
  middles = [
    affines[m] @ [*(np.asarray(image.shape) - 1) / 2, 1]
    for m, image in ((PET, pet), (CT, ct))
  ]
  np.testing.assert_allclose(*middles, atol=1e-4)
  bodies = (pet > 0.2, ct > -500)
  spacings = [render('whole_body')[m].header.get_zooms() for m in (PET, CT)]
  areas = [
    b.sum((0, 1)) * s[0] * s[1] for b, s in zip(bodies, spacings, strict=True)
  ]
  assert np.corrcoef(*areas)[0, 1] > 0.9


def test_left_and_right_survive_the_lps_storage():
  ras = phantoms.COHORTS['brats'].grid
  image = render('brats')[Modality.T1]
  assert nib.aff2axcodes(image.affine) == ('L', 'P', 'S')
  canonical = nib.as_closest_canonical(image)
  np.testing.assert_allclose(canonical.header.get_zooms(), ras.spacing)
  # Orbital fat lies in front: the lowest slices are brighter anteriorly.
  low = values('brats', Modality.T1)[:, :, :5]
  assert low[:, 48:].max(axis=(0, 2)).mean() > low[:, :24].mean()


def test_liver_is_on_the_right_and_heart_on_the_left():
  fractions = phantoms.render_fractions('whole_body', np.random.default_rng(5))
  middle = phantoms.COHORTS['whole_body'].grid.shape[0] / 2
  right = np.arange(2 * int(middle))[:, None, None] > middle  # RAS: x grows
  for tissue, on_right in (('liver', True), ('heart', False)):
    share = (fractions[tissue] * right).sum() / fractions[tissue].sum()
    assert (share > 0.6) == on_right


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp('set') / 'phantoms'
  phantoms.write_phantoms(path, subjects=1, seed=7, progress=False)
  return path


@pytest.mark.parametrize(
  ('name', 'axes', 'dtype', 'slope', 'intercept'),
  [
    ('brain/brain_000/ct', 'RAS', np.int16, 1.0, -1024.0),
    ('brain/brain_000/cbct', 'RAS', np.int16, 1.0, 0.0),
    ('pelvis/pelvis_000/mr', 'RAS', np.int16, 1.0, 0.0),
    ('brats/brats_000/t1ce', 'LPS', np.int16, 0.25, 0.0),
    ('whole_body/whole_body_000/pet', 'RAS', np.float32, 1.0, 0.0),
  ],
)
def test_files_have_the_conventions_of_real_sets(
  root, name, axes, dtype, slope, intercept
):
  image = nib.load(root / f'{name}.nii.gz')
  assert image.get_data_dtype() == dtype
  assert nib.aff2axcodes(image.affine) == tuple(axes)
  assert (image.dataobj.slope, image.dataobj.inter) == (slope, intercept)
  assert image.header['qform_code'] == image.header['sform_code'] == 1
  np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)


def test_files_hold_what_rendering_returns(root):
  for modality, image in phantoms.render_phantom('brain', 7, 0).items():
    path = root / 'brain' / 'brain_000' / f'{modality}.nii.gz'
    np.testing.assert_array_equal(nib.load(path).get_fdata(), image.get_fdata())


def test_finished_set_is_marked_and_left_alone(root):
  marker = json.loads((root / 'phantoms.json').read_text())
  assert marker == {'seed': 7, 'subjects': 1, 'version': phantoms.VERSION}
  files = sorted(p for p in root.rglob('*') if p.is_file())
  assert len(files) == 1 + 3 + 3 + 2 + 4
  before = [p.stat().st_mtime_ns for p in files]
  phantoms.write_phantoms(root, subjects=1, seed=7, progress=False)
  assert [p.stat().st_mtime_ns for p in files] == before


def test_other_arguments_are_refused(root):
  with pytest.raises(ValueError, match=r"'seed': 7.*delete it") as error:
    phantoms.write_phantoms(root, subjects=1, seed=8, progress=False)
  assert '\n' not in str(error.value)


def test_foreign_directory_is_refused_and_untouched(tmp_path):
  (tmp_path / 'scan.nii.gz').write_bytes(b'precious')
  with pytest.raises(ValueError, match=r'holds no phantoms\.json'):
    phantoms.write_phantoms(tmp_path, subjects=1, progress=False)
  assert [p.name for p in tmp_path.iterdir()] == ['scan.nii.gz']


def test_interrupted_set_is_finished_by_the_same_call(tmp_path, monkeypatch):
  cohorts = {'brats': phantoms.COHORTS['brats']}
  monkeypatch.setattr(phantoms, 'COHORTS', cohorts)
  with monkeypatch.context() as broken:
    broken.setattr(phantoms, '_render_files', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      phantoms.write_phantoms(tmp_path, subjects=1, progress=False)
  assert not (tmp_path / 'phantoms.json').exists()
  phantoms.write_phantoms(tmp_path, subjects=1, progress=False)
  assert (tmp_path / 'phantoms.json').exists()
  assert (tmp_path / 'brats' / 'brats_000' / 'flair.nii.gz').exists()
  assert not list(tmp_path.rglob('*.partial'))
