"""Official scores: values of the challenges' programs, and what is refused."""

import functools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality, Region, all_routes
from synermedgen_jax.evaluation import official, protocol
from synermedgen_jax.evaluation.measure import MeasureError, MeasureSettings
from synermedgen_jax.evaluation.official import OFFICIAL, OfficialError
from synermedgen_jax.evaluation.results import Synthesised
from synermedgen_jax.slices.store import Case, SliceStore, StoreWriter
from synermedgen_jax.slices.windows import Window

DATA = Path(__file__).parents[1] / 'data'
GOLDEN = json.loads((DATA / 'official_metrics.json').read_text())['values']
PROGRAMS = {
  'synthrad2023': official.synthrad2023,
  'synthrad2025': official.synthrad2025,
  'synthrad2025_3000': functools.partial(official.synthrad2025, high=3000.0),
}
CT_WINDOW = Window(-1000, 1000)


def analytic():
  """The analytic volumes of the golden file: synthesis, truth, mask."""
  z, y, x = np.meshgrid(*map(np.arange, (40, 64, 48)), indexing='ij')
  truth = 600 * np.sin(x / 7) * np.cos(y / 9) + 400 * np.sin(z / 5) - 100
  synthesis = truth + 60 * np.cos(x / 3) + 40 * np.sin(y / 4 + z / 3)
  block = (slice(20, 24),) * 3
  truth[block], synthesis[block] = 3500, 2500
  truth[10, 10, 10] = -1500
  mask = (
    ((x - 24) / 20) ** 2 + ((y - 32) / 26) ** 2 + ((z - 20) / 17) ** 2
  ) <= 1
  return synthesis.astype(np.float32), truth.astype(np.float32), mask


def real(name):
  return nib.load(DATA / name).get_fdata(dtype=np.float32)


def ct():
  truth = real('sts/STS_035/ct.nii.gz')
  return np.roll(truth, 1, axis=0), truth, truth > -500


def mr():
  truth = real('openms/patient26/t1ce.nii.gz')
  mask = truth > np.percentile(truth, 60)
  return np.float32(1.2) * np.roll(truth, 1, axis=0), truth, mask


def small(seed=0, shape=(9, 10, 11)):
  """Positive noise, a noisy copy of it, and a mask that reaches no face."""
  rng = np.random.default_rng(seed)
  truth = rng.uniform(0, 1000, shape).astype(np.float32)
  synthesis = truth + rng.normal(0, 100, shape).astype(np.float32)
  mask = np.zeros(shape, bool)
  mask[1:-1, 1:-1, 1:-1] = True
  return synthesis, truth, mask


@pytest.mark.parametrize('volumes', [analytic, ct])
@pytest.mark.parametrize('program', PROGRAMS)
def test_synthrad_scores_are_those_of_the_challenge(volumes, program):
  scores = PROGRAMS[program](*volumes())
  golden = GOLDEN[volumes.__name__][program]
  assert scores == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize('volumes', [analytic, mr])
def test_brasyn_is_that_of_the_challenge_in_and_outside_the_tumour(volumes):
  synthesis, truth, mask = volumes()
  scores = {
    'tumor': official.brasyn(synthesis, truth, mask)['ssim'],
    'non_tumor': official.brasyn(synthesis, truth, ~mask)['ssim'],
  }
  golden = GOLDEN[volumes.__name__]['brasyn']
  assert scores == pytest.approx(golden, rel=1e-5)


def naive_brasyn(synthesis, truth, mask):
  """SSIM voxel by voxel, from windows of 11 x 11 x 11 voxels."""

  def prepared(volume):
    ordered = np.sort(volume.astype(np.float64), axis=None)
    position = np.arange(ordered.size) / (ordered.size - 1)
    low, high = (np.interp(q, position, ordered) for q in (0.005, 0.995))
    low = max(low, 0)
    volume = np.minimum(np.maximum(volume, low), high)
    return np.where(mask, (volume - low) / (high - low), 0)

  x, y = prepared(synthesis), prepared(truth)
  span = max(x.max() - x.min(), y.max() - y.min())
  c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
  line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
  weights = line[:, None, None] * line[:, None] * line
  weights /= weights.sum()
  x, y = (np.pad(volume, 5, mode='reflect') for volume in (x, y))
  values = []
  for z, row, column in np.ndindex(mask.shape):
    window = np.s_[z : z + 11, row : row + 11, column : column + 11]
    a, b = x[window], y[window]
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    var_a = (weights * (a - mean_a) ** 2).sum()
    var_b = (weights * (b - mean_b) ** 2).sum()
    cov = (weights * (a - mean_a) * (b - mean_b)).sum()
    values.append(
      (2 * mean_a * mean_b + c1)
      * (2 * cov + c2)
      / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
  return np.mean(values)


@pytest.mark.parametrize('offset', [0, -500])
def test_brasyn_is_that_of_explicit_windows(offset):
  synthesis, truth, mask = small()
  volumes = synthesis + np.float32(offset), truth + np.float32(offset), mask
  score = official.brasyn(*volumes)['ssim']
  assert score == pytest.approx(naive_brasyn(*volumes), rel=1e-9)


def test_a_black_synthesis_has_a_brasyn_score():
  _, truth, mask = small()
  flat = np.full_like(truth, 7)
  score = official.brasyn(flat, truth, mask)['ssim']
  assert score == official.brasyn(flat * 0, truth, mask)['ssim']
  assert 0 < score < 0.5


def test_brasyn_ignores_the_scale_of_the_synthesis():
  synthesis, truth, mask = small()
  scores = [official.brasyn(k * synthesis, truth, mask) for k in (1, 4)]
  assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_a_small_volume_is_extended_by_its_outermost_voxels():
  volumes = small()  # of 9, 10 and 11 voxels
  pad = [(44, 44), (43, 44), (43, 43)]  # to 97
  extended = [np.pad(volume, pad, mode='edge') for volume in volumes]
  scores = official.synthrad2025(*volumes)
  assert scores['ms_ssim'] == official.synthrad2025(*extended)['ms_ssim']


@pytest.mark.parametrize('name', OFFICIAL)
def test_an_equal_volume_has_the_best_score(name):
  _, truth, mask = small()
  best = {'mae': 0.0, 'psnr': 100.0, 'ssim': 1.0, 'ms_ssim': 1.0}
  scores = OFFICIAL[name].function(truth, truth, mask)
  assert scores == pytest.approx({k: best[k] for k in scores}, abs=1e-9)


@pytest.mark.parametrize('name', ['synthrad2023', 'synthrad2025'])
def test_errors_outside_the_mask_do_not_count(name):
  synthesis, truth, mask = small()
  function = OFFICIAL[name].function
  other = np.where(mask, synthesis, 3000).astype(np.float32)
  assert function(other, truth, mask) == function(synthesis, truth, mask)


def test_values_above_the_range_count_in_mae_alone():
  _, truth, mask = small()
  truth = truth + np.float32(4000)
  scores = official.synthrad2023(truth + np.float32(50), truth, mask)
  assert scores == pytest.approx({'mae': 50, 'psnr': 100, 'ssim': 1})


def only(index, shape=(9, 10, 11)):
  mask = np.zeros(shape, bool)
  mask[index] = True
  return mask


@pytest.mark.parametrize(
  ('name', 'mask', 'message'),
  [
    ('synthrad2023', only(0), 'no body voxel at least 3 voxels from every'),
    ('synthrad2023', only(()) & False, 'no body voxel at least 3 voxels'),
    # The voxel of the coarsest scale is the middle one: 4, 5, 5.
    ('synthrad2025', ~only((4, 5, 5)), 'coarsest of five scales'),
    ('brasyn', only(()) & False, 'no voxel in the mask'),
  ],
)
def test_a_mask_without_a_voxel_to_score_is_refused(name, mask, message):
  synthesis, truth, _ = small()
  with pytest.raises(OfficialError, match=message):
    OFFICIAL[name].function(synthesis, truth, mask)


def test_the_middle_voxel_is_enough_for_ms_ssim():
  synthesis, truth, _ = small()
  mask = only((4, 5, 5))
  assert 0 < official.synthrad2025(synthesis, truth, mask)['ms_ssim'] <= 1


def test_brasyn_refuses_a_constant_truth():
  synthesis, truth, mask = small()
  with pytest.raises(OfficialError, match='constant in the mask'):
    official.brasyn(synthesis, truth * 0 + 5, mask)


@pytest.mark.parametrize('name', OFFICIAL)
@pytest.mark.parametrize(
  'change',
  [
    lambda s, t, m: (s[:-1], t, m),
    lambda s, t, m: (s, t, m[:-1]),
    lambda s, t, m: (s, t, m.astype(int)),
    lambda s, t, m: (s * np.float32(np.nan), t, m),
  ],
)
def test_volumes_that_do_not_match_are_refused(name, change):
  # TypeError where array types are checked at run time.
  with pytest.raises((OfficialError, TypeError)):
    OFFICIAL[name].function(*change(*small()))


def test_scores_apply_to_the_targets_of_their_challenge():
  def routes(name):
    return {r.name for r in all_routes() if OFFICIAL[name].applies(r)}

  to_ct = {r.name for r in all_routes() if r.target is Modality.CT}
  assert routes('synthrad2023') == routes('synthrad2025') == to_ct
  # T2 of the heart is no target of BraSyn.
  brats = {r.name for r in all_routes() if r.cohort == 'brats'}
  assert routes('brasyn') == brats


@pytest.mark.parametrize('name', OFFICIAL)
def test_every_score_states_its_definition(name):
  stated = {'range', 'mask', 'dimension', 'window', 'unit', 'source'}
  assert OFFICIAL[name].definition.keys() == stated


def write_store(path, depth=8):
  """Two sessions of a patient with CT and MR, and a brain with two contrasts.

  The body is the volume without its outermost pixels.
  """
  shape = (depth, 12, 12)
  writer = StoreWriter(str(path), {'canvas': list(shape[1:])})
  head = {Modality.MR: Window(0, 1), Modality.CT: CT_WINDOW}
  contrasts = dict.fromkeys((Modality.T1, Modality.T2), Window(0, 800))
  rng = np.random.default_rng(0)
  cases = {'d.p_1': ('p', head), 'd.p_2': ('p', head), 'd.b': ('b', contrasts)}
  for case_id, (patient, windows) in cases.items():
    case = Case(
      id=case_id,
      dataset='d',
      subject=case_id.partition('.')[2],
      patient=patient,
      region=Region.BRAIN,
      modalities=windows,
      sources=dict.fromkeys(windows, ''),
      shape=shape,
      affine=tuple(map(tuple, np.eye(4).tolist())),
      plane='axial',
      usable=range(depth),
    )
    volumes = {m: rng.uniform(-1, 1, shape).astype('f4') for m in windows}
    body = np.zeros(shape, bool)
    body[:, 1:-1, 1:-1] = True
    writer.write_case(case, volumes, body)
  writer.finish(dict.fromkeys(cases, 'test'))
  return SliceStore.open(str(path))


def pairs_of(store, slices=0):
  return list(protocol.route_pairs(store.split('test'), slices=slices))


def noisy(item):
  noise = np.random.default_rng(1).normal(0, 0.1, item.truth.shape)
  return np.float32(item.truth + noise * (1 + (item.case.id == 'd.p_2')))


def test_scores_of_a_store_are_means_over_subjects(tmp_path):
  store = write_store(tmp_path / 'store')
  names = tuple(OFFICIAL)
  pairs = pairs_of(store)
  protocol.check_official(store, pairs, names)
  scored = protocol.score_outputs(store, pairs, noisy)
  results = Synthesised.gather(scored, {}, official=names).official
  assert {k: set(v) for k, v in results.items()} == {
    'synthrad2023': {'brain_mr_to_ct'},
    'synthrad2025': {'brain_mr_to_ct'},
    'brasyn': {'brats_t1_to_t2', 'brats_t2_to_t1'},
  }
  # Both sessions are one subject; its score is their mean.
  items = [protocol.RouteCase.read(store, pair) for pair in pairs]
  expected = [
    official.synthrad2025(
      CT_WINDOW.denormalise(np.clip(noisy(i), -1, 1)),
      CT_WINDOW.denormalise(i.truth),
      i.mask,
    )
    for i in items
    if i.route.target is Modality.CT
  ]
  result = results['synthrad2025']['brain_mr_to_ct']
  assert result['count'] == 1
  for metric in ('mae', 'psnr', 'ms_ssim'):
    mean = np.mean([e[metric] for e in expected])
    assert result[metric] == pytest.approx(mean, rel=1e-9)
  assert expected[0]['mae'] < expected[1]['mae']


def test_lines_state_score_metric_and_unit():
  values = {'mae': 44.47, 'psnr': 37.271, 'ms_ssim': 0.99569, 'count': 1}
  results = {
    'synthrad2025': {'brain_mr_to_ct': values},
    'brasyn': {'brats_t1_to_t2': {'ssim': 0.9, 'count': 3}},
  }
  head, brain = official.lines(results)
  numbers = 'MAE 44.5 HU, PSNR 37.27 dB, MS-SSIM 0.9957'
  assert head == f'brain_mr_to_ct by SynthRAD2025: {numbers}'
  assert brain == 'brats_t1_to_t2 by BraSyn: SSIM 0.9000'


def test_a_score_without_a_route_is_refused(tmp_path):
  store = write_store(tmp_path / 'store')
  pairs = [p for p in pairs_of(store) if p.route.target is Modality.MR]
  for name, message in (
    ('synthrad2025', 'synthrad2025: no route has a target of SynthRAD2025'),
    ('brasyn', r'scores T1 \(MRI\), .* of the brain; choose other routes'),
  ):
    with pytest.raises(OfficialError, match=message):
      protocol.check_official(store, pairs, (name,))


def test_a_case_of_few_slices_is_refused(tmp_path):
  store = write_store(tmp_path / 'store', depth=6)
  message = 'synthrad2023: case d.p_1 has no body voxel at least 3'
  with pytest.raises(OfficialError, match=message):
    protocol.check_official(store, pairs_of(store), ('brasyn', 'synthrad2023'))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'score': ('synthrad',)}, 'score: unknown synthrad; expected some of'),
    ({'score': ('brasyn',), 'slices': 2}, 'need all slices of a volume'),
  ],
)
def test_settings_that_cannot_be_scored_are_refused(settings, message):
  with pytest.raises(MeasureError, match=message):
    MeasureSettings(**settings)
