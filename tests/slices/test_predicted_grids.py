"""The output of predict lies on the grid of its input: crops and a series."""

from pathlib import Path

import commands
import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_series

from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.slices.volumes import Volume, read_volume

DATA = Path(__file__).parents[1] / 'data'
CROPS = [*sorted(DATA.glob('*/*/*.nii.gz')), DATA / 'lung' / 'ct.mha']

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture
def predicted(nano_runs, tmp_path, monkeypatch):
  """Predicts a CT from a CBCT with a model that copies slices."""

  def synthesise(self, route, sources, *, seed, progress):
    progress(sources.shape[1])
    return sources[0]

  def predict(source):
    output = tmp_path / 'ct.nii.gz'
    code, _, err = commands.run(
      'predict',
      f'--workdir={nano_runs}/stage2',
      *('-i', source, '-o', output, '--force', '--noread'),
      *('--source=cbct', '--target=ct', '--region=pelvis'),
    )
    assert code == 0, err
    image = nib.load(output)
    return Volume(image.get_fdata(), image.affine)

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)
  return predict


@pytest.mark.parametrize(
  'path', CROPS, ids=lambda p: f'{p.parent.name}-{p.name}'
)
def test_a_real_crop(predicted, path):
  volume = predicted(path)
  if path.name.endswith('.nii.gz'):
    given = nib.load(path)
    given = Volume(given.get_fdata(), given.affine)
  else:
    given = read_volume(path)
  assert volume.data.shape == given.data.shape
  np.testing.assert_allclose(volume.corners, given.corners, atol=0.01)


def test_a_dicom_series_of_a_crop(predicted, tmp_path):
  crop = nib.load(DATA / 'sts' / 'STS_042' / 'ct.nii.gz')
  data = np.rint(crop.get_fdata())
  write_series(tmp_path / 'series', Volume(data, crop.affine), 'CT')
  volume = predicted(tmp_path / 'series')
  # The axes of a series may run the other way; its corners are the same.
  assert volume.data.shape == data.shape
  given = Volume(data, crop.affine)
  np.testing.assert_allclose(
    *(np.sort(v.corners.round(6), axis=0) for v in (volume, given)), atol=0.01
  )
