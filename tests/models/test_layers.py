import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.models import layers


def test_rope_turns_pairs_of_halves():
  # Head width 4: pairs (0, 2) at frequency 1 and (1, 3) at 100**-0.5 = 0.1.
  x = jnp.asarray([1.0, 1.0, 0.0, 2.0]).reshape(1, 1, 1, 4)
  x = jnp.repeat(x, 2, axis=1)
  out = layers.rope(x, jnp.asarray([[0, 3]]), theta=100.0)[0, :, 0]
  np.testing.assert_allclose(out[0], [1, 1, 0, 2], atol=1e-6)
  cos, sin = np.cos(0.3), np.sin(0.3)
  expected = [np.cos(3), cos - 2 * sin, np.sin(3), 2 * cos + sin]
  np.testing.assert_allclose(out[1], expected, atol=1e-6)


def test_rope_scores_depend_on_the_distance_alone():
  query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

  def score(at, other):
    turned = (
      layers.rope(x, jnp.asarray([[place]]), 1e4)
      for x, place in ((query, at), (key, other))
    )
    return float(jnp.vdot(*turned))

  assert score(5, 2) == pytest.approx(score(45, 42), abs=1e-4)
  assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)


def test_rope_is_exact_far_out_in_half_precision():
  x = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
  out = layers.rope(x, jnp.asarray([[4001]]), 1e6)
  assert out.dtype == jnp.bfloat16
  expected = [
    np.cos(4001) - np.sin(4001),
    np.cos(4001) + np.sin(4001),
  ]
  np.testing.assert_allclose(
    out[0, 0, 0].astype(np.float32), expected, atol=0.01
  )


def test_position_table_has_the_column_first():
  table = layers.sincos_table(2, 4)
  s, c = np.sin(1), np.cos(1)
  # [sin column, cos column, sin row, cos row], rows of the grid outermost.
  np.testing.assert_allclose(
    table, [[0, 1, 0, 1], [s, c, 0, 1], [0, 1, s, c], [s, c, s, c]], atol=1e-6
  )
  assert table.dtype == np.float32


def test_position_table_frequencies_fall_from_one_towards_the_base():
  table = layers.sincos_table(3, 8, base=100.0)
  # Column 2, row 1: angles 2 and 2 / 10, then 1 and 1 / 10.
  expected = np.concatenate(
    [f(a) for a in ([2, 0.2], [1, 0.1]) for f in (np.sin, np.cos)]
  )
  np.testing.assert_allclose(table[5], expected, atol=1e-6)


def test_timestep_features_are_cosines_then_sines():
  features = layers.timestep_features(jnp.asarray([0.0, 0.5]), dim=4)
  # Frequencies 1 and 10000**-0.5 = 0.01.
  expected = [
    [1, 1, 0, 0],
    [np.cos(0.5), np.cos(0.005), np.sin(0.5), np.sin(0.005)],
  ]
  np.testing.assert_allclose(features, expected, atol=1e-6)
  assert layers.timestep_features(jnp.zeros((2, 3))).shape == (2, 3, 256)


def test_rms_norm_divides_by_the_root_mean_square():
  x = jnp.asarray([[3.0, 4.0]])
  norm = layers.RMSNorm(eps=0.5)
  out = norm.apply({'params': {'scale': jnp.asarray([1.0, 2.0])}}, x)
  # mean(9, 16) + 0.5 = 13
  np.testing.assert_allclose(out, [[3 / 13**0.5, 8 / 13**0.5]], rtol=1e-6)


def test_rms_norm_of_half_precision_is_rounded_once():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((1, 300)), jnp.bfloat16)
  norm = layers.RMSNorm(eps=1e-6)
  out = norm.apply({'params': {'scale': jnp.ones(300)}}, x)
  exact = np.asarray(x, np.float32)
  exact /= np.sqrt(np.square(exact).mean() + 1e-6)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


def test_swiglu_gates_the_wide_values():
  rng = np.random.default_rng(0)
  gate, up = rng.standard_normal((2, 3, 5)).astype(np.float32)
  down = rng.standard_normal((5, 3)).astype(np.float32)
  x = rng.standard_normal((1, 2, 3)).astype(np.float32)
  params = {
    name: {'kernel': kernel}
    for name, kernel in (
      ('gate_proj', gate),
      ('up_proj', up),
      ('down_proj', down),
    )
  }
  out = layers.SwiGLU(5, jnp.float32).apply({'params': params}, x)
  gated = x @ gate
  expected = (gated / (1 + np.exp(-gated)) * (x @ up)) @ down
  np.testing.assert_allclose(out, expected, atol=1e-5)
