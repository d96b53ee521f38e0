"""Every implementation beside a plain NumPy one, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import span_packs
from hypothesis import given, settings

from synermedgen_jax.models import interval_attention as lib

IMPLEMENTATIONS = lib.IMPLEMENTATIONS | {
  # Seven queries in blocks of three: the last one is not full.
  'small_chunks': functools.partial(lib.IMPLEMENTATIONS['xla_chunked'], chunk=3)
}
# Causal text, a clean image, a noised image; then a second example.
PACK = [[('causal', 2), ('full', 2), ('noise', 1)], [('causal', 2)]]


def reference(query, key, value, mask, upstream):
  """Attention under a dense mask, and its gradients, head by head."""
  out, d_query = np.zeros_like(query), np.zeros_like(query)
  d_key, d_value = np.zeros_like(key), np.zeros_like(value)
  scale = query.shape[-1] ** -0.5
  group = query.shape[2] // key.shape[2]
  for b in range(query.shape[0]):
    for h in range(query.shape[2]):
      q, k, v = query[b, :, h], key[b, :, h // group], value[b, :, h // group]
      scores = np.where(mask[b], q @ k.T * scale, -np.inf)
      top = scores.max(-1, keepdims=True)
      weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
      weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
      out[b, :, h] = weights @ v
      g = upstream[b, :, h]
      d_weights = g @ v.T
      d_scores = weights * (
        d_weights - (weights * d_weights).sum(-1, keepdims=True)
      )
      d_query[b, :, h] = d_scores @ k * scale
      d_key[b, :, h // group] += d_scores.T @ q * scale
      d_value[b, :, h // group] += weights.T @ g
  return out, (d_query, d_key, d_value)


def inputs(queries, keys, heads, kv_heads, dim=4, rows=2):
  rng = np.random.default_rng(0)

  def draw(*shape):
    return rng.standard_normal((rows, *shape)).astype(np.float32)

  return (
    draw(queries, heads, dim),
    draw(keys, kv_heads, dim),
    draw(keys, kv_heads, dim),
    draw(queries, heads, dim),
  )


def assert_like_reference(implementation, arrays, layout):
  *qkv, upstream = arrays
  order, visible_from, visible_to = layout

  def loss(query, key, value):
    out = implementation(query, key, value, order, visible_from, visible_to)
    return (out * upstream).sum(), out

  gradients, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(
    *qkv
  )
  mask = (visible_from[:, None] <= order[:, :, None]) & (
    order[:, :, None] < visible_to[:, None]
  )
  expected, expected_gradients = reference(
    *(a.astype(np.float64) for a in qkv), mask, upstream.astype(np.float64)
  )
  np.testing.assert_allclose(out, expected, atol=1e-5)
  for gradient, wanted in zip(gradients, expected_gradients, strict=True):
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)
  return out


def pack_layout(rows=2):
  order = span_packs.order_of(PACK)
  visible_from, visible_to = span_packs.intervals(PACK)
  return tuple(np.tile(a, (rows, 1)) for a in (order, visible_from, visible_to))


@pytest.mark.parametrize('name', IMPLEMENTATIONS)
@pytest.mark.parametrize(('heads', 'kv_heads'), [(2, 2), (4, 2), (3, 1)])
def test_values_and_gradients_are_the_references(name, heads, kv_heads):
  arrays = inputs(7, 7, heads, kv_heads)
  assert_like_reference(IMPLEMENTATIONS[name], arrays, pack_layout())


@pytest.mark.parametrize('name', IMPLEMENTATIONS)
def test_padding_gives_zeros_and_finite_gradients(name):
  order, visible_from, visible_to = pack_layout()
  # The second example becomes padding in row 0, and all tokens in row 1.
  visible_from[0, 5:] = visible_to[0, 5:] = 0
  visible_from[1] = visible_to[1] = 0
  order[0, 5:] = 90
  layout = order, visible_from, visible_to
  out = assert_like_reference(IMPLEMENTATIONS[name], inputs(7, 7, 4, 2), layout)
  assert not np.asarray(out[0, 5:]).any()
  assert not np.asarray(out[1]).any()
  assert np.asarray(out[0, :5]).any()


@pytest.mark.parametrize('name', IMPLEMENTATIONS)
def test_there_may_be_more_keys_than_queries(name):
  order, visible_from, visible_to = pack_layout()
  layout = order[:, 4:], visible_from, visible_to
  assert_like_reference(IMPLEMENTATIONS[name], inputs(3, 7, 4, 2), layout)


@settings(deadline=None)
@given(span_packs.packs)
def test_two_integers_a_key_are_bagels_mask(pack):
  order = span_packs.order_of(pack)
  visible_from, visible_to = span_packs.intervals(pack)
  visible = lib.interval_mask(order[None], visible_from[None], visible_to[None])
  np.testing.assert_array_equal(visible[0], span_packs.bagel_mask(pack))


def test_the_dense_mask_by_hand():
  order, visible_from, visible_to = pack_layout(rows=1)
  mask = lib.interval_mask(order, visible_from, visible_to)
  np.testing.assert_array_equal(
    mask[0].astype(int),
    [
      [1, 0, 0, 0, 0, 0, 0],
      [1, 1, 0, 0, 0, 0, 0],
      [1, 1, 1, 1, 0, 0, 0],
      [1, 1, 1, 1, 0, 0, 0],
      [1, 1, 1, 1, 1, 0, 0],
      [0, 0, 0, 0, 0, 1, 0],
      [0, 0, 0, 0, 0, 1, 1],
    ],
  )


def test_scores_are_summed_in_float32():
  query, key, value, _ = (x.astype(jnp.bfloat16) for x in inputs(7, 7, 4, 2))
  layout = pack_layout()
  out = lib.interval_attention(query, key, value, *layout)
  assert out.dtype == jnp.bfloat16
  exact = lib.interval_attention(
    *(x.astype(np.float32) for x in (query, key, value)), *layout
  )
  np.testing.assert_allclose(out.astype(np.float32), exact, atol=0.03)


def test_heads_that_do_not_divide_are_refused():
  query, key, value, _ = inputs(7, 7, 3, 2)
  with pytest.raises(ValueError, match=r'3 query heads.*2 key/value heads'):
    lib.interval_attention(query, key, value, *pack_layout())


def test_an_unknown_implementation_lists_those_there_are():
  query, key, value, _ = inputs(7, 7, 2, 2)
  with pytest.raises(ValueError, match=r"'flash'.*xla, xla_chunked"):
    lib.interval_attention(
      query, key, value, *pack_layout(), implementation='flash'
    )
