"""Phantoms: the volumes, and the files as a reader finds them."""

import functools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import ROUTES, Modality, Region
from synermedgen_jax.phantoms import cohorts, scanners
from synermedgen_jax.slices.datasets import DatasetError

CT, CBCT, PET, MR = Modality.CT, Modality.CBCT, Modality.PET, Modality.MR


@functools.cache
def render(cohort, subject=0, seed=0):
  return cohorts.render_phantom(cohort, seed, subject)


def values(cohort, modality, subject=0, seed=0):
  """The voxels along right, anterior, superior."""
  image = nib.as_closest_canonical(render(cohort, subject, seed)[modality])
  return image.get_fdata(dtype=np.float32)


def test_cohorts_serve_every_route():
  for route in ROUTES:
    modalities = cohorts.COHORTS[route.cohort].modalities
    assert {route.source, route.target} <= set(modalities)


def test_t1_and_t1ce_volumes_differ():
  t1, t1ce = (values('brats', m) for m in (Modality.T1, Modality.T1CE))
  t1, t1ce = (a / np.percentile(a, 90) for a in (t1, t1ce))
  assert (t1ce - t1 > 0.4).mean() > 0.01


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_tissue_fractions_sum_to_one(cohort):
  fractions = cohorts.render_fractions(cohort, np.random.default_rng(3))
  assert set(fractions) <= set(scanners.TISSUES)
  np.testing.assert_allclose(sum(fractions.values()), 1, atol=1e-5)


@pytest.mark.parametrize('cohort', ['brain', 'pelvis'])
def test_cbct_follows_ct_inside_a_circle_and_is_air_outside(cohort):
  ct, cbct = values(cohort, CT), values(cohort, CBCT)
  spec = cohorts.COHORTS[cohort]
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


def test_air_is_near_zero_in_mr_and_pet():
  for cohort, modality in (('brats', Modality.T2), ('brain', MR)):
    image = values(cohort, modality)
    assert image[:3, :3].mean() < 0.06 * np.percentile(image, 99)
  assert values('whole_body', PET)[:3, :3].max() < 0.05


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_rendering_is_a_function_of_its_arguments(cohort):
  modality = cohorts.COHORTS[cohort].modalities[0]
  first = values(cohort, modality, subject=1)
  again = cohorts.render_phantom(cohort, 0, 1)[modality].get_fdata()
  image = render(cohort, 1)[modality].get_fdata()
  np.testing.assert_array_equal(image, again)
  assert not np.array_equal(first, values(cohort, modality, 1, seed=1))


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_subjects_differ_in_anatomy(cohort):
  modality = cohorts.COHORTS[cohort].modalities[-1]
  a, b = (values(cohort, modality, subject) for subject in (0, 1))
  assert np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.93


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_neighbouring_slices_differ(cohort):
  for modality in cohorts.COHORTS[cohort].modalities:
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
  ras = cohorts.COHORTS['brats'].grid
  image = render('brats')[Modality.T1]
  assert nib.aff2axcodes(image.affine) == ('L', 'P', 'S')
  canonical = nib.as_closest_canonical(image)
  np.testing.assert_allclose(canonical.header.get_zooms(), ras.spacing)
  # Orbital fat lies in front: the lowest slices are brighter anteriorly.
  low = values('brats', Modality.T1)[:, :, :5]
  assert low[:, 48:].max(axis=(0, 2)).mean() > low[:, :24].mean()


def test_liver_is_on_the_right_and_heart_on_the_left():
  fractions = cohorts.render_fractions('whole_body', np.random.default_rng(5))
  middle = cohorts.COHORTS['whole_body'].grid.shape[0] / 2
  right = np.arange(2 * int(middle))[:, None, None] > middle  # RAS: x grows
  for tissue, on_right in (('liver', True), ('heart', False)):
    share = (fractions[tissue] * right).sum() / fractions[tissue].sum()
    assert (share > 0.6) == on_right


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp('set') / 'phantoms'
  cohorts.write_phantoms(path, subjects=1, seed=7, progress=False)
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
  for modality, image in cohorts.render_phantom('brain', 7, 0).items():
    path = root / 'brain' / 'brain_000' / f'{modality}.nii.gz'
    np.testing.assert_array_equal(nib.load(path).get_fdata(), image.get_fdata())


@pytest.mark.parametrize('cohort', list(cohorts.COHORTS))
def test_a_lesion_mask_marks_the_anatomys_lesions_on_a_volumes_grid(
  root, cohort
):
  folder = root / cohort / f'{cohort}_000'
  mask = nib.load(folder / 'lesion.nii.gz')
  assert mask.get_data_dtype() == np.uint8
  first = nib.load(folder / f'{cohorts.COHORTS[cohort].modalities[-1]}.nii.gz')
  assert mask.shape == first.shape
  np.testing.assert_array_equal(mask.affine, first.affine)
  fractions, affine = cohorts.render_anatomy(cohort, 7, 0)
  lesion = sum(
    fractions.get(tissue, np.zeros(mask.shape, np.float32))
    for tissue in ('oedema', 'rim', 'necrosis', 'tumour')
  )
  canonical = nib.as_closest_canonical(mask)
  np.testing.assert_array_equal(canonical.get_fdata(), lesion > 0.5)
  np.testing.assert_allclose(canonical.affine, affine, atol=1e-4)


def test_a_set_from_before_the_lesion_masks_is_complete(root, tmp_path):
  old = tmp_path / 'old'
  shutil.copytree(root, old, ignore=shutil.ignore_patterns('lesion.*'))
  cohorts.write_phantoms(old, subjects=1, seed=7, progress=False)
  cases = cohorts.phantom_cases(old)
  assert [case.lesion for case in cases] == [None] * 4
  assert all(case.lesion for case in cohorts.phantom_cases(root))


def test_finished_set_is_marked_and_left_alone(root):
  marker = json.loads((root / 'phantoms.json').read_text())
  assert marker == {'seed': 7, 'subjects': 1, 'version': cohorts.VERSION}
  files = sorted(p for p in root.rglob('*') if p.is_file())
  # Volumes and a lesion mask of each subject.
  assert len(files) == 1 + 3 + 3 + 2 + 4 + 4
  before = [p.stat().st_mtime_ns for p in files]
  cohorts.write_phantoms(root, subjects=1, seed=7, progress=False)
  assert [p.stat().st_mtime_ns for p in files] == before


def test_other_arguments_are_refused(root):
  with pytest.raises(ValueError, match=r"'seed': 7.*delete it") as error:
    cohorts.write_phantoms(root, subjects=1, seed=8, progress=False)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_a_seed_beyond_32_bits_is_refused(tmp_path, seed):
  """Its subjects could be those of a holdout."""
  with pytest.raises(UserError, match=f'--seed={seed}: expected a number'):
    cohorts.write_phantoms(tmp_path / 'new', subjects=1, seed=seed)
  assert not (tmp_path / 'new').exists()


def test_foreign_directory_is_refused_and_untouched(tmp_path):
  (tmp_path / 'scan.nii.gz').write_bytes(b'precious')
  with pytest.raises(ValueError, match=r'holds no phantoms\.json'):
    cohorts.write_phantoms(tmp_path, subjects=1, progress=False)
  assert [p.name for p in tmp_path.iterdir()] == ['scan.nii.gz']


def test_interrupted_set_is_finished_by_the_same_call(tmp_path, monkeypatch):
  brats = {'brats': cohorts.COHORTS['brats']}
  monkeypatch.setattr(cohorts, 'COHORTS', brats)
  with monkeypatch.context() as broken:
    broken.setattr(cohorts, '_render_files', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      cohorts.write_phantoms(tmp_path, subjects=1, progress=False)
  assert not (tmp_path / 'phantoms.json').exists()
  cohorts.write_phantoms(tmp_path, subjects=1, progress=False)
  assert (tmp_path / 'phantoms.json').exists()
  assert (tmp_path / 'brats' / 'brats_000' / 'flair.nii.gz').exists()
  assert not list(tmp_path.rglob('*.partial'))


def lay_out(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def test_phantoms_are_datasets_by_cohort(tmp_path):
  lay_out(tmp_path, 'phantoms.json')
  for cohort, spec in cohorts.COHORTS.items():
    lay_out(tmp_path, *(f'{cohort}/s/{m}.nii.gz' for m in spec.modalities))
  cases = {case.dataset: case for case in cohorts.phantom_cases(tmp_path)}
  assert list(cases) == ['brain', 'pelvis', 'whole_body', 'brats']
  assert cases['brats'].region is Region.BRAIN
  assert set(cases['whole_body'].files) == {Modality.CT, Modality.PET}


def test_incomplete_phantoms_are_refused(tmp_path):
  lay_out(tmp_path, 'brain/brain_000/ct.nii.gz')
  with pytest.raises(DatasetError, match='holds no complete set of phantoms'):
    cohorts.phantom_cases(tmp_path)
