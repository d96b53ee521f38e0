"""Values and gradients of every implementation against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import span_packs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synermedgen_jax.models import interval_attention as lib
from synermedgen_jax.models.kernels import cpu, gpu, tpu

pytestmark = pytest.mark.usefixtures('quick_compiles')

_in_tiles = functools.partial(tpu.attention, interpret=True)
_on_gpu = functools.partial(gpu.attention, interpret=True)
IMPLEMENTATIONS = {
  'xla': lib.IMPLEMENTATIONS['xla'].attend,
  'xla_blocks': cpu.attention,
  # Seven queries in blocks of three: the last one is not full.
  'xla_small_blocks': functools.partial(cpu.attention, block=3),
  'pallas_gpu': functools.partial(_on_gpu, blocks=gpu.Blocks(16, 16)),
  'pallas_gpu_small_blocks': functools.partial(
    _on_gpu, blocks=gpu.Blocks(4, 3)
  ),
  'pallas_tpu': _in_tiles,
  'pallas_tpu_small_blocks': functools.partial(
    _in_tiles, blocks=tpu.Blocks(4, 3)
  ),
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
@pytest.mark.parametrize(('heads', 'kv_heads'), [(4, 2), (3, 1)])
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
  out = assert_like_reference(IMPLEMENTATIONS[name], inputs(7, 7, 2, 2), layout)
  assert not np.asarray(out[0, 5:]).any()
  assert not np.asarray(out[1]).any()
  assert np.asarray(out[0, :5]).any()


@pytest.mark.parametrize('name', IMPLEMENTATIONS)
def test_there_may_be_more_keys_than_queries(name):
  order, visible_from, visible_to = pack_layout()
  layout = order[:, 4:], visible_from, visible_to
  assert_like_reference(IMPLEMENTATIONS[name], inputs(3, 7, 4, 2), layout)


LENGTH = 3 * 4 * 4  # the longest pack
FILLING = 2**20


def filled(pack, order_of_tokens):
  """The layout of a pack in this order of tokens, filled up to LENGTH."""
  columns = (
    (span_packs.order_of(pack), FILLING),
    *((bound, 0) for bound in span_packs.intervals(pack)),
  )
  out = []
  for column, filling in columns:
    row = np.full((1, LENGTH), filling, np.int32)
    row[0, : len(column)] = column[order_of_tokens]
    out.append(row)
  return tuple(out)


@functools.cache
def values_and_gradients(name):
  implementation = IMPLEMENTATIONS[name]

  @jax.jit
  def run(qkv, upstream, layout):
    def loss(query, key, value):
      out = implementation(query, key, value, *layout)
      return (out.astype(jnp.float32) * upstream).sum(), out

    gradients, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*qkv)
    return out, gradients

  return run


packs_and_orders = span_packs.packs.flatmap(
  lambda pack: st.tuples(st.just(pack), st.just(None) | streams(pack))
)


def streams(pack):
  """Tokens that belong to the second stream, after those of the first."""
  spans = sum(len(example) for example in pack)
  return st.lists(st.booleans(), min_size=spans, max_size=spans)


def order_of_tokens(pack, in_second):
  spans = [length for example in pack for _, length in example]
  second = np.repeat(in_second or [False] * len(spans), spans)
  return np.argsort(second, kind='stable')


@pytest.mark.parametrize('name', list(IMPLEMENTATIONS)[1:])
@settings(max_examples=20)
@given(packs_and_orders)
@example(([[('causal', 1)]], None))
@example(([[('full', 4)]], None))
@example(([[('full', 4)] * 4] * 3, [True, False] * 6))
def test_random_packs_are_the_oracles_in_any_order(name, drawn):
  pack, in_second = drawn
  layout = filled(pack, order_of_tokens(pack, in_second))
  *qkv, upstream = inputs(LENGTH, LENGTH, 4, 2, rows=1)
  wanted = values_and_gradients('xla')(qkv, upstream, layout)
  computed = values_and_gradients(name)(qkv, upstream, layout)
  np.testing.assert_allclose(computed[0], wanted[0], atol=2e-6)
  for gradient, expected in zip(computed[1], wanted[1], strict=True):
    np.testing.assert_allclose(gradient, expected, atol=2e-5)


@pytest.mark.parametrize('name', IMPLEMENTATIONS)
def test_bfloat16_is_near_the_oracle_in_float32(name):
  layout = pack_layout()
  *qkv, upstream = (x.astype(jnp.bfloat16) for x in inputs(7, 7, 4, 2))
  exact = [x.astype(np.float32) for x in qkv]
  wanted = values_and_gradients('xla')(exact, upstream, layout)
  computed = values_and_gradients(name)(qkv, upstream, layout)
  assert computed[0].dtype == jnp.bfloat16
  # Eight bits of mantissa: 1/256 of values up to 2, or 4 for gradients.
  np.testing.assert_allclose(
    computed[0].astype(np.float32), wanted[0], atol=2 / 256, rtol=2 / 256
  )
  for gradient, expected in zip(computed[1], wanted[1], strict=True):
    np.testing.assert_allclose(
      gradient.astype(np.float32), expected, atol=8 / 256, rtol=2 / 256
    )


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


def test_heads_that_do_not_divide_are_refused():
  query, key, value, _ = inputs(7, 7, 3, 2)
  with pytest.raises(ValueError, match=r'3 query heads.*2 key/value heads'):
    lib.interval_attention(query, key, value, *pack_layout())


def test_an_unknown_implementation_lists_the_known_ones():
  query, key, value, _ = inputs(7, 7, 2, 2)
  with pytest.raises(ValueError, match=r"'flash'.*xla, xla_blocks"):
    lib.interval_attention(
      query, key, value, *pack_layout(), implementation='flash'
    )


def test_an_implementation_of_another_platform_is_refused():
  query, key, value, _ = inputs(7, 7, 2, 2)
  with pytest.raises(ValueError, match=r"'pallas_tpu' is for tpu.* on cpu"):
    lib.interval_attention(
      query, key, value, *pack_layout(), implementation='pallas_tpu'
    )


@pytest.mark.parametrize(('queries', 'chosen'), [(1, 'xla'), (7, 'large')])
def test_many_queries_take_the_platforms_own(monkeypatch, queries, chosen):
  taken = []

  def named(name):
    def attend(*arguments):
      taken.append(name)
      return IMPLEMENTATIONS['xla'](*arguments)

    return lib.Implementation(attend)

  for name in ('xla', 'large'):
    monkeypatch.setitem(lib.IMPLEMENTATIONS, name, named(name))
  monkeypatch.setattr(
    lib, 'preferred', lambda platform, n, dtype: 'large' if n > 3 else 'xla'
  )
  query, key, value, _ = inputs(queries, 7, 2, 2)
  order, *bounds = pack_layout()
  lib.interval_attention(query, key, value, order[:, :queries], *bounds)
  assert taken == [chosen]
