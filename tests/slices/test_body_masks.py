"""The body mask of the data: on the grid of a volume, and moving with it."""

import numpy as np
import pytest
from volume_files import affine_of, disc, write_nifti

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices import ingest as ingesting
from synermedgen_jax.slices.alignment import Offset
from synermedgen_jax.slices.datasets import folder_cases
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.volumes import VolumeError

CT, MR = Modality.CT, Modality.MR
SHAPE = (10, 24, 24)  # slices, rows, columns, along z, posterior and left
BODY = disc(SHAPE, 7)
OUTLINE = disc(SHAPE, 5)  # unlike what a threshold marks
LPS = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_of((2, 2, 4))
# 8 mm, four columns, too far to the left.
OFF = affine_of(origin=(-8, 0, 0)) @ LPS
BACK = affine_of(origin=(8, 0, 0))


def write(folder, *, mask, ct=LPS, mr=LPS, outline=OUTLINE):
  noise = np.random.default_rng(0).integers(200, 800, SHAPE)
  for name, stack, affine in (
    ('ct', np.where(BODY, 40, -1000), ct),
    ('mr', np.where(BODY, noise, 0), mr),
    ('mask', outline, mask),
  ):
    data = stack.astype(np.int16).transpose(2, 1, 0)
    write_nifti(folder / 'p' / f'{name}.nii.gz', data, affine)


def taken(root, **options):
  (files,) = folder_cases(root, dataset='study', region=Region.PELVIS)
  return ingest(files, Settings(SliceSpec((24, 24)), **options))


@pytest.fixture
def registered(monkeypatch):
  """CT is off by 8 mm, and a registration lays it back."""
  offsets = iter([Offset((-8.0, 0, 0), gain=1.0), Offset((0, 0, 0), gain=0.0)])
  monkeypatch.setattr(ingesting, 'estimate_offset', lambda *_: next(offsets))
  monkeypatch.setattr(ingesting, 'register_rigid', lambda *_: BACK)


def test_a_mask_moves_with_the_volume_on_which_it_was_drawn(
  tmp_path, registered
):
  write(tmp_path, ct=OFF, mask=OFF)
  result = taken(tmp_path, reference=(MR,), register='rigid')
  assert result.case.transforms.keys() == {CT}
  np.testing.assert_array_equal(result.mask, OUTLINE)


def test_a_mask_on_the_reference_stays_where_it_is(tmp_path, registered):
  write(tmp_path, ct=OFF, mask=LPS)
  result = taken(tmp_path, reference=(MR,), register='rigid')
  assert result.case.transforms.keys() == {CT}
  np.testing.assert_array_equal(result.mask, OUTLINE)


def test_a_mask_on_the_grid_of_another_volume_is_resampled(tmp_path):
  # MR misses the outer columns, the mask is CT's.
  write(tmp_path, mr=affine_of((-2, -2, 4), (-4, 0, 0)), mask=LPS)
  result = taken(tmp_path, reference=(MR,), most_offset=0.0)
  np.testing.assert_array_equal(result.mask[:, :, :-2], OUTLINE[:, :, 2:])


@pytest.mark.parametrize(
  ('affine', 'outline', 'message'),
  [
    (affine_of((-2, -2, 4), (6, 0, 0)), OUTLINE, 'its affine differs from ct'),
    (affine_of((2, -2, 4)), OUTLINE, 'its affine differs from ct'),
    (LPS, OUTLINE[:9], 'its shape differs from ct'),
  ],
)
def test_a_mask_of_another_grid_is_refused_by_its_name(
  tmp_path, affine, outline, message
):
  write(tmp_path, mask=affine, outline=outline)
  with pytest.raises(
    VolumeError, match=rf'p/mask\.nii\.gz: {message}'
  ) as error:
    taken(tmp_path)
  assert "resample the mask onto one of the volumes of subject 'p'" in str(
    error.value
  )
  assert '\n' not in str(error.value)
