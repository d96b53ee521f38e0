"""Operations of small functions, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from synermedgen_jax.training import flops


def total(function, *arguments):
  return sum(flops.count(jax.make_jaxpr(function)(*arguments)).values())


def test_a_product_takes_two_operations_for_every_term():
  x, w = jnp.ones((3, 5)), jnp.ones((5, 7))
  assert total(jnp.dot, x, w) == 2 * 3 * 5 * 7


def test_its_gradients_take_two_products_more():
  x, w = jnp.ones((3, 5)), jnp.ones((5, 7))
  both = jax.value_and_grad(lambda x, w: (x @ w).sum(), argnums=(0, 1))
  assert total(both, x, w) == 3 * 2 * 3 * 5 * 7
  squared = jax.grad(lambda w: ((x @ w) ** 2).sum())
  assert total(squared, w) == 2 * 2 * 3 * 5 * 7


def test_a_scan_counts_every_turn():
  x, w = jnp.ones((3, 5)), jnp.ones((11, 5, 5))

  def layers(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

  assert total(layers, x, w) == 11 * 2 * 3 * 5 * 5
  assert total(jax.jit(layers), x, w) == 11 * 2 * 3 * 5 * 5


def test_a_conditional_counts_its_largest_branch():
  x, w = jnp.ones((3, 5)), jnp.ones((5, 5))

  def either(x, w):
    return jax.lax.cond(
      x[0, 0] > 0, lambda: x @ w, lambda: jax.nn.relu(x @ w) @ w
    )

  assert total(either, x, w) == 2 * 2 * 3 * 5 * 5


def test_a_conditional_that_states_its_share_counts_all_branches_by_it():
  x, w = jnp.ones((3, 5)), jnp.ones((5, 5))

  def sometimes(x, w):
    with jax.named_scope('share=0.1'):
      return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x)

  assert total(sometimes, x, w) == pytest.approx(0.1 * 2 * 3 * 5 * 5)


def test_a_convolution_reads_a_kernel_for_every_output():
  x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))

  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  forward = 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3)
  assert total(convolve, x, kernel) == forward
  squared = jax.grad(lambda x, k: (convolve(x, k) ** 2).sum(), argnums=(0, 1))
  # The gradient of the input has holes between its terms: four outputs of
  # five see zeros alone, which the count leaves out.
  assert total(squared, x, kernel) == pytest.approx(3 * forward, rel=0.4)


def test_attention_is_counted_apart_by_what_it_is_of():
  x = jnp.ones((4, 5))

  def model(x):
    with jax.named_scope('vit'), jax.named_scope('interval_attention'):
      x = x @ x.T @ x
    with jax.named_scope('mot'), jax.named_scope('interval_attention'):
      x = x @ x.T
    return x @ x

  assert flops.count(jax.make_jaxpr(model)(x)) == {
    'attention/vit': 2 * 2 * 4 * 5 * 4,
    'attention/mot': 2 * 4 * 5 * 4,
    'other': 2 * 4 * 4 * 4,
  }


def test_a_scope_outside_a_scan_holds_inside_it_and_backwards():
  x, w = jnp.ones((3, 5)), jnp.ones((2, 5, 5))

  def loss(x):
    with jax.named_scope('mot'), jax.named_scope('interval_attention'):
      x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)
    return (x**2).sum()

  counts = flops.count(jax.make_jaxpr(jax.grad(loss))(x))
  assert counts == {'attention/mot': 2 * 2 * 2 * 3 * 5 * 5}


def test_a_loop_of_unknown_length_is_refused():
  def loop(x):
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

  with pytest.raises(ValueError, match='unknown length'):
    total(loop, jnp.ones((3, 3)))
