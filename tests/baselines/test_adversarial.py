import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.baselines.adversarial import (
  exchange,
  least_squares,
  logistic,
  new_pool,
)


def numbered(first, count):
  """Images of one pixel that hold their number."""
  return jnp.arange(first, first + count, dtype=jnp.float32).reshape(
    count, 1, 1, 1
  )


def test_a_pool_returns_every_image_until_it_is_full():
  pool, shown = exchange(
    new_pool(5, (1, 1, 1)), numbered(1, 5), jax.random.key(0)
  )
  np.testing.assert_array_equal(shown.ravel(), [1, 2, 3, 4, 5])
  np.testing.assert_array_equal(pool['images'].ravel(), [1, 2, 3, 4, 5])
  assert pool['count'] == 5


def test_a_full_pool_returns_an_old_image_half_of_the_time_and_replaces_it():
  pool, _ = exchange(
    new_pool(50, (1, 1, 1)), numbered(1, 50), jax.random.key(0)
  )
  new = numbered(1001, 4000)
  after, shown = exchange(pool, new, jax.random.key(1))
  old = np.asarray(shown != new).ravel()
  # Four standard deviations of 4,000 tosses are 0.032.
  assert old.mean() == pytest.approx(0.5, abs=0.032)
  # No image is lost: what was returned and what stays is what there was.
  every = np.sort(np.concatenate([after['images'].ravel(), shown.ravel()]))
  there = np.sort(np.concatenate([pool['images'].ravel(), new.ravel()]))
  np.testing.assert_array_equal(every, there)
  # All 50 places are exchanged.
  assert (np.asarray(after['images']) > 1000).all()


def test_losses_have_their_closed_forms():
  logits = jnp.asarray([-2.0, 0.0, 3.0])
  np.testing.assert_allclose(
    logistic(logits, real=True), np.log1p(np.exp([2.0, 0.0, -3.0])), rtol=1e-6
  )
  np.testing.assert_allclose(
    logistic(logits, real=False), np.log1p(np.exp([-2.0, 0.0, 3.0])), rtol=1e-6
  )
  np.testing.assert_allclose(least_squares(logits, real=True), [9, 1, 4])
  np.testing.assert_allclose(least_squares(logits, real=False), [4, 0, 9])
