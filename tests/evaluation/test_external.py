"""Outputs of other programs: what is undone, and what is refused."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from external_fakes import (
  AFFINE,
  CASE,
  ROUTE,
  SHAPE,
  USABLE,
  hounsfield,
  levels,
  slice_paths,
  truths,
  write_store,
  write_volumes,
)
from PIL import Image
from scipy import ndimage

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation import protocol
from synermedgen_jax.evaluation.exporting import export_tests
from synermedgen_jax.evaluation.external import ScoreSettings, score
from synermedgen_jax.evaluation.metrics import case_metrics
from synermedgen_jax.evaluation.output_files import output_name
from synermedgen_jax.slices.grids import Grid, from_slices, resample
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.tasks.prompts import SHORT

MR_ROUTE = 'brain_ct_to_mr'
FIRST = output_name(ROUTE, CASE, USABLE[0])
COUNT = 2 * len(USABLE)


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return write_store(tmp_path_factory.mktemp('external') / 'store')


@pytest.fixture(scope='module')
def truth(store):
  return truths(store)


def scored(store, outputs, **settings):
  settings = ScoreSettings(outputs, **{'routes': (ROUTE,), **settings})
  return score(store, store.split('test'), settings)


def numbers(result):
  return result.synthesis.scores['synthesis'][ROUTE]


def steps(result):
  """The undone steps that concern a file."""
  return {k: v for k, v in result.record['steps'].items() if v}


def refused(store, outputs, *phrases, **settings):
  with pytest.raises(UserError) as caught:
    scored(store, outputs, **settings)
  message = str(caught.value)
  assert '\n' not in message
  for phrase in phrases:
    assert phrase in message, message


def write_pictures(folder, volumes, suffix='.png'):
  for path, image in slice_paths(folder, volumes, suffix):
    options = {'quality': 95} if suffix == '.jpg' else {}
    Image.fromarray(levels(image)).save(path, **options)


def write_arrays(folder, volumes, route=ROUTE):
  for path, image in slice_paths(folder, volumes, '.npy', route):
    np.save(path, image)


def test_the_truth_as_volumes_scores_1(store, truth, tmp_path):
  write_volumes(tmp_path, {k: hounsfield(v) for k, v in truth.items()})
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] == pytest.approx(1, abs=1e-6)
  assert numbers(result)['mae'] < 0.1  # HU
  assert steps(result) == {'volumes': 2}
  assert result.slices == 0


def test_the_baselines_are_those_without_a_model(store, truth, tmp_path):
  write_volumes(tmp_path, {k: hounsfield(v) for k, v in truth.items()})
  baselines = numbers(scored(store, tmp_path))['baselines']
  assert baselines.keys() == {'copy_source', 'mean_target'}


def test_metaimage_is_read_in_its_own_world_frame(store, truth, tmp_path):
  for case, slices in truth.items():
    image = sitk.GetImageFromArray(hounsfield(slices))
    # ITK's frame is LPS: the signs of x and y change.
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-20.0, -30.0, -10.0))
    sitk.WriteImage(image, str(tmp_path / f'{output_name(ROUTE, case)}.mha'))
  assert numbers(scored(store, tmp_path))['ssim'] == pytest.approx(1, abs=1e-6)


def test_a_volume_with_other_axes_is_the_same_image(store, truth, tmp_path):
  flip = np.diag([-1.0, 1, 1, 1])
  flip[0, 3] = SHAPE[2] - 1
  write_volumes(
    tmp_path,
    {k: hounsfield(v)[:, :, ::-1] for k, v in truth.items()},
    AFFINE @ flip,
  )
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] == pytest.approx(1, abs=1e-6)
  assert steps(result) == {'volumes': 2, 'resampled': 2}


def test_a_finer_grid_is_resampled(store, truth, tmp_path):
  finer = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
  grid = Grid((47, 47, 11), finer)
  volumes = {
    case: resample(Volume(from_slices(hounsfield(v)), AFFINE), grid, fill=None)
    for case, v in truth.items()
  }
  write_volumes(
    tmp_path, {k: v.transpose(2, 1, 0) for k, v in volumes.items()}, finer
  )
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] > 0.9
  assert steps(result) == {'volumes': 2, 'resampled': 2}


def test_a_shifted_header_is_scored_as_it_is(store, truth, tmp_path):
  shifted = AFFINE.copy()
  shifted[:3, 3] += AFFINE[:3, 0]  # by one column
  write_volumes(tmp_path, {k: hounsfield(v) for k, v in truth.items()}, shifted)
  result = scored(store, tmp_path)
  expected = []
  for case, slices in truth.items():
    rolled = np.roll(slices, 1, axis=2)[USABLE[0] : USABLE[-1] + 1]
    inside = slices[USABLE[0] : USABLE[-1] + 1]
    mask = store.read_mask(case)[USABLE[0] : USABLE[-1] + 1]
    options = {'unit_range': (-1000, 1000), 'indices': np.array(USABLE)}
    (values,) = case_metrics(rolled, inside, mask, **options)
    expected.append(values['ssim'])
  assert numbers(result)['ssim'] == pytest.approx(np.mean(expected), abs=1e-3)
  assert numbers(result)['ssim'] < 0.99


@pytest.mark.parametrize(
  ('suffix', 'least', 'extra'),
  [('.png', 0.999, {}), ('.jpg', 0.9, {'jpeg': 8})],
)
def test_8_bit_pictures_are_read_under_the_window(
  store, truth, tmp_path, suffix, least, extra
):
  write_pictures(tmp_path, truth, suffix)
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] > least
  assert steps(result) == {'slices': COUNT, '8-bit': COUNT, **extra}


def test_arrays_are_in_the_unit_of_the_target(store, truth, tmp_path):
  write_arrays(tmp_path, {k: hounsfield(v) for k, v in truth.items()})
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] == pytest.approx(1, abs=1e-6)
  assert steps(result) == {'slices': COUNT}


def test_8_bit_arrays_are_read_under_the_window(store, truth, tmp_path):
  write_arrays(tmp_path, {k: levels(v) for k, v in truth.items()})
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] > 0.999
  assert steps(result) == {'slices': COUNT, '8-bit': COUNT}


def test_colour_is_averaged_and_its_difference_is_reported(
  store, truth, tmp_path
):
  for path, image in slice_paths(tmp_path, truth, '.png'):
    grey = np.clip(levels(image), 6, 249).astype(int)
    colour = np.stack([grey - 6, grey, grey + 6], axis=-1)
    Image.fromarray(colour.astype(np.uint8)).save(path)
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] > 0.98
  assert steps(result) == {
    'slices': COUNT,
    '8-bit': COUNT,
    'rgb': COUNT,
    'largest_colour_difference': 12.0,
  }


def cropped(folder, volumes, box_of=None):
  """Writes each picture cropped to the non-black box of itself."""
  for path, image in slice_paths(folder, volumes, '.png'):
    picture = Image.fromarray(levels(image))
    picture.crop(picture.getbbox()).save(path)


def test_a_crop_to_the_non_black_box_is_undone(store, truth, tmp_path):
  cropped(tmp_path, truth)
  refused(store, tmp_path, FIRST, '19x15 pixels, the canvas 24:', '--crop')
  result = scored(store, tmp_path, crop='target')
  assert numbers(result)['ssim'] > 0.999
  assert numbers(result)['full_frame']['ssim'] > 0.999
  assert steps(result) == {'slices': COUNT, '8-bit': COUNT, 'cropped': COUNT}


def test_a_crop_of_another_size_is_resized_to_its_box(store, truth, tmp_path):
  for path, image in slice_paths(tmp_path, truth, '.png'):
    picture = Image.fromarray(levels(image))
    picture = picture.crop(picture.getbbox())
    picture.resize((3 * picture.width, 3 * picture.height)).save(path)
  result = scored(store, tmp_path, crop='source')
  assert numbers(result)['ssim'] > 0.9
  assert steps(result)['cropped'] == steps(result)['resized'] == COUNT


def test_a_crop_of_another_aspect_ratio_is_refused(store, truth, tmp_path):
  for path, image in slice_paths(tmp_path, truth, '.png'):
    picture = Image.fromarray(levels(image))
    left, top, right, bottom = picture.getbbox()
    picture.crop((left, top, right - 3, bottom)).save(path)
  refused(store, tmp_path, FIRST, 'the box of its target', crop='target')


def test_a_larger_picture_is_resized_to_the_canvas(store, truth, tmp_path):
  for path, image in slice_paths(tmp_path, truth, '.png'):
    Image.fromarray(levels(image)).resize((96, 96)).save(path)
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] > 0.9
  assert steps(result)['resized'] == COUNT


def test_a_missing_slice_is_refused_or_left_out(store, truth, tmp_path):
  write_pictures(tmp_path, truth)
  (tmp_path / f'{FIRST}.png').unlink()
  refused(store, tmp_path, f'no output {FIRST}; 1 of 8', '--partial')
  result = scored(store, tmp_path, partial=True)
  assert result.record['slices'] == COUNT - 1
  assert result.record['of'] == COUNT
  assert result.slices.startswith('7 of 8, ')


def test_a_route_without_any_output_is_refused(store, truth, tmp_path):
  write_pictures(tmp_path, truth)
  refused(store, tmp_path, 'no output brain_ct_to_mr__', routes=())


def test_an_empty_folder_is_refused_though_partial(store, tmp_path):
  refused(store, tmp_path, f'{tmp_path}: has no output', partial=True)


@pytest.mark.parametrize(
  ('turn', 'name'),
  [
    (lambda v: v[:, ::-1], 'upside down'),
    (lambda v: v[:, :, ::-1], 'mirrored from left to right'),
    (lambda v: v[:, ::-1, ::-1], 'turned by 180 degrees'),
    (lambda v: v.transpose(0, 2, 1), 'transposed'),
    (lambda v: v[::-1], 'in reverse order of slices'),
  ],
)
def test_turned_pictures_are_refused(store, truth, tmp_path, turn, name):
  write_pictures(tmp_path, {k: turn(v) for k, v in truth.items()})
  refused(store, tmp_path, FIRST, f'appears {name}')
  assert numbers(scored(store, tmp_path, force=True))['ssim'] < 0.9


def test_a_turned_volume_is_refused(store, truth, tmp_path):
  write_volumes(tmp_path, {k: hounsfield(v)[:, ::-1] for k, v in truth.items()})
  refused(store, tmp_path, f'{output_name(ROUTE, CASE)}.nii.gz', 'upside down')


@pytest.mark.parametrize('scale', [1, 255])
@pytest.mark.parametrize('write', [write_volumes, write_arrays])
def test_a_ct_that_is_not_in_hu_is_refused(
  store, truth, tmp_path, scale, write
):
  values = {k: np.float32((v + 1) / 2 * scale) for k, v in truth.items()}
  write(tmp_path, values)
  refused(store, tmp_path, ROUTE, CASE, 'not HU', '--force')


def write_mr(folder, store, change=lambda share: share):
  """Writes MR slices as NPY files; `change` takes shares of the window."""
  for case in truths(store):
    mr = store.read_volume(case, Modality.MR)
    write_arrays(folder, {case: np.float32(change((mr + 1) / 2))}, MR_ROUTE)


@pytest.mark.parametrize(
  ('change', 'values'),
  [
    (lambda x: x, '0.34'),  # normalised
    (lambda x: (x - x.mean()) / x.std(), '0.5'),  # z-scored
    (lambda x: 100 * x, '34'),
    (lambda x: 240 * x, '8'),
    (lambda x: np.round(240 * x), '8'),
    (lambda x: 4095 * x, '14'),
    (lambda x: 65535 * x, '2.2'),
  ],
)
def test_an_mr_on_another_scale_is_refused(store, tmp_path, change, values):
  write_mr(tmp_path, store, change)
  refused(
    store,
    tmp_path,
    f'{MR_ROUTE}__{CASE}__0001.npy: the MRI of {CASE} has values from {values}',
    'the truth from ',
    'state its range or window in a table',
    '--force',
    routes=(MR_ROUTE,),
  )
  result = scored(store, tmp_path, routes=(MR_ROUTE,), force=True)
  assert steps(result)['forced'] == 2


def test_an_mr_on_the_scale_of_its_window_scores_1(store, tmp_path):
  write_mr(tmp_path, store, lambda x: 800 * x)
  result = scored(store, tmp_path, routes=(MR_ROUTE,))
  ssim = result.synthesis.scores['synthesis'][MR_ROUTE]['ssim']
  assert ssim == pytest.approx(1, abs=1e-6)


def test_a_stated_range_is_compared_with_the_truth_too(store, truth, tmp_path):
  values = {k: (v + 1) / 2 for k, v in truth.items()}
  path = table(tmp_path, values, range=[0, 255])
  refused(store, path, 'has values from -998', 'the truth from ')


def test_a_blurred_output_and_the_mean_image_are_scored(store, truth, tmp_path):
  blurred = {k: ndimage.gaussian_filter(v, (0, 3, 3)) for k, v in truth.items()}
  mean = np.mean([*truth.values()], axis=0)
  for name, volumes in (
    ('blurred', blurred),
    ('mean', dict.fromkeys(truth, mean)),
  ):
    write_arrays(
      tmp_path / name, {k: hounsfield(v) for k, v in volumes.items()}
    )
    assert 0.1 < numbers(scored(store, tmp_path / name))['ssim'] < 0.99


def test_a_16_bit_picture_needs_its_window(store, truth, tmp_path):
  rows = []
  for path, image in slice_paths(tmp_path, truth, '.png'):
    deep = np.uint16(np.round(hounsfield(image) + 1000))
    Image.fromarray(deep).save(path)
    _, case, index = path.stem.split('__')
    row = {'route': ROUTE, 'case': case, 'slice': int(index)}
    rows.append(row | {'file': path.name, 'window': [-1000, 64535]})
  refused(store, tmp_path, f'{FIRST}.png: is a 16-bit picture', 'window')
  other = [row | {'window': [-1000, 1000]} for row in rows]
  refused(store, write_table(tmp_path, other), 'values from -98', 'the truth')
  result = scored(store, write_table(tmp_path, rows))
  assert numbers(result)['mae'] < 0.5
  assert steps(result) == {'slices': COUNT}


def test_a_centre_crop_is_not_called_resized(store, truth, tmp_path):
  for path, image in slice_paths(tmp_path, truth, '.png'):
    Image.fromarray(levels(image)[1:-1, 1:-1]).save(path)
  refused(
    store,
    tmp_path,
    f'{FIRST}.png: has 22 pixels, the canvas 24',
    'appears cropped or padded',
    '--crop',
  )
  result = scored(store, tmp_path, force=True)
  assert numbers(result)['ssim'] < 0.9
  assert steps(result)['resized'] == COUNT
  assert steps(result)['forced'] == 2


@pytest.mark.parametrize('size', [12, 18, 20, 22, 32, 48])
def test_another_size_is_resized(store, truth, tmp_path, size):
  for path, image in slice_paths(tmp_path, truth, '.png'):
    Image.fromarray(levels(image)).resize((size, size)).save(path)
  assert steps(scored(store, tmp_path))['resized'] == COUNT


def test_a_crop_with_the_affine_of_the_whole_grid_is_refused(
  store, truth, tmp_path
):
  box = (slice(None), slice(2, 21), slice(5, 20))
  volumes = {k: hounsfield(v)[box] for k, v in truth.items()}
  write_volumes(tmp_path, volumes)
  refused(
    store,
    tmp_path,
    f'{output_name(ROUTE, CASE)}.nii.gz: has 15 x 19 x 6 voxels and the affine '
    'of the whole grid of 24 x 24 x 6',
    'appears cropped',
    '--force',
  )
  own = AFFINE.copy()
  own[:3, 3] += 5 * AFFINE[:3, 0] + 2 * AFFINE[:3, 1]
  write_volumes(tmp_path, volumes, own)
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] == pytest.approx(1, abs=1e-6)


def test_a_volume_without_its_last_rows_is_where_it_says(
  store, truth, tmp_path
):
  write_volumes(tmp_path, {k: hounsfield(v)[:, :22] for k, v in truth.items()})
  result = scored(store, tmp_path)
  assert numbers(result)['ssim'] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('box', ['source', 'target'])
def test_the_box_of_crops_and_the_force_are_recorded(
  store, truth, tmp_path, box
):
  cropped(tmp_path, truth)
  record = scored(store, tmp_path, crop=box).record
  assert (record['crop'], record['force']) == (box, False)
  assert record['steps']['forced'] == 0
  record = scored(store, tmp_path, crop=box, force=True).record
  assert (record['crop'], record['force']) == (box, True)


def test_without_crops_no_box_is_recorded(store, truth, tmp_path):
  write_pictures(tmp_path, truth)
  assert scored(store, tmp_path).record['crop'] == ''


def test_a_volume_elsewhere_is_refused(store, truth, tmp_path):
  away = AFFINE.copy()
  away[0, 3] += 500
  write_volumes(tmp_path, {k: hounsfield(v) for k, v in truth.items()}, away)
  refused(store, tmp_path, 'does not overlap case brain.b1')


def test_a_short_volume_lacks_slices(store, truth, tmp_path):
  write_volumes(tmp_path, {k: hounsfield(v)[:4] for k, v in truth.items()})
  refused(store, tmp_path, 'less than 90% of the body in slice 4', '1 of 4')
  result = scored(store, tmp_path, partial=True)
  assert result.record['slices'] == COUNT - 2
  assert numbers(result)['ssim'] == pytest.approx(1, abs=1e-6)


def table(folder, volumes, **columns):
  """Writes arrays under other names, and a table that lists them."""
  rows = []
  write_arrays(folder, volumes)
  for case in volumes:
    for index in USABLE:
      old = folder / f'{output_name(ROUTE, case, index)}.npy'
      old.rename(folder / f'{case}-{index}.npy')
      row = {'route': ROUTE, 'case': case, 'slice': index}
      rows.append(row | {'file': f'{case}-{index}.npy'} | columns)
  return write_table(folder, rows)


def write_table(folder, rows):
  path = folder / 'outputs.jsonl'
  path.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
  return path


def test_a_table_names_files_and_the_range_of_their_numbers(
  store, truth, tmp_path
):
  path = table(tmp_path, truth, range=[-1, 1])
  assert numbers(scored(store, path))['ssim'] == pytest.approx(1, abs=1e-5)


def test_a_table_names_the_window_of_black_and_white(store, truth, tmp_path):
  narrow = Window(-160.0, 240.0)
  values = {k: narrow.normalise(hounsfield(v)) for k, v in truth.items()}
  path = table(tmp_path, values, range=[-1, 1], window=[-160, 240])
  expected = []
  for case, slices in truth.items():
    inside = np.clip(hounsfield(slices), -160, 240) - hounsfield(slices)
    mask = store.read_mask(case)[1:5]
    expected.append(np.abs(inside[1:5][mask]).mean())
  assert numbers(scored(store, path))['mae'] == pytest.approx(
    np.mean(expected), rel=1e-3
  )


ROW = {'route': ROUTE, 'case': CASE, 'slice': 1, 'file': 'a.png'}


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    ([ROW | {'case': 'b9'}], "line 1: the store has no case 'b9'"),
    (
      [ROW | {'route': 'brain'}],
      "line 1: missing or invalid: Unknown route 'brain': the nearest are ",
    ),
    ([ROW | {'windw': [0, 1]}], 'line 1: missing or invalid: windw, expected'),
    ([ROW, ROW], 'line 2: is the same slice as'),
    ([ROW | {'slice': None}], 'needs the number of its slice'),
    ([ROW | {'file': 'a.nii.gz'}], 'expected a slice ending in .png'),
    ([ROW | {'window': [5, 0]}], 'window [5, 0], expected two numbers'),
    ([ROW | {'crop': 'left'}], "crop 'left', expected source or target"),
    ([ROW | {'range': [0, 1]}], 'range, which is for NPY files and volumes'),
    ([ROW], 'a.png: No such file'),
  ],
)
def test_a_wrong_row_is_refused(store, tmp_path, rows, message):
  refused(store, write_table(tmp_path, rows), message, partial=True)


def test_one_slice_in_two_files_is_refused(store, truth, tmp_path):
  write_pictures(tmp_path, truth)
  np.save(tmp_path / f'{FIRST}.npy', truth[CASE][1])
  refused(store, tmp_path, f'{FIRST}.png: is the same output as {FIRST}.npy')


def test_a_volume_beside_its_slices_is_refused(store, truth, tmp_path):
  write_pictures(tmp_path, truth)
  write_volumes(tmp_path, {k: hounsfield(v) for k, v in truth.items()})
  refused(store, tmp_path, f'{FIRST}.png: is a slice of')


@pytest.mark.parametrize(
  'array', [np.zeros((4, 4, 2)), np.full((24, 24), np.nan)]
)
def test_an_array_that_is_no_image_is_refused(store, truth, tmp_path, array):
  write_arrays(tmp_path, {k: hounsfield(v) for k, v in truth.items()})
  np.save(tmp_path / f'{FIRST}.npy', array)
  refused(store, tmp_path, f'{FIRST}.npy: has ')


SEVERAL = 'brats_t1+t2_to_flair'


@pytest.fixture
def contrasts(store_path):
  return SliceStore.open(str(store_path))


def score_several(contrasts, folder, **settings):
  settings = ScoreSettings(folder, routes=(SEVERAL,), **settings)
  return score(contrasts, contrasts.split('val'), settings)


def test_outputs_from_several_sources_are_scored_by_the_name_of_their_route(
  contrasts, tmp_path
):
  flair = contrasts.read_volume('case4', Modality.FLAIR)
  for index in range(1, 7):
    name = output_name(SEVERAL, 'case4', index)
    np.save(tmp_path / f'{name}.npy', (flair[index] + 1) / 2)
  result = score_several(contrasts, tmp_path)
  scores = result.synthesis.scores['synthesis']
  assert scores.keys() == {SEVERAL}
  assert scores[SEVERAL]['mae'] < 1e-6
  # T1, T2 and FLAIR are 24, 40 and 48 grey levels of 65535 in.
  copy = scores[SEVERAL]['baselines']['copy_source']['mae']
  assert copy * 65535 == pytest.approx(16, abs=0.02)


def test_a_crop_to_one_of_several_sources_is_refused(contrasts, tmp_path):
  for index in range(1, 7):
    name = output_name(SEVERAL, 'case4', index)
    np.save(tmp_path / f'{name}.npy', np.zeros((8, 8), np.float32))
  with pytest.raises(UserError, match=r'box of the source, and brats_t1\+t2'):
    score_several(contrasts, tmp_path, crop='source')


def test_sources_of_a_route_with_several_are_not_exported(contrasts, tmp_path):
  pairs = list(
    protocol.route_pairs(contrasts.split('val'), slices=1, routes=[SEVERAL])
  )
  with pytest.raises(
    UserError, match=r'flair: has several sources, and the pr'
  ):
    export_tests(contrasts, pairs, tmp_path / 'export', SHORT)
  assert not (tmp_path / 'export').exists()
