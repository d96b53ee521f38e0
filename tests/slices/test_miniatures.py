"""Every public dataset in miniature, with real files, from disk to slices.

`test_public_datasets.py` has the names; here are the voxels, written in all
the ways that the sets and their copies are known to have.
"""

import dataclasses
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import disc, write_nifti

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices import nifti
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.public_datasets import find_cases
from synermedgen_jax.slices.volumes import VolumeError

SIDE, DEPTH = 24, 6
SHAPE = (SIDE, SIDE, DEPTH)
BODY = disc((DEPTH, SIDE, SIDE), 9).transpose(2, 1, 0)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = LPS @ np.array(  # of a head that is not in the middle of the scanner
  [[2, 0, 0, -11], [0, 2, 0, -30], [0, 0, 4, 120], [0, 0, 0, 1.0]]
)


@dataclasses.dataclass(frozen=True)
class Miniature:
  """One case of a dataset: its files, and modality by file."""

  files: dict[Modality, str]

  @property
  def source(self) -> Modality:
    return next(iter(self.files))


MINIATURES = {
  'synthrad2023': Miniature(
    {
      Modality.MR: 'Task1/brain/1BA000/mr.nii.gz',
      Modality.CT: 'Task1/brain/1BA000/ct.nii.gz',
    }
  ),
  'synthrad2025': Miniature(
    {
      Modality.CBCT: 'Task2/TH/2THE099/cbct.mha',
      Modality.CT: 'Task2/TH/2THE099/ct.mha',
    }
  ),
  'brats': Miniature(
    {
      Modality.T1: 'BraTS-GLI-00005-000/BraTS-GLI-00005-000-t1n.nii.gz',
      Modality.T2: 'BraTS-GLI-00005-000/BraTS-GLI-00005-000-t2w.nii.gz',
    }
  ),
  'autopet': Miniature(
    {
      Modality.PET: 'PETCT_01/02-03-2004 head/SUV.nii.gz',
      Modality.CT: 'PETCT_01/02-03-2004 head/CTres.nii.gz',
    }
  ),
  'myops': Miniature(
    {
      Modality.BSSFP: 'train25/myops_training_101_C0.nii.gz',
      Modality.LGE: 'train25/myops_training_101_DE.nii.gz',
    }
  ),
  'ibsi_sts': Miniature(
    {
      Modality.MR: 'nifti/STS_001/MR_T1_image.nii.gz',
      Modality.CT: 'nifti/STS_001/CT_image.nii.gz',
    }
  ),
}
NIFTI_SETS = [name for name in MINIATURES if name != 'synthrad2025']


def values(modality: Modality) -> np.ndarray:
  """[x, y, z] in the unit of the modality; no two places in the body alike."""
  # 0 to 1, rising to the left, the back and the head alike.
  ramp = np.add.outer(np.add.outer(np.arange(24), np.arange(24)), np.arange(6))
  ramp = ramp / ramp.max()
  if modality in (Modality.CT, Modality.CBCT):
    low = -400 if modality is Modality.CT else -380
    return np.where(BODY, low + 1200 * ramp, -1000).round()
  if modality is Modality.PET:
    return np.where(BODY, 0.5 + 8 * ramp, 0)
  low = 250 if modality in (Modality.T2, Modality.LGE) else 200
  return np.where(BODY, low + 600 * ramp, 0).round()


def write(path: Path, data: np.ndarray, affine=AFFINE, **codes) -> Path:
  """NIfTI, or MetaImage in ITK's axes."""
  if path.suffix != '.mha':
    return write_nifti(path, data, affine, **codes)
  image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
  itk = LPS @ affine
  spacing = np.linalg.norm(itk[:3, :3], axis=0)
  image.SetSpacing(spacing)
  image.SetDirection((itk[:3, :3] / spacing).ravel())
  image.SetOrigin(itk[:3, 3])
  path.parent.mkdir(parents=True, exist_ok=True)
  sitk.WriteImage(image, str(path))
  return path


def lay_out(root: Path, name: str, **changed) -> dict[Modality, Path]:
  """Writes a case as `float32`; `changed` replaces arguments of its source."""
  miniature, paths = MINIATURES[name], {}
  for modality, file in miniature.files.items():
    arguments = {'data': values(modality).astype(np.float32)}
    if modality == miniature.source:
      arguments |= changed
    paths[modality] = write(root / file, **arguments)
  return paths


def taken(name: str, root: Path):
  (case,) = find_cases(name, root)
  return ingest(case, Settings(SliceSpec((SIDE, SIDE))))


def expected(result, modality: Modality) -> np.ndarray:
  """The case's slices by hand: voxel [x, y, z] is slice z, row y, column x."""
  return result.case.modalities[modality].normalise(
    values(modality).transpose(2, 1, 0)
  )


def assert_as_written(result, *, atol=1e-5):
  assert result.case.usable == range(DEPTH)
  for modality, slices in result.volumes.items():
    np.testing.assert_allclose(slices, expected(result, modality), atol=atol)
  np.testing.assert_allclose(result.case.affine, AFFINE, atol=1e-4)


@pytest.mark.parametrize('name', MINIATURES)
def test_a_miniature_goes_in_as_it_was_written(tmp_path, name):
  lay_out(tmp_path, name)
  assert_as_written(taken(name, tmp_path))


@pytest.mark.parametrize('name', MINIATURES)
@pytest.mark.parametrize('axes', ['RAS', 'RAI', 'PIR', 'LPI'])
def test_the_order_of_axes_on_disk_does_not_matter(tmp_path, name, axes):
  image = nib.Nifti1Image(values(MINIATURES[name].source), AFFINE)
  image = image.as_reoriented(
    nib.orientations.ornt_transform(
      nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes)
    )
  )
  data = np.asarray(image.dataobj, np.float32)
  lay_out(tmp_path, name, data=data, affine=image.affine)
  (case,) = find_cases(name, tmp_path)
  # Of two grids, the one named is taken.
  other = next(m for m in case.files if m != MINIATURES[name].source)
  result = ingest(case, Settings(SliceSpec((SIDE, SIDE)), reference=(other,)))
  assert_as_written(result, atol=1e-4)


@pytest.mark.parametrize('name', NIFTI_SETS)
@pytest.mark.parametrize(
  'codes', [{'sform': 0}, {'qform': 0}, {'sform': 2, 'qform': 1}]
)
def test_either_transform_of_the_header_will_do(tmp_path, name, codes):
  lay_out(tmp_path, name, **codes)
  assert_as_written(taken(name, tmp_path))


@pytest.mark.parametrize('name', NIFTI_SETS)
def test_slope_and_intercept_apply(tmp_path, name):
  data = values(MINIATURES[name].source)
  stored = np.round((data + 1024) / 0.5).astype(np.uint16)
  lay_out(tmp_path, name, data=stored, slope=0.5, inter=-1024)
  # PET's SUV are not multiples of the slope.
  assert_as_written(taken(name, tmp_path), atol=0.25 / 4)


@pytest.mark.parametrize('name', ['synthrad2023', 'brats', 'myops'])
@pytest.mark.parametrize('dtype', [np.uint16, np.int16, np.float32])
def test_any_real_type_will_do(tmp_path, name, dtype):
  lay_out(tmp_path, name, data=values(MINIATURES[name].source).astype(dtype))
  assert_as_written(taken(name, tmp_path))


@pytest.mark.parametrize('name', ['synthrad2025', 'autopet', 'synthrad2023'])
def test_a_ct_below_minus_1024_is_air(tmp_path, name):
  paths = lay_out(tmp_path, name)
  ct = values(Modality.CT)
  ct[~BODY] = -3024  # beyond the round field of view
  write(paths[Modality.CT], ct.astype(np.int16))
  assert_as_written(taken(name, tmp_path))


@pytest.mark.parametrize('name', ['brats', 'myops'])
def test_a_z_scored_volume_keeps_its_negative_half(tmp_path, name):
  source = MINIATURES[name].source
  data = values(source)
  scored = np.where(BODY, (data - data[BODY].mean()) / data[BODY].std(), 0)
  lay_out(tmp_path, name, data=scored.astype(np.float32))
  result = taken(name, tmp_path)
  window = result.case.modalities[source]
  assert window.low < -1 < 1 < window.high
  inside = BODY.transpose(2, 1, 0)
  shown = window.denormalise(result.volumes[source])[inside]
  wanted = scored.transpose(2, 1, 0)[inside].clip(window.low, window.high)
  np.testing.assert_allclose(shown, wanted, atol=1e-4)


@pytest.mark.parametrize('name', MINIATURES)
def test_empty_slices_are_not_used(tmp_path, name):
  for modality, path in lay_out(tmp_path, name).items():
    data = values(modality)
    data[..., :2] = data.min()
    write(path, data.astype(np.float32))
  assert taken(name, tmp_path).case.usable == range(2, DEPTH)


def four_dimensional(path: Path) -> None:
  data = values(Modality.MR)[..., None].repeat(2, axis=-1)
  nib.save(nib.Nifti1Image(data.astype(np.int16), AFFINE), path)


def not_numbers(path: Path) -> None:
  data = values(Modality.MR).astype(np.float32)
  data[3, 4, 5] = np.nan
  write(path, data)


def truncated(path: Path) -> None:
  path.write_bytes(path.read_bytes()[:-40])


def constant(path: Path) -> None:
  write(path, np.full(SHAPE, 7, np.int16))


def another_shape(path: Path) -> None:
  write(path, values(Modality.MR)[:, :-2].astype(np.float32))


def not_a_volume(path: Path) -> None:
  path.write_bytes(gzip.compress(b'Not a volume.' * 99))


def damaged_gzip(path: Path) -> None:
  packed = bytearray(path.read_bytes())
  packed[-8:] = bytes(8)  # checksum and length
  path.write_bytes(bytes(packed))


BROKEN = {
  four_dimensional: 'has shape (24, 24, 6, 2)',
  not_numbers: '1 of 3456 voxels are NaN',
  truncated: 'cannot be read, truncated',
  constant: 'is empty, every voxel is 7',
  not_a_volume: 'has no NIfTI header',
  damaged_gzip: 'cannot be read',
}


@pytest.mark.parametrize('name', NIFTI_SETS)
@pytest.mark.parametrize('spoil', BROKEN)
def test_a_broken_file_is_named(tmp_path, name, spoil):
  path = lay_out(tmp_path, name)[MINIATURES[name].source]
  spoil(path)
  with pytest.raises(VolumeError) as error:
    taken(name, tmp_path)
  assert str(error.value).startswith(f'{path}: ')
  assert BROKEN[spoil] in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['synthrad2023', 'synthrad2025'])
def test_contrasts_of_different_shape_are_named(tmp_path, name):
  """The sets with a reference of their own resample instead."""
  paths = lay_out(tmp_path, name)
  another_shape(paths[MINIATURES[name].source])
  with pytest.raises(VolumeError, match=r'its shape differs from .*\(24, 22'):
    taken(name, tmp_path)


@pytest.mark.parametrize('name', ['brats', 'autopet', 'myops', 'ibsi_sts'])
def test_contrasts_of_different_shape_are_resampled(tmp_path, name):
  paths = lay_out(tmp_path, name)
  source = MINIATURES[name].source
  reference = find_cases(name, tmp_path)[0].reference[0]
  other = next(m for m in paths if m != reference)
  # The last rows, which are background, are not there.
  cut = values(other)[:, :-2].astype(np.float32)
  write(paths[other], cut)
  result = taken(name, tmp_path)
  assert result.case.shape == (DEPTH, SIDE, SIDE)
  for modality in (other, source):
    np.testing.assert_allclose(
      result.volumes[modality], expected(result, modality), atol=1e-4
    )


@pytest.mark.parametrize('name', NIFTI_SETS)
def test_a_file_that_may_not_be_read_is_named(tmp_path, name, monkeypatch):
  """Not by its permissions, which root may ignore."""
  path = lay_out(tmp_path, name)[MINIATURES[name].source]

  def refuse(file, mode):
    if Path(file) == path:
      raise PermissionError(13, 'Permission denied', str(file))
    return open(file, mode)

  monkeypatch.setattr(nifti, 'open', refuse, raising=False)
  with pytest.raises(VolumeError, match='Permission denied') as error:
    taken(name, tmp_path)
  assert str(error.value).startswith(f'{path}: ')


@pytest.mark.parametrize('name', MINIATURES)
def test_a_case_without_its_partner_is_passed_over(tmp_path, name):
  paths = lay_out(tmp_path, name)
  for path in list(paths.values())[1:]:
    path.unlink()
  with pytest.raises(ValueError, match=f'holds no pair of {name}'):
    find_cases(name, tmp_path)


def test_the_mask_of_a_case_is_its_body(tmp_path):
  """SynthRAD's masks are what its challenge scores within."""
  path = next(iter(lay_out(tmp_path, 'synthrad2023').values()))
  mask = disc((DEPTH, SIDE, SIDE), 6)
  write(path.with_name('mask.nii.gz'), mask.transpose(2, 1, 0).astype(np.uint8))
  np.testing.assert_array_equal(taken('synthrad2023', tmp_path).mask, mask)
