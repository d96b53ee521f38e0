"""Calibration on validation subjects, coverage on others, refusals."""

import dataclasses
import re

import numpy as np
import pytest
from external_fakes import AFFINE, WINDOWS
from scipy import stats

from synermedgen_jax.core.modalities import Modality, Region, route_named
from synermedgen_jax.evaluation import protocol, uncertainty
from synermedgen_jax.evaluation.uncertainty import (
  Voxels,
  factor_of,
  measure_route,
  measure_uncertainty,
  sparsification,
)
from synermedgen_jax.inference.intervals import (
  IntervalError,
  Spread,
  draw_spread,
)
from synermedgen_jax.slices.store import Case, SliceStore, StoreWriter

ROUTE = route_named('brain_mr_to_ct')
Z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)  # a normal sample
NORMAL_90 = 1.645  # 90 % of a normal variable is within these deviations


def voxels(deviation, times=1.0, subject='a', z=Z):
  """Truths that scatter by `times` the deviation around a mean of 0."""
  deviation = np.broadcast_to(np.float32(deviation), z.shape).copy()
  truth = (times * deviation * z).astype(np.float32)
  mean = np.zeros_like(truth)
  return Voxels(subject, truth, mean, deviation, half_window=1000.0)


def heteroscedastic(times=1.0, subject='a', seed=0):
  rng = np.random.default_rng(seed)
  return voxels(rng.uniform(0.01, 0.2, len(Z)), times, subject)


def test_a_deviation_that_is_right_has_the_factor_of_the_normal_law():
  result = measure_route([voxels(0.1)], [heteroscedastic()], 'HU')
  assert result.factor == pytest.approx(NORMAL_90, abs=0.005)
  assert result.coverage == pytest.approx(0.90, abs=0.001)
  assert result.offered


@pytest.mark.parametrize('times', [0.5, 1.7])
def test_a_deviation_that_is_too_small_or_large_is_corrected(times):
  measured = [heteroscedastic(times, s, i) for i, s in enumerate('abc', 1)]
  result = measure_route([heteroscedastic(times)], measured, 'HU')
  assert result.factor == pytest.approx(times * NORMAL_90, rel=0.005)
  assert result.coverage == pytest.approx(0.90, abs=0.002)
  assert result.by_subject.keys() == {'a', 'b', 'c'}
  # Mean deviation 0.105, and 1000 HU per 1.
  width = 2 * times * NORMAL_90 * 0.105 * 1000
  assert result.width == pytest.approx(width, rel=0.02)
  assert result.correlation > 0.3
  assert result.offered


def test_the_factor_of_draws_is_that_of_their_deviation():
  rng = np.random.default_rng(0)
  shape = (1, 200, 200)
  deviation = rng.uniform(0.2, 0.6, shape)

  class Normal:
    def synthesise(self, route, sources, *, seed, progress):
      noise = np.random.default_rng(100 + seed).normal(size=shape)
      return (deviation * noise).astype(np.float32)

  spread = draw_spread(Normal(), ROUTE, np.zeros((1, *shape), np.float32), 200)
  truth = (deviation * rng.normal(size=shape)).astype(np.float32)
  drawn = Voxels(
    'a', truth.ravel(), spread.mean.ravel(), spread.deviation.ravel(), 1.0
  )
  assert factor_of([drawn]) == pytest.approx(NORMAL_90, abs=0.02)


def test_subjects_are_shares_of_their_own_voxels():
  """A subject with two cases, and one of another size."""
  first = voxels(0.1, subject='a')
  wide = voxels(0.1, 100.0, 'a', Z[:10_000])
  other = voxels(0.1, 0.01, 'b', Z[:2_000])
  result = measure_route([first], [first, wide, other], 'HU')
  inside = np.concatenate([v.inside(result.factor) for v in (first, wide)])
  assert result.by_subject == {
    'a': pytest.approx(inside.mean()),
    'b': 1.0,
  }
  assert result.coverage == pytest.approx((inside.sum() + 2_000) / 32_000)


NOT_OFFERED = {
  'too few inside': (
    [heteroscedastic(1.0)],
    [heteroscedastic(2.0)],
    r'its 90 % interval covers 5\d\.\d % of the voxels of 1 subjects, not 85 % '
    'to 95 %',
  ),
  'too many inside': (
    [heteroscedastic(1.0)],
    [heteroscedastic(0.3)],
    r'its 90 % interval covers 100\.0 %',
  ),
  'no error': (
    [heteroscedastic()],
    [heteroscedastic(0.0)],
    'all draws or all errors are equal',
  ),
  'equal draws': (
    [voxels(0.01)],
    [voxels(0.01)],
    'all draws or all errors are equal',
  ),
  'unrelated': (
    [voxels(0.1)],
    [dataclasses.replace(heteroscedastic(), truth=voxels(0.1).truth)],
    r'does not follow the error \(rank correlation -?0\.0\d\)',
  ),
  'no subject': ([], [voxels(0.1)], 'no validation subject has the route'),
}


@pytest.mark.parametrize('kind', NOT_OFFERED)
def test_an_interval_that_does_not_hold_is_not_offered(kind):
  calibrating, measured, reason = NOT_OFFERED[kind]
  result = measure_route(calibrating, measured, 'HU')
  assert not result.offered
  assert re.search(reason, result.reason), result.reason


def naive_sparsification(error, order, share):
  kept = order[round(share * len(order)) :]
  return np.sqrt(np.mean((error[kept] / 2) ** 2))


def test_sparsification_removes_the_most_uncertain_first():
  rng = np.random.default_rng(0)
  deviation = rng.uniform(0.01, 0.2, 400)
  error = np.abs(rng.normal(0, deviation))
  curves, area = sparsification(error, deviation)
  assert curves['removed'] == pytest.approx(np.arange(0, 1, 0.05))
  orders = {
    'by_deviation': np.argsort(-deviation),
    'by_error': np.argsort(-error),
  }
  for name, order in orders.items():
    expected = [
      naive_sparsification(error, order, share) for share in curves['removed']
    ]
    assert curves[name] == pytest.approx(expected)
  whole = np.sqrt(np.mean(error**2)) / 2
  assert curves['random'] == pytest.approx([whole] * 20)
  gap = np.subtract(curves['by_deviation'], curves['by_error'])
  assert area == pytest.approx(gap.mean() / whole)
  assert sparsification(error, error)[1] == pytest.approx(0)
  assert area < sparsification(error, -deviation)[1]


SIDE = 64


def write_store(path, *, test_shift=0.0, without=''):
  """A subject to train on, two each of val and test; texture as truth."""
  splits = {'b0': 'train', 'b1': 'val', 'b2': 'val', 'b3': 'test', 'b4': 'test'}
  splits = {name: s for name, s in splits.items() if s != without}
  writer = StoreWriter(str(path), {'canvas': [SIDE, SIDE]})
  for number, (name, split) in enumerate(splits.items()):
    case = Case(
      id=f'brain.{name}',
      dataset='brain',
      subject=name,
      region=Region.BRAIN,
      modalities=WINDOWS,
      sources=dict.fromkeys(WINDOWS, ''),
      shape=(4, SIDE, SIDE),
      affine=tuple(map(tuple, AFFINE.tolist())),
      plane='axial',
      usable=range(1, 4),
    )
    source = np.linspace(-0.4, 0.4, 4 * SIDE**2).reshape(case.shape)
    noise = np.random.default_rng(number).normal(size=case.shape)
    truth = (source + 0.1 * noise).clip(-0.9, 0.9)
    if split == 'test':
      truth = truth + test_shift
    volumes = {Modality.CT: truth, Modality.MR: source}
    volumes = {m: v.astype(np.float32) for m, v in volumes.items()}
    mask = np.ones(case.shape, bool)
    mask[:, : SIDE // 4] = False
    writer.write_case(case, volumes, mask)
  writer.finish({f'brain.{name}': split for name, split in splits.items()})
  return SliceStore.open(str(path))


@dataclasses.dataclass(frozen=True)
class Sampling:
  points: int = 2


class Noisy:
  """Draws the source with noise of a known deviation."""

  sampling = Sampling()

  def synthesise(self, route, sources, *, seed, progress):
    progress(sources.shape[1])
    noise = np.random.default_rng(seed).normal(size=sources[0].shape)
    return (sources[0] + 0.1 * noise).astype(np.float32)


def measured(store, split='test'):
  return measure_uncertainty(
    Noisy(),
    store,
    store.split(split),
    steps=(5,),
    draws=8,
    routes=[ROUTE.name],
  )


def test_no_measured_subject_enters_a_factor(tmp_path):
  same, shifted = (
    measured(write_store(tmp_path / str(shift), test_shift=shift))
    for shift in (0.0, 0.08)
  )
  same, shifted = same.routes[ROUTE.name], shifted.routes[ROUTE.name]
  assert shifted.factor == same.factor
  assert shifted.coverage < same.coverage - 0.05
  # Means of 8 draws err by 1.06 deviations, which 8 draws estimate.
  assert same.factor == pytest.approx(1.06 * stats.t.ppf(0.95, 7), rel=0.03)
  assert same.by_subject.keys() == {'brain.b3', 'brain.b4'}


def test_the_calibration_says_what_it_was_measured_on(tmp_path):
  store = write_store(tmp_path / 'store')
  result = measured(store)
  assert result.level == 0.9
  assert (result.draws, result.slices, result.seed) == (8, 0, 0)
  assert (result.split, result.steps) == ('test', (5,))
  assert (result.store, result.fingerprint) == (store.path, store.fingerprint)
  assert result.sampling == {'points': 2}


def test_voxels_are_those_of_the_mask_and_not_too_many(tmp_path, monkeypatch):
  store = write_store(tmp_path / 'store')
  (pair, _) = protocol.route_pairs(
    store.split('test'), slices=0, routes=[ROUTE.name]
  )
  item = protocol.RouteCase.read(store, pair)
  places = np.arange(item.truth.size, dtype=np.float32).reshape(
    item.truth.shape
  )
  spread = Spread(places, places + 1)
  drawn = Voxels.of(item, spread)
  np.testing.assert_array_equal(drawn.truth, item.truth[item.mask])
  np.testing.assert_array_equal(drawn.mean, places[item.mask])
  assert drawn.half_window == 1000
  monkeypatch.setattr(uncertainty, '_MOST_VOXELS', 4000)  # of 9216
  thinned = Voxels.of(item, spread)
  np.testing.assert_array_equal(thinned.deviation, drawn.deviation[::3])


@pytest.mark.parametrize(
  ('without', 'split', 'message'),
  [
    ('val', 'test', 'has no subject in split val, on which --intervals'),
    ('', 'val', '--split=val: .* take --split=test'),
    ('', 'train', '--split=train: '),
  ],
)
def test_subjects_that_cannot_measure_are_refused(
  tmp_path, without, split, message
):
  store = write_store(tmp_path / 'store', without=without)
  with pytest.raises(IntervalError, match=message) as error:
    measured(store, split)
  assert '\n' not in str(error.value)


def test_the_table_has_a_line_of_each_route(tmp_path):
  result = measured(write_store(tmp_path / 'store'))
  interval = dataclasses.replace(
    result.routes[ROUTE.name],
    factor=1.5,
    coverage=0.8,
    by_subject={'a': 0.78, 'b': 0.82},
    width=81.44,
    correlation=0.5,
    ause=0.25,
    reason='it covers too little',
  )
  result = dataclasses.replace(result, routes={ROUTE.name: interval})
  head, row, note = uncertainty.table(result).splitlines()
  assert head.split() == [
    *('route', 'factor', 'coverage', 'subjects', 'width', 'correlation'),
    'AUSE',
  ]
  assert ' '.join(row.split()) == (
    'brain_mr_to_ct 1.50 0.800 0.780–0.820 81.4 HU 0.50 0.250 not offered: it '
    'covers too little'
  )
  assert '0 of 1 routes are offered (coverage 85 % to 95 %).' in note
