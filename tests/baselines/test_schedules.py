"""Schedules, draws and posteriors of BBDM, SynDiff and SelfRDB."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.baselines import schedules as lib

BRIDGE = lib.BrownianBridge()
VP = lib.VPSchedule()
NOISY = lib.NoisyBridge()


def images(seed, batch=3):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(batch, 2, 3, 1)), jnp.float32)


X0, Y, X_T, NOISE = (images(seed) for seed in range(4))


def column(values):
  """One value per image, against images."""
  return np.asarray(values).reshape(-1, 1, 1, 1)


def assert_printed(actual, printed):
  """Equality in the digits that a table prints."""
  for value, text in zip(actual, printed.split(), strict=True):
    digits = len(text.partition('.')[2])
    assert abs(value - float(text)) <= 0.51 * 10**-digits, (value, text)


def propagated(posterior, entry, x0, y, variance):
  """Coefficients of x0 and y and the variance after a step back.

  Of an x_t with coefficients x0 and y and noise of this variance.
  """
  weight = posterior.x_t[entry]
  return (
    posterior.x0[entry] + weight * x0,
    posterior.y[entry] + weight * y,
    posterior.variance[entry] + weight**2 * variance,
  )


def assert_moments(draws, mean, deviation):
  """Many draws have this mean and this standard deviation."""
  draws = np.asarray(draws, np.float64).ravel()
  standard_error = deviation / math.sqrt(draws.size)
  assert abs(draws.mean() - mean) < 4 * standard_error
  assert abs(draws.std() / deviation - 1) < 4 / math.sqrt(2 * draws.size)


def many(value):
  return jnp.full((1, 200, 200, 1), value, jnp.float32)


def normal(seed):
  return jax.random.normal(jax.random.key(seed), (1, 200, 200, 1))


# BBDM.


def test_the_brownian_bridge_leads_from_the_image_to_the_source():
  assert len(BRIDGE.m) == 1000
  np.testing.assert_allclose(np.diff(BRIDGE.m), 0.998 / 999)
  zeros = jnp.zeros_like(X0)
  start, end = (BRIDGE.noised(t, X0, Y, zeros) for t in (0, 999))
  np.testing.assert_allclose(start, 0.999 * X0 + 0.001 * Y, rtol=1e-5)
  np.testing.assert_allclose(end, 0.001 * X0 + 0.999 * Y, rtol=1e-5)


def test_the_brownian_bridge_is_noisiest_in_its_middle():
  np.testing.assert_allclose(BRIDGE.variance[[0, 999]], 2 * 0.001 * 0.999)
  np.testing.assert_allclose(BRIDGE.variance, BRIDGE.variance[::-1])
  assert BRIDGE.variance.argmax() in (499, 500)
  np.testing.assert_allclose(BRIDGE.variance.max(), 0.5, atol=1e-5)


def test_each_image_of_a_batch_has_its_own_step():
  t = np.array([0, 321, 998])
  m = column([0.001 + 0.998 * step / 999 for step in t])
  deviation = np.sqrt(2 * m * (1 - m))
  np.testing.assert_allclose(
    BRIDGE.noised(t, X0, Y, NOISE),
    (1 - m) * X0 + m * Y + deviation * NOISE,
    atol=1e-6,
  )
  np.testing.assert_allclose(
    BRIDGE.target(t, X0, Y, NOISE), m * (Y - X0) + deviation * NOISE, atol=1e-6
  )


def test_the_target_gives_back_the_image():
  t = jnp.array([3, 500, 999])
  x_t = BRIDGE.noised(t, X0, Y, NOISE)
  target = BRIDGE.target(t, X0, Y, NOISE)
  np.testing.assert_allclose(BRIDGE.clean(x_t, target), X0, atol=1e-6)


def test_sampling_visits_200_steps():
  visited = BRIDGE.visited
  assert len(visited) == 200
  assert list(visited[:3]) == [999, 993, 988]
  assert list(visited[-5:]) == [15, 10, 5, 1, 0]
  assert (np.diff(visited) < 0).all()
  assert set(np.diff(visited)[:-2]) == {-5, -6}


def test_a_step_back_is_the_published_one():
  number = np.array([0, 77, 198])
  t, n = BRIDGE.visited[number], BRIDGE.visited[number + 1]
  m_t, m_n = column(BRIDGE.m[t]), column(BRIDGE.m[n])
  var_t, var_n = 2 * (m_t - m_t**2), 2 * (m_n - m_n**2)
  s2 = (var_t - var_n * (1 - m_t) ** 2 / (1 - m_n) ** 2) * var_n / var_t
  mean = (1 - m_n) * X0 + m_n * Y
  mean += np.sqrt((var_n - s2) / var_t) * (X_T - (1 - m_t) * X0 - m_t * Y)
  np.testing.assert_allclose(
    BRIDGE.step_back(number, X_T, X0, Y, NOISE),
    mean + np.sqrt(s2) * NOISE,
    atol=1e-5,
  )


def test_the_brownian_bridges_last_step_returns_the_image():
  np.testing.assert_array_equal(BRIDGE.step_back(199, X_T, X0, Y, NOISE), X0)


def test_steps_back_keep_the_law_of_the_brownian_bridge():
  visited = BRIDGE.visited
  for entry, (t, n) in enumerate(itertools.pairwise(visited)):
    law = 1 - BRIDGE.m[t], BRIDGE.m[t], BRIDGE.variance[t]
    np.testing.assert_allclose(
      propagated(BRIDGE.posterior, entry, *law),
      (1 - BRIDGE.m[n], BRIDGE.m[n], BRIDGE.variance[n]),
      rtol=1e-9,
    )


def test_draws_of_the_brownian_bridge_have_its_moments():
  x0, y = many(-0.4), many(0.7)
  number = 60
  t, n = BRIDGE.visited[[number, number + 1]]
  x_t = BRIDGE.noised(int(t), x0, y, normal(0))
  x_n = BRIDGE.step_back(number, x_t, x0, y, normal(1))
  for draws, step in ((x_t, t), (x_n, n)):
    m = 0.001 + 0.998 * step / 999
    assert_moments(draws, -0.4 + 1.1 * m, math.sqrt(2 * m * (1 - m)))


@pytest.mark.parametrize('bridge', [BRIDGE, lib.BrownianBridge(100, 10)])
def test_a_perfect_network_samples_the_image_from_the_source(bridge):
  def step(x_t, inputs):
    number, key = inputs
    predicted = x_t - X0
    x0 = bridge.clean(x_t, predicted)
    noise = jax.random.normal(key, X0.shape)
    return bridge.step_back(number, x_t, x0, Y, noise), x_t

  keys = jax.random.split(jax.random.key(0), bridge.sampling_steps)
  numbers = jnp.arange(bridge.sampling_steps)
  sample, path = jax.lax.scan(step, Y, (numbers, keys))
  np.testing.assert_allclose(sample, X0, atol=1e-6)
  # The images in between are noised ones.
  middle = np.abs(path[len(path) // 2] - (X0 + Y) / 2)
  assert 0.1 < middle.mean() < 2


# SynDiff.


def test_the_vp_schedule_has_the_published_constants():
  assert_printed(VP.alpha_bar, '.99989 .521687 .0786673 .0034285 .0000431857')
  assert_printed(VP.betas, '.00000001 .478255 .849206 .956418 .987404')
  assert_printed(VP.signal, '1.0 .722319 .280492 .0585566 .0065719')
  assert_printed(VP.noise, '.0001 .691560 .959856 .998284 .999978')
  assert_printed(VP.posterior.x0, '1.0 .665778 .269191 .0578215')
  assert_printed(VP.posterior.x_t, '.0 .201576 .193001 .111852')
  assert_printed(VP.posterior.variance, '.0 .440819 .884202 .984061')
  assert (VP.posterior.y == 0).all()


def test_alpha_bar_solves_its_differential_equation():
  """d log(alpha_bar) / dt = -beta, summed over small steps of time."""
  time = np.linspace(0, 1, 200_001)
  middle = (time[1:] + time[:-1]) / 2
  integral = np.cumsum(0.1 + 19.9 * middle) * np.diff(time)
  expected = np.exp(
    -np.interp(VP.epsilon + 0.999 * np.arange(5) / 4, time[1:], integral)
  )
  np.testing.assert_allclose(VP.alpha_bar, expected, rtol=1e-6)


def test_the_vp_schedule_preserves_the_variance():
  np.testing.assert_allclose(VP.signal**2 + VP.noise**2, 1)


def test_a_noised_pair_is_a_step_of_the_chain():
  t = np.array([0, 1, 3])
  signal, noise = (column(table[t]) for table in (VP.signal, VP.noise))
  beta = column(VP.betas[t + 1])
  next_noise = images(9)
  x_t, x_next = VP.noised_pair(t, X0, NOISE, next_noise)
  expected = signal * X0 + noise * NOISE
  np.testing.assert_allclose(x_t, expected, atol=1e-6)
  np.testing.assert_allclose(x_t, VP.noised(t, X0, NOISE), atol=1e-6)
  np.testing.assert_allclose(
    x_next,
    np.sqrt(1 - beta) * expected + np.sqrt(beta) * next_noise,
    atol=1e-6,
  )


def test_draws_of_the_vp_schedule_have_its_moments():
  x0 = many(0.6)
  x_t, x_next = VP.noised_pair(1, x0, normal(0), normal(1))
  back = VP.step_back(1, x_next, x0, normal(2))
  for draws, step in ((x_t, 1), (x_next, 2), (back, 1)):
    assert_moments(draws, 0.6 * VP.signal[step], VP.noise[step])
  # x_t correlates with x_{t+1} in the draw back as in the pair.
  forward, backward = (
    np.corrcoef(np.ravel(x), np.ravel(x_next))[0, 1] for x in (x_t, back)
  )
  assert 0.2 < forward < 0.4
  assert abs(forward - backward) < 0.03


def test_steps_back_keep_the_law_of_the_vp_schedule():
  for t in range(4):
    law = VP.signal[t + 1], 0, VP.noise[t + 1] ** 2
    np.testing.assert_allclose(
      propagated(VP.posterior, t, *law),
      (VP.signal[t], 0, VP.noise[t] ** 2),
      atol=2e-8,  # x_0 has a little noise in training
    )


def test_a_perfect_generator_returns_the_image_in_four_steps():
  x = VP.noised(4, X0, NOISE)
  assert np.abs(x - NOISE).max() < 0.02
  for t in (3, 2, 1, 0):
    x = VP.step_back(t, x, X0, images(20 + t))
    assert (np.abs(x - X0).max() < 1e-6) == (t == 0)


# SelfRDB.


def test_the_noisy_bridge_has_the_published_constants():
  assert_printed(
    NOISY.betas,
    '.0 .1 .1152 .1314 .1487 .1671 .1487 .1314 .1152 .1 .0',
  )
  assert_printed([NOISY.betas.sum()], '1.1578')
  mu_x0 = '1.0 .9205 .831 .7312 .6209 .5 .3791 .2688 .169 .0795 .0'
  assert_printed(NOISY.mu_x0, mu_x0)
  assert_printed(
    NOISY.std,
    '.0 .2911 .4219 .5287 .6237 .7113 .7981 .8719 .9355 .9905 1.076',
  )
  np.testing.assert_allclose(NOISY.mu_x0 + NOISY.mu_y, 1)


def test_the_noisy_bridge_is_a_mirror_image():
  np.testing.assert_allclose(NOISY.mu_x0, NOISY.mu_y[::-1], atol=1e-15)
  np.testing.assert_allclose(
    NOISY.deviation**2, np.cumsum(NOISY.betas), rtol=1e-12
  )
  np.testing.assert_allclose(NOISY.backward_deviation, NOISY.deviation[::-1])


@pytest.mark.parametrize('steps', [4, 5])
def test_betas_of_any_number_of_steps_mirror_each_other(steps):
  betas = lib.NoisyBridge(steps).betas
  np.testing.assert_array_equal(betas, betas[::-1])
  assert len(betas) == steps + 1
  np.testing.assert_allclose(betas[:2], [0, 0.1])
  assert (np.diff(betas[: steps // 2 + 1]) > 0).all()


def test_the_noisy_bridge_starts_at_the_image_and_ends_at_source_and_noise():
  np.testing.assert_allclose(NOISY.noised(0, X0, Y, NOISE), X0, atol=1e-7)
  end = NOISY.noised(10, X0, Y, NOISE)
  np.testing.assert_allclose(end, Y + 1.07603 * NOISE, atol=1e-4)


def test_a_step_back_of_the_noisy_bridge_is_the_published_one():
  t = np.array([2, 6, 10])
  mu_x0, mu_y, s = NOISY.mu_x0, NOISY.mu_y, NOISY.deviation
  left = [column(table[t]) for table in (mu_x0, mu_y, s**2)]
  back = [column(table[t - 1]) for table in (mu_x0, mu_y, s**2)]
  v = (left[2] - back[2] * (left[0] / back[0]) ** 2) * back[2] / left[2]
  mean = back[0] * X0 + back[1] * Y
  mean += np.sqrt((back[2] - v) / left[2]) * (X_T - left[0] * X0 - left[1] * Y)
  np.testing.assert_allclose(
    NOISY.step_back(t, X_T, X0, Y, NOISE), mean + np.sqrt(v) * NOISE, atol=1e-5
  )


def test_the_first_step_back_does_not_depend_on_where_sampling_starts():
  first, second = (
    NOISY.step_back(10, x_t, X0, Y, NOISE) for x_t in (X_T, 5 * X_T)
  )
  np.testing.assert_array_equal(first, second)


def test_sampling_meets_more_noise_than_training():
  """The posterior keeps `deviation`, not `std`, as published."""
  variance = NOISY.std[10] ** 2
  for t in range(10, 0, -1):
    law = NOISY.mu_x0[t], NOISY.mu_y[t], variance
    x0, y, variance = propagated(NOISY.posterior, t - 1, *law)
    np.testing.assert_allclose(x0, NOISY.mu_x0[t - 1], atol=1e-12)
    np.testing.assert_allclose(y, NOISY.mu_y[t - 1], atol=1e-12)
    np.testing.assert_allclose(
      math.sqrt(variance),
      NOISY.std[t - 1] * (1 + NOISY.betas[t - 1] / NOISY.betas.sum()),
    )
  assert variance == 0
  np.testing.assert_allclose(
    NOISY.deviation[5] / NOISY.std[5], 1.1443, rtol=1e-4
  )


def test_draws_of_the_noisy_bridge_have_its_moments():
  x0, y = many(-0.4), many(0.7)
  assert_moments(
    NOISY.noised(4, x0, y, normal(0)), 0.7 - 1.1 * 0.620882, 0.623686
  )
  x = NOISY.noised(10, x0, y, normal(1))
  for t in (10, 9, 8):
    x = NOISY.step_back(t, x, x0, y, normal(t))
  assert_moments(x, 0.7 - 1.1 * 0.268838, math.sqrt(NOISY.betas[:8].sum()))


def test_a_perfect_network_returns_the_image_in_ten_steps():
  x = NOISY.noised(10, X0, Y, NOISE)
  for t in range(10, 0, -1):
    x = NOISY.step_back(t, x, X0, Y, images(20 + t))
    assert (np.abs(x - X0).max() < 1e-6) == (t == 1)


# All.


@pytest.mark.parametrize(
  'draw',
  [
    functools.partial(BRIDGE.noised, y=Y),
    functools.partial(BRIDGE.target, y=Y),
    functools.partial(NOISY.noised, y=Y),
    VP.noised,
  ],
)
def test_one_step_serves_all_images(draw):
  one = draw(2, x0=X0, noise=NOISE)
  each = jax.jit(lambda t: draw(t, x0=X0, noise=NOISE))(jnp.full(3, 2))
  np.testing.assert_allclose(one, each, rtol=1e-6)
  assert one.shape == X0.shape
  assert one.dtype == jnp.float32


def test_draws_of_half_precision_images_are_float32():
  half = X0.astype(jnp.bfloat16)
  for x in (
    BRIDGE.noised(2, half, half, NOISE),
    VP.noised(2, half, NOISE),
    NOISY.step_back(2, half, half, half, NOISE),
  ):
    assert x.dtype == jnp.float32
