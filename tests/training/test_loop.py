"""The step, the meters and the logs, on a model of a few numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nano
import numpy as np
import optax
import pytest

from synermedgen_jax.core.batch import Layout, PackedBatch
from synermedgen_jax.core.sharding import batch_sharding, make_mesh
from synermedgen_jax.training import loop
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.train_state import TrainState

TESTS = Path(__file__).parents[1]
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
    noise_ids=none,
    vit_patches=np.zeros((2, 0, 1), np.float32),
    vit_positions=none,
    vit_visible_from=none,
    vit_visible_to=none,
    vae_images=np.zeros((2, 0, 1, 1, 1), np.float32),
  )


@pytest.fixture
def step_config(monkeypatch):
  """A stage whose loss is known, and which shows what noise it draws."""

  def sums(model, params, batch, key, config):
    value = (params['w'] * params['slope']).sum()
    return {
      'l1': (3 * value, jnp.float32(3)),
      'noise': (jax.random.normal(key), jnp.ones(())),
    }

  monkeypatch.setattr(loop, 'OBJECTIVES', {'toy': sums})
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
  step = jax.jit(loop.make_train_step(nano.MODEL, tx, step_config))
  state, found = first_state(tx, ema), []
  for _ in range(count):
    state, sums = step(state, batch())
    found.append((state, jax.device_get(sums)))
  return found


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
  step = jax.jit(loop.make_eval_step(nano.MODEL, step_config))
  return loop.validate(step, state, batches, ROWS)


def test_validation_is_of_the_average_and_changes_nothing(step_config):
  ((state, _),) = run_steps(step_config, 1)
  found = validate(step_config, state, [batch(), batch()])
  # A tenth of the start and nine tenths of the first step.
  expected = (0.1 * START + 0.9 * np.array([-0.5, 4.0])) @ SLOPE
  assert found.keys() == {'val/l1', 'val/noise', 'val/loss'}
  assert found['val/l1'] == pytest.approx(expected)
  assert found['val/loss'] == pytest.approx(expected)
  np.testing.assert_allclose(state.trainable['w'], [-0.5, 4.0])


def test_validation_without_an_average_is_of_the_parameters(step_config):
  ((state, _),) = run_steps(step_config, 1, ema=False)
  found = validate(step_config, state, [batch()])
  assert found['val/l1'] == pytest.approx(-17.5)


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
def test_what_is_due_at_which_step(due, steps):
  config = loop.LoopConfig(
    10, optax.constant_schedule(1), log_every=3, checkpoint_every=4, val_every=6
  )
  assert [s for s in range(1, 11) if getattr(config, due)(s)] == steps


def test_a_run_may_never_validate():
  config = loop.LoopConfig(4, optax.constant_schedule(1), val_every=0)
  assert not any(map(config.validates, range(1, 5)))
