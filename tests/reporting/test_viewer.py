import base64
import gzip
import json
import re

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.reporting import viewer as lib

SHAPE = (5, 6, 8)  # z, h, w


def view(role, seed=0, modality=Modality.CT):
  volume = np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)
  return lib.view_of(role, modality, volume, (-1000, 1000))


def case(*views, title='worst', mask=None, affine=None):
  given = views or (view('synthesis', 1), view('truth', 2))
  affine = np.eye(4) if affine is None else affine
  return lib.Case('a route', title, affine, given, mask)


def test_a_case_is_cut_to_its_mask_and_the_affine_follows():
  mask = np.zeros(SHAPE, bool)
  mask[2, 3, 5:7] = True
  affine = np.diag([-2.0, -3.0, 4.0, 1.0])
  affine[:3, 3] = 10, 20, 30
  original = case(mask=mask, affine=affine)
  cut = lib.cropped(original, margin=1)
  # z 1 to 3, h 2 to 4, w 4 to 7.
  assert cut.mask.shape == (3, 3, 4)
  np.testing.assert_array_equal(
    cut.views[0].volume, original.views[0].volume[1:4, 2:5, 4:8]
  )
  np.testing.assert_allclose(cut.affine[:3, 3], (10 - 8, 20 - 6, 30 + 4))
  np.testing.assert_array_equal(cut.affine[:, :3], affine[:, :3])


def test_a_margin_ends_at_the_faces_of_the_volume():
  mask = np.zeros(SHAPE, bool)
  mask[0, 0, 0] = True
  assert lib.cropped(case(mask=mask)).mask.shape == (3, 3, 3)


@pytest.mark.parametrize('mask', [None, np.zeros(SHAPE, bool)])
def test_a_case_without_body_stays_as_it_is(mask):
  assert lib.cropped(case(mask=mask)).views[0].volume.shape == SHAPE


def test_equal_volumes_are_kept_once():
  contents = lib.Contents()
  for synthesis, truth in ((1, 2), (3, 2), (2, 2)):
    assert contents.add(
      case(view('synthesis', synthesis), view('truth', truth))
    )
  cases, volumes = embedded(contents.html())
  assert len(cases) == len(contents) == 3
  assert len(volumes) == 3 + 1  # and one for the mask


def test_a_case_beyond_the_budget_changes_nothing():
  contents = lib.Contents()
  assert contents.add(case(view('synthesis', 1)))
  size = contents.size
  assert not contents.add(case(view('synthesis', 2)), budget=1.5 * size)
  assert (len(contents), contents.size) == (1, size)
  assert contents.add(case(view('synthesis', 2)), budget=2.5 * size)


def test_the_size_bounds_the_characters_of_the_page():
  contents = lib.Contents()
  for seed in range(4):
    contents.add(case(view('synthesis', seed), view('truth', 9)))
  actual = len(contents.html()) - lib.frame()
  assert contents.size - 1000 < actual <= contents.size


def embedded(html):
  """The cases of a page, and its volumes by digest."""
  (text,) = re.findall(r'data-part="cases">(.*?)</script>', html)
  volumes = dict(re.findall(r'id="volume-(\w+)">([^<]*)</script>', html))
  return json.loads(text), volumes


def restored(coded):
  """Adds predictions voxel by voxel; Python's integers do not overflow."""
  volume = np.zeros_like(coded)
  for z, y, x in np.ndindex(coded.shape):
    left = int(volume[z, y, x - 1]) if x else 0
    upper = int(volume[z, y - 1, x]) if y else 0
    corner = int(volume[z, y - 1, x - 1]) if x and y else 0
    prediction = sorted((left, upper, left + upper - corner))[1]
    volume[z, y, x] = (int(coded[z, y, x]) + prediction) % 256
  return volume


def test_voxels_come_back_from_their_residuals():
  volume = view('truth').volume
  coded = lib.residuals(volume)
  np.testing.assert_array_equal(restored(coded), volume)


def test_residuals_are_those_of_the_median_of_three_neighbours():
  volume = np.array([[[5, 7], [6, 9]]], np.uint8)
  # 9 less the median of 6, 7 and 6 + 7 - 5.
  np.testing.assert_array_equal(lib.residuals(volume), [[[5, 2], [1, 2]]])


def test_voxels_far_from_the_body_are_not_kept():
  mask = np.zeros(SHAPE, bool)
  mask[0, 0, 0] = mask[4, 5, 7] = True
  made = case(view('synthesis', 1), mask=mask)
  cases, volumes = embedded(lib.viewer([made]))

  def volume(digest):
    content = gzip.decompress(base64.b64decode(volumes[digest]))
    return restored(np.frombuffer(content, np.uint8).reshape(SHAPE))

  zones = volume(cases[0]['zones'])
  assert zones[0, 0, 0] == zones[4, 5, 7] == 2
  assert zones[2, 2, 2] == zones[2, 3, 5] == 1
  assert zones[0, 0, 3] == zones[4, 5, 4] == 0
  original = made.views[0].volume
  np.testing.assert_array_equal(
    volume(cases[0]['views'][0]['data']),
    np.where(zones, original, original.min()),
  )


def test_the_page_has_the_bytes_of_every_volume():
  made = case(view('source', 5, Modality.MR), view('synthesis', 6))
  cases, volumes = embedded(lib.viewer([made]))
  (shown,) = cases
  assert shown['shape'] == [8, 6, 5]
  for record, original in zip(shown['views'], made.views, strict=True):
    content = gzip.decompress(base64.b64decode(volumes[record['data']]))
    values = np.frombuffer(content, np.uint8).reshape(SHAPE)
    np.testing.assert_array_equal(restored(values), original.volume)
    assert record['role'] == original.role
    assert record['span'] == [-1000, 1000]
  np.testing.assert_allclose(
    np.array(shown['inverse']) @ shown['affine'], np.eye(4)
  )


def test_equal_cases_give_equal_pages():
  assert lib.viewer([case()]) == lib.viewer([case()])


def test_names_cannot_end_the_script():
  html = lib.viewer([case(title='</script><b>')])
  assert '</script><b>' not in html
  assert embedded(html)[0][0]['title'] == '</script><b>'


def test_windows_belong_to_the_modality():
  windows = {
    modality: {
      p.name: (p.low, p.high) for p in view('truth', 0, modality).presets
    }
    for modality in (Modality.CT, Modality.PET, Modality.T2)
  }
  assert windows[Modality.CT] == {
    'all values': (-1000, 1000),
    'soft tissue 400/40': (-160, 240),
    'brain 80/40': (0, 80),
    'bone 1500/300': (-450, 1050),
  }
  assert list(windows[Modality.PET]) == ['lower half', 'all values']
  assert list(windows[Modality.T2]) == ['all values']
  assert view('truth', 0, Modality.PET).inverted
  assert not view('truth').inverted


def test_a_case_needs_one_synthesis_on_one_grid():
  with pytest.raises(ValueError, match='one synthesis'):
    case(view('truth'))
  small = lib.view_of(
    'truth', Modality.CT, np.zeros((2, 2, 2), np.uint8), (0, 1)
  )
  with pytest.raises(ValueError, match='differ in shape'):
    case(view('synthesis'), small)


def test_voxels_of_other_types_are_refused():
  with pytest.raises(ValueError, match='float64'):
    lib.view_of('truth', Modality.CT, np.zeros(SHAPE), (0, 1))


@pytest.mark.parametrize('compress', [bytes, gzip.compress])
def test_a_nifti_file_is_read_from_memory(compress):
  data = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
  affine = np.diag([-1.0, 2.0, 3.0, 1.0])
  image = nib.Nifti1Image(data, affine)
  image.header.set_slope_inter(2, -5)
  volume, read = lib.read_nifti(compress(image.to_bytes()))
  assert volume.shape == (4, 3, 2)
  expected = np.asarray(image.dataobj)  # unscaled in memory
  assert volume[3, 1, 0] == pytest.approx(2 * expected[0, 1, 3] - 5)
  np.testing.assert_array_equal(read, affine)
