"""The step, the meters and the logs, on a model of a few numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import nano
import numpy as np
import optax
import pytest

from synermedgen_jax.core.batch import Layout, PackedBatch
from synermedgen_jax.core.sharding import batch_sharding, make_mesh
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.training import loop
from synermedgen_jax.training.metrics_log import Meter
from synermedgen_jax.training.objectives import Objective, ObjectiveConfig
from synermedgen_jax.training.train_state import TrainState

pytestmark = pytest.mark.usefixtures('quick_compiles')
ROWS = batch_sharding(make_mesh((1, 1, 1), jax.devices()[:1]))
# The loss is w . slope, so its gradient is the slope, of norm 5.
START, SLOPE = np.array([1.0, 2.0]), np.array([3.0, -4.0])
LEARNING_RATE = 0.5


def batch() -> PackedBatch:
  """Two rows of four und tokens of which five are used."""
  und = np.array([[1, 1, 2, 0], [1, 1, 0, 0]], np.int32)
  none = np.zeros((2, 0), np.int32)
  return PackedBatch(
    und=Layout(und, und, und, und, example_ids=und),
    token_ids=und,
    vit_index=und,
    labels=und,
    ntp_weight=und.astype(np.float32),
    task_ids=und,
    gen=Layout(*[none] * 5),
    latent_index=none,
    latent_positions=none,
    latent_offsets=none,
    noise_ids=none,
    vit_patches=np.zeros((2, 0, 1), np.float32),
    vit_positions=none,
    vit_visible_from=none,
    vit_visible_to=none,
    vae_images=np.zeros((2, 0, 1, 1, 1), np.float32),
  )


@pytest.fixture
def step_config(monkeypatch):
  """A stage with a known loss that returns the noise it draws."""

  def sums(model, params, batch, key, config, tasks):
    value = (params['w'] * params['slope']).sum()
    return {
      'l1': (3 * value, jnp.float32(3)),
      'noise': (jax.random.normal(key), jnp.ones(())),
    }

  monkeypatch.setattr(loop, 'OBJECTIVES', {'toy': Objective(sums, ('l1',))})
  return loop.StepConfig('toy', ObjectiveConfig(), ema_decay=0.2, seed=7)


def first_state(tx, ema=True) -> TrainState:
  trainable = {'w': jnp.asarray(START, jnp.float32)}
  return TrainState(
    step=jnp.int32(0),
    trainable=trainable,
    frozen={'slope': jnp.asarray(SLOPE, jnp.float32)},
    opt_state=tx.init(trainable),
    ema=dict(trainable) if ema else {},
  )


def run_steps(step_config, count, ema=True):
  """The states and sums of `count` steps of plain gradient descent."""
  tx = optax.sgd(LEARNING_RATE)
  step = jax.jit(loop.make_train_step(nano.BAGEL, tx, step_config))
  state, rows = first_state(tx, ema), []
  for _ in range(count):
    state, sums = step(state, batch())
    rows.append((state, jax.device_get(sums)))
  return rows


def test_a_step_goes_down_the_gradient_and_counts(step_config):
  (first, sums), (second, more) = run_steps(step_config, 2)
  np.testing.assert_allclose(first.trainable['w'], [-0.5, 4.0])
  np.testing.assert_allclose(second.trainable['w'], [-2.0, 6.0])
  assert (int(first.step), int(second.step)) == (1, 2)
  assert sums['l1'] == (-15.0, 3.0)
  assert sums['loss'] == (-5.0, 1.0)
  assert more['loss'] == (-17.5, 1.0)
  assert sums['grad_norm'] == (5.0, 1.0)


def test_frozen_parameters_stay_what_they_are(step_config):
  for state, _ in run_steps(step_config, 3):
    np.testing.assert_array_equal(state.frozen['slope'], SLOPE)
    assert state.trainable.keys() == state.ema.keys() == {'w'}


def test_the_fill_of_a_stream_is_the_share_of_its_used_tokens(step_config):
  ((_, sums),) = run_steps(step_config, 1)
  assert sums['fill/und'] == (5.0, 8.0)
  assert sums['fill/gen'] == (0.0, 0.0)


def test_tokens_and_images_are_counted_a_step(step_config):
  rows = batch().replace(
    vit_patches=np.zeros((2, 4, 1), np.float32),
    vit_positions=np.zeros((2, 4), np.int32),
    # Two images and padding; then an image and padding.
    vit_visible_from=np.array([[0, 0, 2, 0], [0, 0, 0, 0]], np.int32),
    vit_visible_to=np.array([[2, 2, 3, 0], [3, 3, 3, 0]], np.int32),
  )
  step = loop.make_train_step(nano.BAGEL, optax.sgd(1.0), step_config)
  _, sums = jax.jit(step)(first_state(optax.sgd(1.0)), rows)
  assert sums['tokens/und'] == (5.0, 1.0)
  assert sums['tokens/gen'] == (0.0, 1.0)
  assert sums['images'] == (3.0, 1.0)


def test_every_step_draws_noise_of_its_own(step_config):
  noise = [float(sums['noise'][0]) for _, sums in run_steps(step_config, 3)]
  assert len(set(noise)) == 3
  assert noise == [float(s['noise'][0]) for _, s in run_steps(step_config, 3)]


def test_a_young_average_follows_closely_and_then_settles(step_config):
  states = [state for state, _ in run_steps(step_config, 4)]
  average, w = START, START
  # (1 + age) / (10 + age) is below 0.2 for the first two steps.
  for state, decay in zip(states, (1 / 10, 2 / 11, 0.2, 0.2), strict=True):
    w = w - LEARNING_RATE * SLOPE
    average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(state.ema['w'], average, rtol=1e-6)


def test_a_run_without_an_average_keeps_none(step_config):
  ((state, _),) = run_steps(step_config, 1, ema=False)
  assert state.ema == {}


def validate(step_config, state, batches):
  step = jax.jit(loop.make_eval_step(nano.BAGEL, step_config))
  return loop.validate(step, state, batches, ROWS)


def test_validation_uses_the_average_and_changes_nothing(step_config):
  ((state, _),) = run_steps(step_config, 1)
  losses = validate(step_config, state, [batch(), batch()])
  # A tenth of the start and nine tenths of the first step.
  expected = (0.1 * START + 0.9 * np.array([-0.5, 4.0])) @ SLOPE
  assert losses.keys() == {'val/l1', 'val/noise', 'val/loss'}
  assert losses['val/l1'] == pytest.approx(expected)
  assert losses['val/loss'] == pytest.approx(expected)
  np.testing.assert_allclose(state.trainable['w'], [-0.5, 4.0])


def test_validation_without_an_average_uses_the_parameters(step_config):
  ((state, _),) = run_steps(step_config, 1, ema=False)
  losses = validate(step_config, state, [batch()])
  assert losses['val/l1'] == pytest.approx(-17.5)


def test_validation_draws_the_same_noise_at_every_step(step_config):
  first, later = (state for state, _ in run_steps(step_config, 2))
  two = [batch(), batch()]
  noise = validate(step_config, first, two)['val/noise']
  assert validate(step_config, later, two)['val/noise'] == noise
  # Each batch has its own, so their mean is not that of the first.
  assert validate(step_config, first, two[:1])['val/noise'] != noise


@pytest.mark.parametrize(
  ('due', 'steps'),
  [
    ('logs', [3, 4, 6, 8, 9, 10]),
    ('saves', [4, 8, 10]),
    ('validates', [6, 10]),
  ],
)
def test_intervals_determine_the_steps_of_logs_and_saves(due, steps):
  config = loop.LoopConfig(
    10, optax.constant_schedule(1), log_every=3, checkpoint_every=4, val_every=6
  )
  assert [s for s in range(1, 11) if getattr(config, due)(s)] == steps


def test_a_run_may_never_validate():
  config = loop.LoopConfig(4, optax.constant_schedule(1), val_every=0)
  assert not any(map(config.validates, range(1, 5)))


# What a batch does to the loss: a number that is added to it, a factor of it,
# and the radicand of a root, whose gradient at zero is not finite.
GOOD = (0.0, 1.0, 1.0)
BAD = {
  'loss': ((np.inf, 1.0, 1.0), (1, 0)),
  'gradient': ((0.0, 1.0, 0.0), (0, 1)),
  'both': ((0.0, np.nan, 1.0), (1, 1)),
}


@pytest.fixture
def fragile_config(step_config, monkeypatch):
  """A loss that the batch can spoil; the average is old from the start."""

  def sums(model, params, batch, key, config, tasks):
    added, factor, radicand = batch.ntp_weight[0, :3]
    w = params['w']
    value = factor * (w * params['slope']).sum() + added
    root = jnp.sqrt(radicand * (w**2).sum())
    value += jnp.where(radicand > 0, 0.0, root)
    return {
      'l1': (value, jnp.ones(())),
      'noise': (jax.random.normal(key), jnp.ones(())),
    }

  monkeypatch.setattr(loop, 'OBJECTIVES', {'toy': Objective(sums, ('l1',))})
  return dataclasses.replace(step_config, ema_decay=0.05)


def follow(config, *effects):
  """The states and sums of steps of Adam on batches of such effects."""
  tx = optax.adam(LEARNING_RATE)
  step = jax.jit(loop.make_train_step(nano.BAGEL, tx, config))
  state, terms = first_state(tx), []
  for effect in effects:
    weights = np.zeros((2, 4), np.float32)
    weights[0, :3] = effect
    state, sums = step(state, batch().replace(ntp_weight=weights))
    terms.append((state, jax.device_get(sums)))
  return terms


def assert_same_but_for_the_step(actual, expected):
  actual, expected = actual.replace(step=0), expected.replace(step=0)
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize('cause', BAD)
def test_a_step_that_is_not_finite_changes_nothing_and_names_the_cause(
  fragile_config, cause
):
  effect, (of_loss, of_gradient) = BAD[cause]
  (before, _), (after, sums) = follow(fragile_config, GOOD, effect)
  assert_same_but_for_the_step(after, before)
  assert int(after.step) == 2
  assert sums['skipped/loss'] == (of_loss, 1.0)
  assert sums['skipped/gradient'] == (of_gradient, 1.0)


@pytest.mark.parametrize('cause', BAD)
def test_a_step_that_is_not_finite_counts_for_nothing(fragile_config, cause):
  (_, good), (_, bad) = follow(fragile_config, GOOD, BAD[cause][0])
  flags = {'skipped/loss', 'skipped/gradient', 'skipped/update'}
  assert bad.keys() == good.keys() > flags | {'loss', 'l1', 'grad_norm'}
  assert {name: bad[name] for name in bad.keys() - flags} == dict.fromkeys(
    bad.keys() - flags, (0.0, 0.0)
  )
  meter = Meter()
  for sums in (bad, good):
    meter.add(sums)
  means = meter.means()
  assert (means['loss'], means['grad_norm']) == (-5.0, 5.0)


def test_a_good_step_is_marked_as_not_skipped(fragile_config):
  ((_, sums),) = follow(fragile_config, GOOD)
  assert sums['skipped/loss'] == (0.0, 1.0)
  assert sums['skipped/gradient'] == (0.0, 1.0)


@pytest.mark.parametrize('cause', BAD)
def test_a_bad_step_does_not_change_the_next_one(fragile_config, cause):
  bad = BAD[cause][0]
  *_, (state, _) = follow(fragile_config, GOOD, bad, bad, GOOD)
  *_, (expected, _) = follow(fragile_config, GOOD, GOOD)
  assert_same_but_for_the_step(state, expected)
  assert int(state.step) == 4


def test_the_optimiser_counts_good_steps_alone(fragile_config):
  steps = follow(fragile_config, GOOD, BAD['gradient'][0], GOOD)
  counts = [optax.tree.get(state.opt_state, 'count') for state, _ in steps]
  assert counts == [1, 1, 2]


def test_a_skipped_steps_noise_is_not_drawn_again(fragile_config):
  bad = BAD['gradient'][0]
  steps = follow(fragile_config, GOOD, bad, GOOD)
  undisturbed = follow(fragile_config, GOOD, GOOD, GOOD)
  noise = [sums['noise'][0] for _, sums in steps]
  expected = [sums['noise'][0] for _, sums in undisturbed]
  assert noise == [expected[0], 0.0, expected[2]]
  assert expected[2] != expected[1]


def test_a_gradient_whose_norm_is_too_large_is_not_finite(fragile_config):
  # 3e30 and -4e30 are numbers; the sum of their squares is none.
  (_, (state, sums)) = follow(fragile_config, GOOD, (0.0, 1e30, 1.0))
  assert sums['skipped/gradient'] == (1.0, 1.0)
  assert sums['skipped/loss'] == (0.0, 1.0)
  assert np.isfinite(state.trainable['w']).all()


def test_an_update_that_is_too_large_is_not_applied(fragile_config):
  tx = optax.sgd(1e38)
  step = jax.jit(loop.make_train_step(nano.BAGEL, tx, fragile_config))
  weights = np.zeros((2, 4), np.float32)
  weights[0, :3] = GOOD
  state, sums = step(first_state(tx), batch().replace(ntp_weight=weights))
  np.testing.assert_array_equal(state.trainable['w'], START)
  assert sums['skipped/update'] == (1.0, 1.0)
  assert sums['skipped/gradient'] == (0.0, 1.0)


def test_gradient_norms_are_logged_by_part(step_config, monkeypatch):
  slopes = {
    'vit/bias': np.array([2.0], np.float32),
    'mot/layers/und/kernel': np.array([2.0, 3.0], np.float32),
    'mot/und_norm/scale': np.array([6.0], np.float32),
    'mot/layers/gen/kernel': np.array([-4.0], np.float32),
    'mot/gen_norm/scale': np.array([3.0], np.float32),
  }

  def sums(model, params, batch, key, config, tasks):
    flat = flatten(params)
    value = sum((flat[name] * slope).sum() for name, slope in slopes.items())
    return {'l1': (value, jnp.ones(()))}

  monkeypatch.setattr(loop, 'OBJECTIVES', {'toy': Objective(sums, ('l1',))})
  tx = optax.sgd(1.0)
  trainable = {name: jnp.ones_like(slope) for name, slope in slopes.items()}
  state = TrainState(jnp.int32(0), trainable, {}, tx.init(trainable), {})
  _, sums = jax.jit(loop.make_train_step(nano.BAGEL, tx, step_config))(
    state, batch()
  )
  norms = {n: float(v) for n, (v, _) in sums.items() if 'grad_norm' in n}
  assert norms == {
    'grad_norm': pytest.approx(78**0.5),  # 4 + 4 + 9 + 36 + 16 + 9
    'grad_norm/vit': 2.0,
    'grad_norm/und': 7.0,
    'grad_norm/gen': 5.0,
  }
