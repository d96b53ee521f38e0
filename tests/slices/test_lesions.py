"""Lesions of slices: sides, areas, and masks that are refused."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
from volume_files import affine_of, disc, turned, write_nifti

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.phantoms import cohorts
from synermedgen_jax.phantoms.truth import findings
from synermedgen_jax.slices import ingest as ingesting
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.datasets import CaseFiles, folder_cases
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.lesions import SliceLesions, measure_lesions
from synermedgen_jax.slices.store import SliceStore, StoreError, StoreWriter
from synermedgen_jax.slices.volumes import Volume, VolumeError
from synermedgen_jax.tasks.facts import facts_of, side_of

CT, MR = Modality.CT, Modality.MR
# Arrays along right, anterior, superior: 24 x 24 x 10 voxels of 4, 4 and 5 mm.
AFFINE = affine_of((4, 4, 5), (-46, -46, 100))
BODY = disc((10, 24, 24), 9).transpose(2, 1, 0)
# Columns run to the left, rows to posterior: x is 46 - 4 * column.
LPS = np.diag([-4.0, -4.0, 5.0, 1.0])
LPS[:2, 3] = 46


def box(columns, rows=slice(10, 14), slices=slice(6, 9)):
  lesion = np.zeros(BODY.shape, bool)
  lesion[columns, rows, slices] = True
  return lesion


RIGHT, LEFT = slice(16, 20), slice(4, 8)  # x = 18 to 30 mm, and -30 to -18


def write(folder, lesion, axes='RAS', *, name='lesion', affine=AFFINE):
  """CT and MR of a cylinder, with a lesion that both show, and its mask."""
  noise = np.random.default_rng(0).integers(200, 400, BODY.shape)
  volumes = {
    'ct': np.where(BODY, 40 + 300 * lesion, -1000),
    'mr': np.where(BODY, noise + 400 * lesion, 0),
    name: lesion,
  }
  for stem, data in volumes.items():
    volume = turned(Volume(data.astype(np.float32), affine), axes)
    write_nifti(folder / f'{stem}.nii.gz', volume.data, volume.affine)
  return folder


def taken(root, *, plane='axial', frame='volume', canvas=24, **settings):
  (files,) = folder_cases(root, dataset='study', region=Region.PELVIS)
  spec = SliceSpec((canvas, canvas), plane, frame)
  options = {'most_offset': 0.0, 'check_units': False} | settings
  return ingest(files, Settings(spec, **options)).case


@pytest.mark.parametrize('axes', ['RAS', 'LPS', 'PIR', 'LAI'])
@pytest.mark.parametrize('frame', ['volume', 'body'])
@pytest.mark.parametrize(
  ('columns', 'side', 'offset'), [(RIGHT, 'right', 24), (LEFT, 'left', -24)]
)
def test_a_side_is_the_patients_in_every_orientation(
  tmp_path, axes, frame, columns, side, offset
):
  write(tmp_path / 'p', box(columns), axes)
  case = taken(tmp_path, frame=frame)
  assert list(case.lesions) == [6, 7, 8]
  for index, lesions in case.lesions.items():
    assert lesions.offset == pytest.approx(offset, abs=1)
    # Four by four voxels of 4 mm.
    assert lesions.area == pytest.approx(256, rel=0.02)
    assert lesions.count == 1
    assert lesions.right == (side == 'right')
    facts = facts_of(case, CT, index)
    assert (facts.lesion, facts.side) == ('yes', side)
    assert facts.level == ('middle third' if index == 6 else 'upper third')


@pytest.mark.parametrize('plane', ['coronal', 'sagittal'])
@pytest.mark.parametrize('axes', ['RAS', 'LPS'])
def test_the_midline_does_not_depend_on_the_plane(tmp_path, axes, plane):
  write(tmp_path / 'p', box(RIGHT), axes)
  case = taken(tmp_path, plane=plane)
  offsets = [lesions.offset for lesions in case.lesions.values()]
  assert np.mean(offsets) == pytest.approx(24, abs=1)
  assert {side_of(lesions) for lesions in case.lesions.values()} == {'right'}
  # Rows 10 to 13 from posterior are slices 10 to 13 from anterior; columns 16
  # to 19 from the left are slices 4 to 7 from the right... to the left.
  assert list(case.lesions) == (
    [10, 11, 12, 13] if plane == 'coronal' else [4, 5, 6, 7]
  )


def test_a_mask_of_zeros_states_that_there_is_no_lesion(tmp_path):
  write(tmp_path / 'p', box(slice(0, 0)))
  case = taken(tmp_path)
  assert case.lesions == {}
  assert facts_of(case, CT, 5).lesion == 'no'


def test_without_a_mask_nothing_is_known(tmp_path):
  write(tmp_path / 'p', box(RIGHT), name='lesion_seg')
  case = taken(tmp_path)
  assert case.lesions is None
  assert facts_of(case, CT, 7).lesion == ''


def change(folder, data=None, affine=None, name='lesion.nii.gz'):
  image = nib.load(folder / name)
  data = np.asarray(image.dataobj) if data is None else data
  return write_nifti(
    folder / name, data, image.affine if affine is None else affine
  )


MASK = box(RIGHT).astype(np.float32)


@pytest.mark.parametrize(
  ('data', 'affine', 'message'),
  [
    (MASK * 0.5, None, r'has the value 0\.5; expected .* of 0 and 1\.'),
    (MASK * 2, None, r'has the value 2; expected'),
    (-MASK, None, r'has the value -1; expected'),
    (np.where(MASK > 0, np.nan, 0), None, r'48 of 5760 voxels are NaN'),
    (MASK * 0 + 1, None, r'is empty, every voxel is 1'),
    (MASK[:-1], None, r'its shape differs from ct\.nii\.gz .* remove it\.'),
    (MASK, affine_of((4, 4, 5), (-46, -46, 105)), r'its affine differs'),
    (MASK, np.diag([4.0, 4.0, -5.0, 1.0]), r'its affine differs from ct'),
  ],
)
def test_a_mask_that_is_not_clear_is_refused_by_its_name(
  tmp_path, data, affine, message
):
  change(write(tmp_path / 'p', box(RIGHT)), data, affine)
  with pytest.raises(
    VolumeError, match=rf'p/lesion\.nii\.gz: {message}'
  ) as error:
    taken(tmp_path)
  assert '\n' not in str(error.value)


def test_other_labels_may_be_stated(tmp_path):
  change(write(tmp_path / 'p', box(RIGHT)), MASK * 4)
  (files,) = folder_cases(tmp_path, dataset='study', region=Region.PELVIS)
  files = dataclasses.replace(files, lesion_labels=(1, 4))
  settings = Settings(SliceSpec((24, 24)), most_offset=0, check_units=False)
  assert list(ingest(files, settings).case.lesions) == [6, 7, 8]


def test_a_mask_moves_with_the_volume_on_which_it_was_drawn(
  tmp_path, monkeypatch
):
  """MR lies 8 mm too far to the right, on a grid of its own, with the mask."""
  folder = write(tmp_path / 'p', box(RIGHT))
  moved_affine = affine_of((4, 4, 5), (-38, -46, 100))
  for name in ('mr.nii.gz', 'lesion.nii.gz'):
    change(folder, affine=moved_affine, name=name)
  back = affine_of((1, 1, 1), (-8, 0, 0))
  offsets = iter([8.0, 0.0])

  class Offset:
    orientation = ''

    def __init__(self, distance):
      self.distance = distance

    def relative_to(self, name):
      return f'{self.distance} mm off {name}'

  monkeypatch.setattr(
    ingesting, 'estimate_offset', lambda *_: Offset(next(offsets))
  )
  monkeypatch.setattr(ingesting, 'register_rigid', lambda *_: back)
  case = taken(tmp_path, reference=(CT,), register='rigid', most_offset=6.0)
  assert MR in case.transforms
  for lesions in case.lesions.values():
    assert lesions.offset == pytest.approx(24, abs=1)


def measured(lesion, body, images):
  seen = {m: np.ones(lesion.shape, bool) for m in images}
  return measure_lesions(lesion.astype(np.float32), body, images, seen, LPS)


def slices(value=0.0):
  return np.full((3, 24, 24), value, np.float32)


def test_lesions_on_both_sides_are_weighed_by_their_area():
  lesion, body = slices(), np.ones((3, 24, 24), bool)
  lesion[1, 4:10, 2:8] = 1  # 576 mm2 with its middle at x = 28
  lesion[1, 4:7, 18:22] = 1  # 192 mm2 at x = -32
  lesion[1, 20, 2] = 1  # 16 mm2: a speck at x = 38
  lesion[2, 12, 12] = 0.5  # 8 mm2, no pixel more than half
  result = measured(lesion, body, {CT: slices()})
  assert list(result) == [1, 2]
  assert (result[1].area, result[1].count) == (784.0, 2)
  assert result[1].right == round(592 / 784, 3)
  mean = (576 * 28 + 192 * -32 + 16 * 38) / 784
  assert result[1].offset == pytest.approx(mean, abs=0.06)
  assert result[2] == SliceLesions(8.0, 0, 0.0, -2.0, {})


def test_the_midline_is_the_bodys_at_each_level():
  lesion, body = slices(), np.zeros((3, 24, 24), bool)
  lesion[:, 10:14, 10:14] = 1  # the middle at x = 0
  body[0, 4:20, 4:20] = True  # the middle at x = 0
  body[1, 4:20, 0:16] = True  # at x = 16
  result = measured(lesion, body, {CT: slices()})
  # Slice 2 has no body: the mean of all.
  assert [result[z].offset for z in range(3)] == [0.0, -16.0, -8.0]


def test_contrast_is_the_difference_to_a_ring_of_two_pixels():
  lesion, body = slices(), np.ones((3, 24, 24), bool)
  lesion[1, 10:14, 10:14] = 1
  ct, mr = slices(-1.0), slices(-0.5)
  ct[1, 8:16, 8:16] = 0.25  # the ring, and the lesion
  ct[1, 10:14, 10:14] = 0.5
  result = measured(lesion, body, {CT: ct, MR: mr})[1]
  assert result.contrast == {CT: 0.25, MR: 0.0}
  seen = {CT: np.ones(lesion.shape, bool), MR: np.ones(lesion.shape, bool)}
  seen[MR][1, 10, 10] = False  # MR does not cover the lesion
  images = {CT: ct, MR: mr}
  result = measure_lesions(lesion, body, images, seen, LPS)[1]
  assert result.contrast.keys() == {CT}


def test_phantoms_have_the_lesions_of_their_anatomy(tmp_path):
  """The mask of a file in LPS, beside the painted tissues in RAS."""
  root = tmp_path / 'brats'
  cohorts._write_subject(tmp_path, 'brats', 0, 2, '')
  (files,) = folder_cases(root, dataset='brats', region=Region.BRAIN)
  case = ingest(files, Settings(SliceSpec((64, 64)), most_offset=0)).case
  truth = findings(case, *cohorts.render_anatomy('brats', 0, 2))
  large = {z: f for z, f in enumerate(truth) if f.lesion_mm2 > 200}
  assert len(large) > 3
  assert large.keys() <= case.lesions.keys()
  for z, finding in large.items():
    lesions = case.lesions[z]
    # The mask has no partial voxels, and the body has another outline.
    assert lesions.area == pytest.approx(finding.lesion_mm2, rel=0.25)
    assert lesions.offset == pytest.approx(finding.offset, abs=3)
    assert lesions.right == pytest.approx(finding.right, abs=0.15)


def case_with(lesions):
  files = CaseFiles('study', 'p1', Region.PELVIS, {})
  return Case(
    files.id,
    dataset='study',
    subject='p1',
    region=Region.PELVIS,
    modalities={},
    sources={},
    shape=(2, 2, 2),
    affine=tuple(map(tuple, np.eye(4).tolist())),
    plane='axial',
    usable=range(2),
    lesions=lesions,
  )


KNOWN = {3: SliceLesions(120.5, 1, 0.25, -3.5, {CT: 0.125})}


def opened(path, case):
  writer = StoreWriter(str(path), {'canvas': 2})
  writer.write_case(case, {}, np.ones((2, 2, 2), bool))
  writer.finish({case.id: 'train'})
  return SliceStore.open(str(path))


@pytest.mark.parametrize('lesions', [None, {}, KNOWN])
def test_a_store_keeps_what_is_known(tmp_path, lesions):
  store = opened(tmp_path / 's', case_with(lesions))
  assert store.cases[0].lesions == lesions


def test_a_store_from_before_lesions_has_the_manifest_and_name_of_one_without(
  tmp_path,
):
  row = case_with(None).to_json()
  assert 'lesions' not in row
  assert Case.from_json(row).lesions is None
  without, known = (
    opened(tmp_path / name, case_with(lesions))
    for name, lesions in (('a', None), ('b', KNOWN))
  )
  # Runs from before can resume; other lesions are other data.
  assert without.fingerprint != known.fingerprint


@pytest.mark.parametrize(
  'damage', [[], 'x', {'3': {}}, {'x': KNOWN[3].to_json()}, {'3': None}]
)
def test_a_damaged_row_is_refused(tmp_path, damage):
  opened(tmp_path / 's', case_with(KNOWN))
  manifest = tmp_path / 's/manifest.jsonl'
  row = json.loads(manifest.read_text())
  manifest.write_text(json.dumps(row | {'lesions': damage}) + '\n')
  with pytest.raises(StoreError, match=r'manifest\.jsonl:1: is damaged'):
    SliceStore.open(str(tmp_path / 's'))
