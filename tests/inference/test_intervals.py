"""Intervals: spread of draws, the ends, and the file of a run."""

import dataclasses
import json

import numpy as np
import pytest

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference.intervals import (
  FILE,
  Calibration,
  IntervalError,
  RouteInterval,
  draw_spread,
  ends,
  is_constant,
  one_draw,
  translate_interval,
)
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.volumes import Volume

ROUTE = route_named('brain_mr_to_ct')
SOURCES = np.zeros((1, 2, 3, 4), np.float32)


class Listed:
  """Synthesises the next of some images, and notes the seeds."""

  def __init__(self, images):
    self.images, self.seeds = list(images), []

  def synthesise(self, route, sources, *, seed, progress):
    self.seeds.append(seed)
    if progress:
      progress(sources.shape[1])
    return self.images.pop(0)


def test_the_spread_is_mean_and_sample_deviation_of_the_draws():
  images = np.random.default_rng(0).uniform(-1, 1, (5, 2, 3, 4))
  model, slices = Listed(images.astype(np.float32)), []
  spread = draw_spread(model, ROUTE, SOURCES, 5, seed=7, progress=slices.append)
  assert model.seeds == [7, 8, 9, 10, 11]
  assert sum(slices) == 5 * 2
  np.testing.assert_allclose(spread.mean, images.mean(0), atol=1e-6)
  np.testing.assert_allclose(
    spread.deviation, np.hypot(images.std(0, ddof=1), 0.01), atol=1e-6
  )
  assert not is_constant(spread.deviation)


def test_draws_that_agree_have_the_deviation_of_the_floor():
  image = np.full((2, 3, 4), 0.3, np.float32)
  spread = draw_spread(Listed([image] * 3), ROUTE, SOURCES, 3)
  np.testing.assert_allclose(spread.deviation, 0.01, rtol=1e-5)
  assert is_constant(spread.deviation)


def test_one_draw_and_values_that_are_not_finite_are_refused():
  image = np.zeros((2, 3, 4), np.float32)
  with pytest.raises(ValueError, match='at least 2 draws'):
    draw_spread(Listed([image]), ROUTE, SOURCES, 1)
  bad = image.copy()
  bad[0, 0, 0] = np.nan
  with pytest.raises(ValueError, match='not finite'):
    draw_spread(Listed([image, bad]), ROUTE, SOURCES, 2)


def test_the_ends_are_factor_deviations_away_within_the_window():
  mean = np.float32([0, 0.9, -0.9])
  low, high = ends(mean, np.float32([0.1, 0.1, 0.2]), 2.0)
  np.testing.assert_allclose(low, [-0.2, 0.7, -1], atol=1e-6)
  np.testing.assert_allclose(high, [0.2, 1, -0.5], atol=1e-6)


class Drawn:
  """A run whose draws are noise."""

  slices = SliceSpec((8, 8))
  sampling = None

  def synthesiser(self, sampling, *, batch_size):
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 4, 8, 8))
    return Listed(noise.astype(np.float32))


def test_the_low_end_of_a_volume_is_never_above_the_high_end():
  """Pixels of 4 voxels: the border lies beyond the outermost pixels."""
  mr = np.random.default_rng(1).uniform(1, 100, (32, 32, 4))
  volume = Volume(mr.astype(np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
  interval = translate_interval(
    Drawn(), {Modality.MR: volume}, ROUTE, 1.5, 3, progress=[].append
  )
  low, high = interval.low.data, interval.high.data
  assert low.shape == high.shape == volume.data.shape
  assert (low <= high).all()
  assert (low < high).mean() > 0.9


SAMPLING = SamplingConfig(points=2, shift=3.0, draws=32)
CURVES = {name: [0.1, 0.05] for name in ('by_deviation', 'by_error', 'random')}


def calibration(**changes):
  held = RouteInterval(
    factor=1.5,
    coverage=0.9,
    by_subject={'fake.a': 0.88, 'fake.b': 0.92},
    width=80.0,
    unit='HU',
    correlation=0.6,
    sparsification={'removed': [0.0, 0.5], **CURVES},
    ause=0.1,
  )
  reason = 'its 90 % interval covers 80.0 % of the voxels'
  failed = dataclasses.replace(held, coverage=0.8, reason=reason)
  values = {
    'routes': {'brain_mr_to_ct': held, 'brain_ct_to_mr': failed},
    'level': 0.9,
    'draws': 8,
    'sampling': dataclasses.asdict(one_draw(SAMPLING)),
    'steps': (40,),
    'split': 'test',
    'slices': 6,
    'seed': 0,
    'store': 'runs/store',
    'fingerprint': 'abc',
  }
  return Calibration(**values | changes)


def test_the_file_keeps_everything(tmp_path):
  calibration().write(tmp_path, {'factor': 'its definition'})
  record = json.loads((tmp_path / FILE).read_text())
  assert record['definition'] == {'factor': 'its definition'}
  assert record['routes']['brain_mr_to_ct']['offered'] is True
  assert record['routes']['brain_ct_to_mr']['offered'] is False
  read = Calibration.read(tmp_path)
  assert read.routes == calibration().routes
  assert read.steps == (40,)
  read.check(tmp_path, ROUTE, (40,), SAMPLING)


def damaged(record, change):
  route = record['routes']['brain_mr_to_ct']
  if change == 'version':
    record['version'] = 99
  elif change == 'factor':
    route['factor'] = None
  elif change == 'offered':
    route['offered'] = False
  elif change == 'key':
    del record['draws']
  return json.dumps(record)[: 50 if change == 'cut' else None]


@pytest.mark.parametrize(
  'change', ['version', 'factor', 'offered', 'key', 'cut']
)
def test_a_file_that_is_damaged_is_refused(tmp_path, change):
  calibration().write(tmp_path, {})
  path = tmp_path / FILE
  path.write_text(damaged(json.loads(path.read_text()), change))
  with pytest.raises(IntervalError, match=r'uncertainty.json: is not a file'):
    Calibration.read(tmp_path)


def test_a_run_without_the_file_names_the_command(tmp_path):
  command = f'evaluate --workdir={tmp_path} --intervals'
  with pytest.raises(IntervalError, match=command):
    Calibration.read(tmp_path)


REFUSED = {
  'checkpoint': (ROUTE, (41,), SAMPLING, 'measured at step 40, .* step 41'),
  'sampling': (
    ROUTE,
    (40,),
    dataclasses.replace(SAMPLING, points=5, grain=2.0),
    'measured with another points, grain',
  ),
  'route': (
    route_named('pelvis_ct_to_mr'),
    (40,),
    SAMPLING,
    'has no pelvis_ct_to_mr, only brain_mr_to_ct',
  ),
  'coverage': (
    route_named('brain_ct_to_mr'),
    (40,),
    SAMPLING,
    'no interval of brain_ct_to_mr is offered: its 90 % interval covers 80.0 %',
  ),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_an_interval_that_was_not_measured_or_fails_is_refused(kind):
  route, steps, sampling, message = REFUSED[kind]
  with pytest.raises(IntervalError, match=message) as error:
    calibration().check('run', route, steps, sampling)
  assert '\n' not in str(error.value)


def test_the_number_of_draws_of_the_image_does_not_matter():
  other = dataclasses.replace(SAMPLING, draws=3)
  calibration().check('run', ROUTE, (40,), other)
