"""One subject's files become aligned slices, a mask and a range."""

import functools
from pathlib import Path

import numpy as np
import pytest
from volume_files import affine_of, disc, write_nifti

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.datasets import CaseFiles, folder_cases
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.grids import resample, slice_grid, to_slices
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.volumes import VolumeError, read_volume
from synermedgen_jax.slices.windows import Window, body_mask

CT, MR, PET = Modality.CT, Modality.MR, Modality.PET
DATA = Path(__file__).parents[1] / 'data'
SHAPE = (10, 24, 24)  # slices, rows, columns
BODY = disc(SHAPE, 9)


def write(folder, name, stack, *, spacing=(2, 2, 4), origin=(0, 0, 0)):
  """A stack of pictures as an LPS file."""
  affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_of(spacing, origin)
  data = stack.astype(np.int16).transpose(2, 1, 0)
  return write_nifti(folder / f'{name}.nii.gz', data, affine)


def ct_of(body):
  return np.where(body, 40, -1000)


def mr_of(body):
  noise = np.random.default_rng(0).integers(200, 800, body.shape)
  return np.where(body, noise, 0)


def case_of(folder, *names, region=Region.PELVIS):
  files = {Modality.parse(n): folder / f'{n}.nii.gz' for n in names}
  return CaseFiles('study', 'p1', region, files)


def run(case, *, canvas=24, reference=(), required=()):
  return ingest(
    case, Settings(SliceSpec((canvas, canvas)), reference, required)
  )


def test_pair_on_one_grid_becomes_a_case(tmp_path):
  write(tmp_path / 'p1', 'ct', ct_of(BODY))
  write(tmp_path / 'p1', 'mr', mr_of(BODY))
  result = run(case_of(tmp_path / 'p1', 'mr', 'ct'))
  case = result.case
  assert (case.id, case.split, case.plane) == ('study.p1', '', 'axial')
  assert case.shape == SHAPE
  assert case.usable == range(10)
  assert case.modalities[CT] == Window(-1000.0, 1000.0)
  assert case.sources == {MR: 'p1/mr.nii.gz', CT: 'p1/ct.nii.gz'}
  np.testing.assert_allclose(case.affine[2], (0, 0, 4, 0))
  np.testing.assert_allclose(
    result.volumes[CT], np.where(BODY, 0.04, -1), atol=1e-5
  )
  assert (result.mask ^ BODY).mean() < 0.03


def test_a_frame_about_the_body_is_that_of_the_reference(tmp_path):
  write(tmp_path, 'ct', ct_of(disc(SHAPE, 4, (8, 14))))
  write(tmp_path, 'mr', mr_of(BODY))
  settings = Settings(SliceSpec((24, 24), frame='body'), (CT,), most_offset=0.0)
  result = ingest(case_of(tmp_path, 'ct', 'mr'), settings)
  # A disc of 9 voxels of 2 mm and 2 % at either end.
  pixel = -result.case.affine[0][0]
  assert 24 * pixel == pytest.approx(18 * 1.04, abs=1)
  assert (result.mask[:, 12, 1:-1].mean(1) > 0.8).all()
  assert not result.mask[:, 0].any()
  assert result.volumes[MR].shape == SHAPE


def test_slices_that_one_modality_does_not_cover_are_not_usable(tmp_path):
  write(tmp_path, 'ct', ct_of(BODY))
  write(tmp_path, 'mr', mr_of(BODY[:4]), origin=(0, 0, 12))  # slices 3 to 6
  result = run(case_of(tmp_path, 'ct', 'mr'), reference=(CT,))
  assert result.case.usable == range(3, 7)
  assert result.mask.any((1, 2)).tolist() == [3 <= z < 7 for z in range(10)]
  np.testing.assert_array_equal(result.volumes[MR][:3], -1)


def test_usable_is_the_longest_run_with_body(tmp_path):
  body = BODY.copy()
  body[[0, 3, 9]] = False
  write(tmp_path, 'ct', ct_of(body))
  write(tmp_path, 'mr', mr_of(body))
  assert run(case_of(tmp_path, 'ct', 'mr')).case.usable == range(4, 9)


def test_reference_is_the_first_preferred_modality_there_is(tmp_path):
  write(tmp_path, 'ct', ct_of(BODY))
  write(tmp_path, 'mr', mr_of(BODY[::2]), spacing=(2, 2, 8))
  case = case_of(tmp_path, 'ct', 'mr')
  assert run(case, reference=(PET, MR, CT)).case.shape[0] == 5
  assert run(case, reference=(CT, MR)).case.shape[0] == 10


def test_mr_window_is_that_of_the_whole_volume(tmp_path):
  mr = mr_of(BODY)
  mr[:3] *= 10  # bright where CT does not look
  write(tmp_path, 'ct', ct_of(BODY[3:]), origin=(0, 0, 12))
  write(tmp_path, 'mr', mr)
  case = run(case_of(tmp_path, 'ct', 'mr'), reference=(CT,)).case
  assert case.modalities[MR].high > 7000


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'spacing': (2, 2, 5)}, 'its affine differs from ct'),
    ({'origin': (0, 0, 3)}, 'its affine differs from ct'),
    ({'cut': 9}, r'its shape differs from .* \(24, 24, 9\) and \(24, 24, 10\)'),
  ],
)
def test_pair_on_two_grids_needs_a_reference(tmp_path, change, message):
  write(tmp_path, 'ct', ct_of(BODY))
  stack = mr_of(BODY)[: change.pop('cut', None)]
  write(tmp_path, 'mr', stack, **change)
  case = case_of(tmp_path, 'ct', 'mr')
  with pytest.raises(VolumeError, match=rf'mr\.nii\.gz: {message}') as error:
    run(case)
  assert '--reference=ct' in str(error.value)
  assert run(case, reference=(CT,)).case.shape == SHAPE


def test_volumes_that_do_not_overlap_are_named(tmp_path):
  write(tmp_path, 'ct', ct_of(BODY))
  write(tmp_path, 'mr', mr_of(BODY), origin=(0, 0, 400))
  with pytest.raises(
    VolumeError, match=r'mr\.nii\.gz: does not overlap ct\.nii'
  ):
    run(case_of(tmp_path, 'ct', 'mr'), reference=(CT,))


def test_subject_without_enough_body_is_named(tmp_path):
  speck = disc(SHAPE, 1.2)
  write(tmp_path, 'ct', ct_of(speck))
  write(tmp_path, 'mr', mr_of(speck))
  with pytest.raises(VolumeError, match="'p1' has no slice whose body"):
    run(case_of(tmp_path, 'ct', 'mr'))


def test_mr_below_zero_everywhere_is_named(tmp_path):
  write(tmp_path, 'ct', ct_of(BODY))
  write(tmp_path, 'mr', np.where(BODY, 0, -5) * (np.indices(SHAPE)[0] == 0))
  with pytest.raises(VolumeError, match=r'mr\.nii\.gz: no voxel is above'):
    run(case_of(tmp_path, 'ct', 'mr'))


def test_missing_modality_is_named(tmp_path):
  case = case_of(tmp_path, 'ct', 'mr')
  with pytest.raises(VolumeError, match=r"'p1' has ct, mr but no cbct"):
    run(case, required=(Modality.CBCT,))


def test_subject_that_serves_no_route_is_told_the_routes(tmp_path):
  case = case_of(tmp_path, 'mr', 'pet')
  with pytest.raises(
    VolumeError, match=r'both modalities of one of .* mr->ct, ct->mr'
  ):
    run(case)


def dice(a, b):
  return 2 * (a & b).sum() / (a.sum() + b.sum())


def masks(result):
  """The body as each modality alone shows it, in the usable slices."""
  at = slice(result.case.usable.start, result.case.usable.stop)
  return {
    m: body_mask(m, window.denormalise(result.volumes[m]), window)[at]
    for m, window in result.case.modalities.items()
  }


STS = {
  c.subject: c
  for c in folder_cases(DATA / 'sts', dataset='sts', region=Region.WHOLE_BODY)
}


@functools.cache
def leg(subject):
  return run(STS[subject], canvas=128, reference=(CT,))


# The crops hold 10 CT slices, of which the MR covers all but the outer two.
@pytest.mark.parametrize(
  ('subject', 'pixel', 'mr_top', 'share'),
  [
    ('STS_035', 103 * 0.9765625 / 128, 1042, (0.65, 0.70)),
    ('STS_042', 101 * 0.9765625 / 128, 1071, (0.38, 0.45)),
  ],
)
def test_leg_of_ct_mr_and_pet_on_three_grids_aligns(
  subject, pixel, mr_top, share
):
  result = leg(subject)
  case = result.case
  assert case.shape == (10, 128, 128)
  assert case.usable == range(1, 9)
  assert case.modalities[CT] == Window(-1000, 1000)
  assert case.modalities[PET] == Window(0, 10)
  assert case.modalities[MR] == Window(0, mr_top)
  np.testing.assert_allclose(
    np.array(case.affine)[:3, :3], np.diag([-pixel, -pixel, 3.27]), atol=1e-5
  )
  area = result.mask.mean((1, 2))
  assert (area[[0, 9]] == 0).all()
  assert (area[1:9] > share[0]).all()
  assert (area[1:9] < share[1]).all()
  body = masks(result)
  assert dice(body[CT], body[MR]) > 0.95
  assert dice(body[CT], body[PET]) > 0.85


def test_cortical_bone_is_bright_in_ct_and_dark_in_mr_at_one_place():
  result = leg('STS_035')
  bone = (result.volumes[CT] > 0.9) & result.mask  # beyond 900 HU
  mr = (result.volumes[MR] + 1) / 2
  here = np.median(mr[bone])
  beside = np.median(mr[np.roll(bone, 6, axis=2) & result.mask])
  assert here < 0.12
  assert beside > 2 * here


def test_left_leg_has_its_skin_at_the_right_of_the_picture():
  result = leg('STS_042')
  columns = result.mask.any((0, 1)).nonzero()[0]
  full = result.mask[5].sum(0)  # of the left: cut by the crop; right: skin
  assert full[columns[0]] > 100
  assert full[columns[-1]] < 30


def test_brain_in_four_contrasts_aligns():
  (files,) = folder_cases(DATA / 'openms', dataset='ms', region=Region.BRAIN)
  result = run(files, canvas=128)
  assert result.case.usable == range(10)
  assert len(result.case.routes) == 12
  # 87 pixels of 2 mm on 128: the brain's ellipse fills half the canvas.
  np.testing.assert_allclose(result.case.affine[0][0], -2 * 87 / 128)
  assert (np.abs(result.mask.mean((1, 2)) - 0.5) < 0.025).all()
  body = masks(result)
  assert min(dice(body[Modality.T1], other) for other in body.values()) > 0.98
  t2, flair = result.volumes[Modality.T2], result.volumes[Modality.FLAIR]
  fluid = (t2 > 0.6) & result.mask  # bright in T2, suppressed in FLAIR
  assert np.median(flair[fluid]) < np.median(flair[result.mask]) - 0.3


def test_chest_ct_as_metaimage_lies_as_stored():
  volume = read_volume(DATA / 'lung/ct.mha')
  assert volume.data.shape == (57, 78, 10)
  np.testing.assert_allclose(volume.spacing, (2.732, 2.732, 5))
  np.testing.assert_allclose(
    volume.affine[:3, 3], (152.461, 148.986, -1312), atol=1e-3
  )
  slices = to_slices(
    resample(volume, slice_grid(volume, (78, 78)), fill=np.nan)
  )
  # Stored along left and posterior; 21 columns of margin shift it by a half.
  stored = volume.data.transpose(2, 1, 0)
  np.testing.assert_allclose(
    slices[:, :, 11:67], (stored[:, :, 1:] + stored[:, :, :-1]) / 2, atol=0.01
  )


def test_a_mask_of_the_data_is_the_body(tmp_path):
  write(tmp_path / 'p1', 'ct', ct_of(BODY))
  write(tmp_path / 'p1', 'mr', mr_of(BODY))
  outline = disc(SHAPE, 5)
  outline[:3] = False  # neither are slices that it leaves out
  write(tmp_path / 'p1', 'mask', outline)
  (case,) = folder_cases(tmp_path, dataset='study', region=Region.PELVIS)
  result = run(case)
  np.testing.assert_array_equal(result.mask, outline)
  assert result.case.usable == range(3, 10)


def test_a_window_of_the_settings_holds_for_every_volume(tmp_path):
  write(tmp_path / 'p1', 'ct', ct_of(BODY))
  write(tmp_path / 'p1', 'mr', mr_of(BODY))
  windows = {CT: Window(-200.0, 280.0), MR: Window(0.0, 1600.0)}
  case = case_of(tmp_path / 'p1', 'mr', 'ct')
  result = ingest(case, Settings(SliceSpec((24, 24), windows=windows)))
  assert result.case.modalities == windows
  np.testing.assert_allclose(result.volumes[CT], np.where(BODY, 0, -1))
  assert result.volumes[MR].max() < 0  # 800 of 1600 is the middle


@pytest.mark.parametrize(
  'windows',
  [
    {CT: Window(-160.0, 240.0)},
    {CT: Window(-1000.0, 3000.0)},
    {Modality.T1: Window(0.0, 9000.0)},
  ],
)
def test_the_body_does_not_depend_on_the_windows(tmp_path, windows):
  write(tmp_path, 'ct', ct_of(BODY))
  for name in ('mr', 't1', 't2'):
    write(tmp_path, name, mr_of(BODY) // (2 if name == 't2' else 1))
  pair = case_of(tmp_path, 'ct', 'mr')
  if Modality.T1 in windows:
    pair = case_of(tmp_path, 't1', 't2', region=Region.BRAIN)
  result = ingest(pair, Settings(SliceSpec((24, 24), windows=windows)))
  np.testing.assert_array_equal(result.mask, run(pair).mask)
  assert (result.mask ^ BODY).mean() < 0.1
