"""The quantiser of latent tokens, and which codes a model sees."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.models.codes import (
  CODES,
  Quantiser,
  draw_hidden,
  masked_share,
  shift_right,
  with_hidden,
)

pytestmark = pytest.mark.usefixtures('quick_compiles')
QUANTISER = Quantiser(width=6)


@pytest.fixture(scope='module')
def params():
  latents = jnp.zeros((1, 6))
  params = QUANTISER.init(jax.random.key(0), latents)
  # Wide enough to reach the outermost levels.
  return jax.tree.map(lambda x: 3.0 * x, params)


def latents(count=200):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.standard_normal((count, 6)), jnp.float32)


def test_a_code_is_a_number_in_mixed_radix():
  """8 x 8 x 8 x 4 x 4 levels; the last digit counts ones."""
  assert CODES == 8192
  digits = np.asarray([[0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]])

  class Fixed(Quantiser):
    def digits(self, latents):
      return latents

    def from_digits(self, digits):
      return digits

  quantiser = Fixed(width=5)
  given = jnp.asarray([*digits, [1, 0, 0, 0, 0], [7, 7, 7, 3, 3]], jnp.float32)
  codes = quantiser.apply({}, given, method='codes')
  np.testing.assert_array_equal(codes, [1, 4, 16, 1024, 8191])
  every = jnp.arange(CODES)
  apart = quantiser.apply({}, every, method='from_codes')
  again = quantiser.apply({}, apart, method='codes')
  np.testing.assert_array_equal(again, every)


def test_digits_are_whole_numbers_within_their_levels(params):
  digits = QUANTISER.apply(params, latents(), method='digits')
  np.testing.assert_allclose(digits, np.round(digits), atol=1e-5)
  assert digits.min() >= 0
  assert (digits.max(0) <= np.asarray([7, 7, 7, 3, 3]) + 1e-5).all()
  assert (digits.max(0) - digits.min(0) > 1).all()


def test_a_latent_is_kept_as_its_code_says(params):
  codes = QUANTISER.apply(params, latents(), method='codes')
  assert len(np.unique(codes)) > 20
  np.testing.assert_allclose(
    QUANTISER.apply(params, codes, method='from_codes'),
    QUANTISER.apply(params, latents()),
    atol=1e-4,
  )


def test_the_gradient_passes_the_rounding(params):
  """It is that of the same quantiser without rounding."""

  def loss(weights):
    return (QUANTISER.apply(weights, latents(), method='digits')).sum()

  def smooth(weights):
    w = weights['params']
    x = jax.nn.gelu(latents() @ w['down1']['kernel'] + w['down1']['bias'])
    x = x @ w['down2']['kernel'] + w['down2']['bias']
    return (jax.nn.sigmoid(x) * np.asarray([7.0, 7, 7, 3, 3])).sum()

  plain, expected = (
    jax.grad(f)(nn.unbox(params))['params'] for f in (loss, smooth)
  )
  for name in ('down1', 'down2'):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
      plain[name],
      expected[name],
    )
  assert np.abs(plain['down1']['kernel']).max() > 0.1


def test_the_share_of_masked_codes_follows_a_cosine():
  t = jnp.asarray([1.0, 2 / 3, 0.5, 0.0])
  np.testing.assert_allclose(
    masked_share(t), [1, np.sqrt(3) / 2, np.sqrt(0.5), 0], atol=1e-6
  )


def test_codes_are_hidden_in_targets_alone_at_a_share_per_image():
  ids = np.repeat([[0, 1, 2]], 500, axis=1).repeat(200, axis=0)
  ids = np.sort(ids, axis=1)
  hidden = draw_hidden(jax.random.key(0), jnp.asarray(ids, jnp.int32))
  first, second = hidden[:, 500:1000].mean(1), hidden[:, 1000:].mean(1)
  assert not hidden[:, :500].any()
  # The mean of sin(pi t / 2) for t uniform is 2 / pi; its median sin(pi / 4).
  assert first.mean() == pytest.approx(2 / np.pi, abs=0.05)
  assert np.median(second) == pytest.approx(np.sqrt(0.5), abs=0.06)
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.25
  assert first.std() > 0.2


def test_a_token_sees_the_code_before_it_in_its_own_image():
  latents = jnp.arange(1.0, 8.0)[None, :, None]
  ids = jnp.asarray([[0, 1, 1, 1, 2, 2, 0]])
  before, first = shift_right(latents, ids)
  np.testing.assert_array_equal(
    first[0], [False, True, False, False, True, False, False]
  )
  shown, t = with_hidden(before, first)
  np.testing.assert_array_equal(shown[0, 1:6, 0], [0, 2, 3, 0, 5])
  np.testing.assert_array_equal(t[0], [0, 1, 0, 0, 1, 0, 0])
  # An image that fills the row has a first token too.
  assert shift_right(latents[:, :2], jnp.asarray([[1, 1]]))[1].tolist() == [
    [True, False]
  ]
