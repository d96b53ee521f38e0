"""On real headers and real voxels: places and values survive the store."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from volume_files import write_nifti

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.store import SliceStore, StoreWriter
from synermedgen_jax.slices.volumes import read_volume

DATA = Path(__file__).parents[1] / 'data'
CT, PET, T1, T2 = Modality.CT, Modality.PET, Modality.T1, Modality.T2
SUBJECTS = {
  'legs': ('sts/STS_035', Region.WHOLE_BODY, (CT, PET)),
  'leg': ('sts/STS_042', Region.WHOLE_BODY, (CT, PET)),
  'brain': ('openms/patient26', Region.BRAIN, (T1, T2)),
}
LEVELS = 65535
UNITS = {CT: (-400, 400), PET: (1, 9), T1: (150, 950), T2: (150, 950)}


def real_files(name):
  folder, region, modalities = SUBJECTS[name]
  files = {m: DATA / folder / f'{m}.nii.gz' for m in modalities}
  return region, files


def stored(tmp_path, region, files, settings):
  """The one case of a store that was written, closed, and opened again."""
  case = CaseFiles('real', 'p1', region, files)
  result = ingest(case, settings)
  writer = StoreWriter(str(tmp_path / 'store'), settings.slices.to_json())
  writer.write_case(result.case, result.volumes, result.mask)
  writer.finish({result.case.id: 'train'})
  store = SliceStore.open(str(tmp_path / 'store'))
  return store, store.cases[0]


def centre(weights, affine):
  """Centre of mass in the world, mm."""
  places = np.indices(weights.shape).reshape(3, -1)
  mean = places @ weights.ravel() / weights.sum()
  return (affine @ [*mean, 1])[:3]


def blob(image, place):
  """A soft ball about a place of the world, on the grid of an image."""
  i, j, k = np.indices(image.shape)
  points = np.stack([i, j, k, np.ones_like(i)], -1) @ image.affine.T
  away = np.linalg.norm(points[..., :3] - place, axis=-1)
  return np.exp(-((away / 9.0) ** 2))


@pytest.mark.parametrize('plane', PLANES)
@pytest.mark.parametrize('name', SUBJECTS)
def test_a_place_in_the_world_stays_where_it_is(tmp_path, name, plane):
  region, files = real_files(name)
  reference = next(iter(files))
  image = nib.load(files[reference])
  # Not in the middle, where a mirrored axis would not be noticed.
  voxel = np.asarray(image.shape) * (0.4, 0.62, 0.45)
  place = (image.affine @ [*voxel, 1])[:3]
  moved = {}
  for number, (modality, path) in enumerate(files.items()):
    own = nib.load(path)
    # Body everywhere, and the middle of the window in the ball.
    low, high = UNITS[modality]
    # No two volumes alike: a copy of another modality would be refused.
    data = low + (high - low) * (1 - 0.01 * number) * blob(own, place)
    moved[modality] = write_nifti(
      tmp_path / path.name, data.astype(np.float32), own.affine
    )
  settings = Settings(
    SliceSpec((64, 64), plane),
    reference=(reference,),
    most_offset=0.0,
    check_units=False,  # neither air nor a table: a ball in a body
  )
  store, case = stored(tmp_path, region, moved, settings)
  for modality in moved:
    result = store.read_volume(case.id, modality)
    low, high = case.modalities[modality].normalise(np.array(UNITS[modality]))
    ball = np.clip(result - (0.7 * low + 0.3 * high), 0, None)
    at = centre(ball.transpose(2, 1, 0), np.asarray(case.affine))
    voxels = np.linalg.inv(nib.load(moved[modality]).affine)[:3, :3]
    assert np.abs(voxels @ (at - place)).max() < 0.5, (modality, at, place)


@pytest.mark.parametrize(
  ('name', 'modality', 'canvas'), [('legs', CT, 103), ('leg', PET, 21)]
)
def test_values_survive_to_half_a_level_of_the_window(
  tmp_path, name, modality, canvas
):
  """0.015 HU and 0.00008 SUV: 16 bits over the window.

  The canvas has the volume's own pixels, so nothing is interpolated.
  """
  region, files = real_files(name)
  settings = Settings(
    SliceSpec((canvas, canvas)), reference=(modality,), most_offset=0.0
  )
  store, case = stored(tmp_path, region, files, settings)
  window = case.modalities[modality]
  result = window.denormalise(store.read_volume(case.id, modality))
  # Stored towards left and posterior, as these pictures are.
  volume = read_volume(files[modality]).data.transpose(2, 1, 0)
  rows, columns = volume.shape[1:]
  top, left = (canvas - rows) // 2, (canvas - columns) // 2
  inner = result[:, top : top + rows, left : left + columns]
  bound = (window.high - window.low) / LEVELS / 2
  error = np.abs(inner - volume.clip(window.low, window.high))
  assert error.max() <= bound * 1.01  # float32 of the units
  assert np.unique(volume.round(2)).size > 100  # there was something to lose
