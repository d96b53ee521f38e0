"""Findings in phantoms' slices: for hand-made tissues, and for a phantom."""

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.phantoms import cohorts
from synermedgen_jax.phantoms.truth import findings
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.store import Case
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

# Columns run to the patient's left, rows to posterior, as in a store.
LPS = ((-2, 0, 0, 19), (0, -2, 0, 19), (0, 0, 5, 0), (0, 0, 0, 1))
RAS = np.diag([2.0, 2.0, 5.0, 1.0])
RAS[:2, 3] = -19


def case(**values):
  plain = {
    'id': 'x.x_000',
    'dataset': 'x',
    'subject': 'x_000',
    'region': Region.BRAIN,
    'split': 'train',
    'modalities': {Modality.T2: Window(0.0, 1.0)},
    'sources': {Modality.T2: 't2.nii.gz'},
    'shape': (3, 20, 20),
    'affine': LPS,
    'plane': 'axial',
    'usable': range(3),
  }
  return Case(**plain | values)


def tissues(place):
  """A box of muscle, 32 mm a side, with rim at `place` in the slice 1."""
  shape = (20, 20, 3)
  fractions = {
    name: np.zeros(shape, np.float32) for name in ('air', 'muscle', 'rim')
  }
  fractions['muscle'][2:18, 2:18] = 1
  fractions['rim'][(*place, 1)] = 1
  fractions['muscle'] -= fractions['rim']
  fractions['air'] = 1 - fractions['muscle'] - fractions['rim']
  return fractions


def test_areas_and_sides_of_a_box():
  # The first axis of the painted grid runs to the patient's right.
  right = findings(case(), tissues((slice(12, 16), slice(5, 10))), RAS)
  assert [f.lesions for f in right] == [0, 1, 0]
  assert right[1].lesion_mm2 == pytest.approx(4 * 5 * 4)
  assert right[1].right == pytest.approx(1)
  # Its centre at x = 8, the middle of the body at 0.
  assert right[1].offset == pytest.approx(8, abs=0.1)
  left = findings(case(), tissues((slice(4, 8), slice(5, 10))), RAS)
  assert left[1].right == pytest.approx(0)
  assert left[1].offset == pytest.approx(-8, abs=0.1)
  assert right[0].right == left[2].right == 0.5


def test_the_patients_right_is_on_the_left_of_the_picture():
  finding = findings(case(), tissues((slice(12, 16), slice(5, 10))), RAS)[1]
  columns = np.flatnonzero(finding.lesion.any(axis=0))
  assert columns.max() < 10
  # Anterior is up: y = 10 to 20 of 40 mm lies below the middle row.
  assert np.flatnonzero(finding.lesion.any(axis=1)).min() >= 10


def test_the_middle_is_that_of_the_body_not_of_the_picture():
  fractions = {
    name: np.roll(f, 2, axis=0)
    for name, f in tissues((slice(9, 11), slice(5, 10))).items()
  }
  finding = findings(case(), fractions, RAS)[1]
  assert finding.offset == pytest.approx(0, abs=0.2)


def test_two_pieces_are_counted():
  fractions = tissues((slice(4, 8), slice(5, 10)))
  fractions['rim'][12:16, 5:10, 1] = 1
  assert findings(case(), fractions, RAS)[1].lesions == 2


@pytest.fixture(scope='module')
def brats(tmp_path_factory):
  """A phantom as the store has it, and what is known of its slices."""
  cohort, seed, subject = 'brats', 0, 2
  folder = tmp_path_factory.mktemp('phantom')
  volumes, files = {}, {}
  for modality, image in cohorts.render_phantom(cohort, seed, subject).items():
    volumes[modality] = Volume(image.get_fdata(dtype=np.float32), image.affine)
    files[modality] = folder / f'{modality}.nii.gz'
  ingested = ingest(
    CaseFiles(cohort, 'brats_002', Region.BRAIN, files),
    Settings(SliceSpec((64, 64)), most_offset=0),
    volumes,
  )
  anatomy = cohorts.render_anatomy(cohort, seed, subject)
  return ingested, findings(ingested.case, *anatomy)


def test_lesions_lie_where_flair_is_bright(brats):
  ingested, truth = brats
  lesion = np.stack([f.lesion for f in truth]) > 0.8
  flair = ingested.volumes[Modality.FLAIR]
  brain = ingested.mask & ~lesion
  assert lesion.sum() > 50
  assert flair[lesion].mean() > flair[brain].mean() + 0.3


def test_a_mirrored_truth_would_not_fit(brats):
  # What a mistake of sides would look like.
  ingested, truth = brats
  lesion = np.stack([f.lesion for f in truth]) > 0.8
  flair = ingested.volumes[Modality.FLAIR]
  assert flair[lesion].mean() > flair[lesion[:, :, ::-1]].mean() + 0.3


def test_the_side_is_that_of_the_lesions_columns(brats):
  _, truth = brats
  sided = [f for f in truth if f.lesion_mm2 > 120 and abs(f.offset) > 12]
  assert sided
  for f in sided:
    columns = (f.lesion.sum(axis=0) * np.arange(64)).sum() / f.lesion.sum()
    assert (columns < 32) == (f.offset > 0)


def test_the_brain_is_the_largest_organ_of_a_head(brats):
  ingested, truth = brats
  middle = truth[
    sum((ingested.case.usable.start, ingested.case.usable.stop)) // 2
  ]
  assert max(middle.organs, key=middle.organs.get) == 'brain'
  assert 5_000 < middle.organs['brain'] < 20_000
