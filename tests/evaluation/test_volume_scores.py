"""The table of scores of volumes: what applies, means, lines, refusals."""

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality, Region, all_routes
from synermedgen_jax.evaluation import named_scores, official, protocol
from synermedgen_jax.evaluation.measure import MeasureError, MeasureSettings
from synermedgen_jax.evaluation.results import Synthesised
from synermedgen_jax.evaluation.volume_checks import VolumeScoreError
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES
from synermedgen_jax.slices.store import Case, SliceStore, StoreWriter
from synermedgen_jax.slices.windows import Window

SPACING = (3.0, 1.0, 1.0)
CT_WINDOW = Window(-1000, 1000)


def small(shape=(9, 10, 11)):
  """Noise with all tissues, a noisy copy, and a mask that reaches no face."""
  rng = np.random.default_rng(0)
  truth = rng.uniform(-400, 1000, shape).astype(np.float32)
  synthesis = truth + rng.normal(0, 100, shape).astype(np.float32)
  mask = np.zeros(shape, bool)
  mask[1:-1, 1:-1, 1:-1] = True
  return synthesis, truth, mask


@pytest.mark.parametrize('name', VOLUME_SCORES)
def test_an_equal_volume_has_the_best_score(name):
  _, truth, mask = small()
  best = {'mae': 0.0, 'psnr': 100.0, 'ssim': 1.0, 'ms_ssim': 1.0}
  best |= dict.fromkeys(VOLUME_SCORES['tissue'].numbers, 0.0)
  best |= {'bone_dice': 1.0}
  scores = VOLUME_SCORES[name].function(truth, truth, mask, SPACING)
  assert scores == pytest.approx({k: best[k] for k in scores}, abs=1e-9)


@pytest.mark.parametrize('name', VOLUME_SCORES)
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
  with pytest.raises((VolumeScoreError, TypeError)):
    VOLUME_SCORES[name].function(*change(*small()), SPACING)


def test_scores_apply_to_their_targets():
  def routes(name):
    return {r.name for r in all_routes() if VOLUME_SCORES[name].applies(r)}

  to_ct = {r.name for r in all_routes() if r.target is Modality.CT}
  assert routes('synthrad2023') == routes('synthrad2025') == to_ct
  to_cbct = {r.name for r in all_routes() if r.target is Modality.CBCT}
  assert routes('tissue') == to_ct | to_cbct
  # T2 of the heart is no target of BraSyn.
  brats = {r.name for r in all_routes() if r.cohort == 'brats'}
  assert routes('brasyn') == brats


@pytest.mark.parametrize('name', VOLUME_SCORES)
def test_every_score_states_its_definition(name):
  own = {'window', 'source'}
  if name == 'tissue':
    own = {'tissues', 'bias', 'hd95'}
  stated = {'range', 'mask', 'dimension', 'unit'} | own
  assert VOLUME_SCORES[name].definition.keys() == stated


@pytest.mark.parametrize('name', VOLUME_SCORES)
def test_every_number_of_a_score_is_printed(name):
  score = VOLUME_SCORES[name]
  assert score.function(*small(), SPACING).keys() == score.numbers.keys()


def write_store(path, depth=8, ct=CT_WINDOW):
  """Two sessions of a patient with CT and MR, and a brain with two contrasts.

  The body is the volume without its outermost pixels.
  """
  shape = (depth, 12, 12)
  writer = StoreWriter(str(path), {'canvas': list(shape[1:])})
  head = {Modality.MR: Window(0, 1), Modality.CT: ct}
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
  names = tuple(VOLUME_SCORES)
  pairs = pairs_of(store)
  protocol.check_volume_scores(store, pairs, names)
  scored = protocol.score_outputs(store, pairs, noisy)
  synthesised = Synthesised.gather(scored, {}, volume_scores=names)
  results = synthesised.named_scores
  assert {k: set(v) for k, v in results.items()} == {
    'synthrad2023': {'brain_mr_to_ct'},
    'synthrad2025': {'brain_mr_to_ct'},
    'tissue': {'brain_mr_to_ct'},
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
    (of_subject,) = synthesised.by_subject['brain_mr_to_ct'].values()
    assert of_subject[f'synthrad2025/{metric}'] == result[metric]
  assert expected[0]['mae'] < expected[1]['mae']


def test_lines_state_score_metric_and_unit():
  values = {'mae': 44.47, 'psnr': 37.271, 'ms_ssim': 0.99569, 'count': 1}
  tissues = dict.fromkeys(VOLUME_SCORES['tissue'].numbers, -3.0)
  tissues |= {'bone_mae': 120.06, 'bone_dice': 0.81, 'bone_hd95': 4.26}
  results = {
    'synthrad2025': {'brain_mr_to_ct': values},
    'brasyn': {'brats_t1_to_t2': {'ssim': 0.9, 'count': 3}},
    'tissue': {'brain_cbct_to_ct': tissues},
  }
  head, brain, line = named_scores.lines(results)
  numbers = 'MAE 44.5 HU, PSNR 37.27 dB, MS-SSIM 0.9957'
  assert head == f'brain_mr_to_ct, SynthRAD2025: {numbers}'
  assert brain == 'brats_t1_to_t2, BraSyn: SSIM 0.9000'
  assert line == (
    'brain_cbct_to_ct, tissues: air MAE -3.0 HU, air bias -3.0 HU, '
    'soft tissue MAE -3.0 HU, soft tissue bias -3.0 HU, bone MAE 120.1 HU, '
    'bone bias -3.0 HU, bone Dice 0.8100, bone HD95 4.3 mm'
  )


def test_a_score_without_a_route_is_refused(tmp_path):
  store = write_store(tmp_path / 'store')
  pairs = [p for p in pairs_of(store) if p.route.target is Modality.MR]
  for name, message in (
    (
      'synthrad2025',
      'synthrad2025: no route has one of its targets, CT; choose other routes',
    ),
    ('brasyn', r'targets, T1 \(MRI\), .* of the brain; choose other routes'),
  ):
    with pytest.raises(VolumeScoreError, match=message):
      protocol.check_volume_scores(store, pairs, (name,))


def test_a_case_of_few_slices_is_refused(tmp_path):
  store = write_store(tmp_path / 'store', depth=6)
  message = 'synthrad2023: case d.p_1 has no body voxel at least 3'
  with pytest.raises(VolumeScoreError, match=message):
    protocol.check_volume_scores(
      store, pairs_of(store), ('brasyn', 'synthrad2023')
    )


def test_a_case_without_bone_is_refused(tmp_path):
  store = write_store(tmp_path / 'store', ct=Window(-1000, 140))
  message = (
    'tissue: case d.p_1 has no voxel of bone, at least 150 HU, in the mask; cho'
  )
  with pytest.raises(VolumeScoreError, match=message):
    protocol.check_volume_scores(store, pairs_of(store), ('tissue',))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'score': ('synthrad',)}, 'score: unknown synthrad; expected some of'),
    (
      {'score': ('brasyn',), 'slices': 2},
      'scores of volumes need all slices; set slices',
    ),
  ],
)
def test_settings_that_cannot_be_scored_are_refused(settings, message):
  with pytest.raises(MeasureError, match=message):
    MeasureSettings(**settings)
