import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.models import flow

pytestmark = pytest.mark.usefixtures('quick_compiles')


def test_timesteps_are_one_a_noised_image_and_zero_for_clean_ones():
  noise_ids = jnp.asarray([[0, 1, 1, 2, 0], [1, 1, 2, 3, 4]])
  t = np.asarray(flow.draw_timesteps(jax.random.key(3), noise_ids, 1.0))
  assert t[0, 0] == t[0, 4] == 0
  assert t[0, 1] == t[0, 2]
  drawn = {t[0, 1], t[0, 3], *t[1, 1:]}
  assert len(drawn) == 6
  assert t[1, 0] == t[1, 1]
  assert all(0 < value < 1 for value in drawn)


def test_timesteps_are_shifted_sigmoids_of_normal_numbers():
  noise_ids = jnp.arange(1, 4001)[None]
  key = jax.random.key(0)
  plain = flow.draw_timesteps(key, noise_ids, 1.0)
  logits = np.log(plain / (1 - plain))
  assert abs(logits.mean()) < 0.06
  assert abs(logits.std() - 1) < 0.05
  np.testing.assert_allclose(
    flow.draw_timesteps(key, noise_ids, 3.0),
    3 * plain / (1 + 2 * plain),
    rtol=1e-5,
  )


@pytest.mark.parametrize(
  ('t', 'shift', 'expected'),
  [
    (0.0, 3.0, 0.0),
    (0.25, 3.0, 0.5),
    (0.5, 3.0, 0.75),
    (1.0, 3.0, 1.0),
    (0.4, 1.0, 0.4),
  ],
)
def test_shifting_moves_timesteps_towards_noise(t, shift, expected):
  assert flow.shift_timestep(t, shift) == pytest.approx(expected)
