"""The preview of a prediction: three planes, oriented as in radiology."""

from pathlib import Path

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference.predicting import Written
from synermedgen_jax.inference.prediction import Findings, Prediction
from synermedgen_jax.inference.prediction_inputs import Request
from synermedgen_jax.reporting.preview import preview
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

# Voxels of 2 x 1 x 3 mm; the first axis runs to the left, as in LAS.
AFFINE = np.diag([-2.0, 1.0, 3.0, 1.0])
# 8 mm right, 4 mm anterior and 12 mm superior of the centre.
SPOTS = {'right': (1, 5, 4), 'anterior': (5, 9, 4), 'superior': (5, 5, 8)}


@pytest.fixture
def figure():
  """A body of 40 HU whose centre is (5, 5, 4), with three bright spots."""
  data = np.full((11, 11, 9), 40.0, np.float32)
  for spot in SPOTS.values():
    data[spot] = 900
  cbct = Volume(data, AFFINE)
  prediction = Prediction(
    Volume(data / 2, AFFINE), Window(-1000.0, 1000.0), Findings()
  )
  request = Request(
    'anna',
    route_named('brain_cbct_to_ct'),
    {Modality.CBCT: Path('cbct.nii')},
    Path('ct.nii'),
  )
  return preview(Written(request, {Modality.CBCT: cbct}, prediction))


def image(figure, row, column):
  return np.asarray(figure.axes[2 * row + column].get_images()[0].get_array())


def bright(picture):
  """(row from the bottom, column from the left) of the bright pixels."""
  return {tuple(map(int, place)) for place in np.argwhere(picture == 900)}


def test_planes_are_oriented_as_in_radiology(figure):
  # The patient's right is the left of the picture: column 1 of 0 to 10.
  assert bright(image(figure, 0, 0)) == {(5, 1), (9, 5)}
  assert bright(image(figure, 1, 0)) == {(4, 1), (8, 5)}
  # Sagittal: anterior on the right.
  assert bright(image(figure, 2, 0)) == {(4, 9), (8, 5)}


def test_pixels_have_their_size_and_both_columns_their_values(figure):
  aspects = [figure.axes[2 * row].get_aspect() for row in range(3)]
  assert aspects == pytest.approx([1 / 2, 3 / 2, 3 / 1])
  for row in range(3):
    np.testing.assert_array_equal(
      image(figure, row, 1), image(figure, row, 0) / 2
    )
  assert [ax.get_title() for ax in figure.axes[:2]] == ['CBCT', 'synthetic CT']
  assert 'not for diagnosis' in figure.get_suptitle()
