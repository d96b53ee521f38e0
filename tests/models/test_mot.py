import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import COMPUTE, MOT, mot_params, streams

from synermedgen_jax.models.mot import Cache, MoT, Tokens

pytestmark = pytest.mark.usefixtures('quick_compiles')

TOLERANCE = {'atol': 2e-6, 'rtol': 2e-5}
MODEL = MoT(MOT, COMPUTE)


@functools.cache
def params():
  return mot_params()


@jax.jit
def run(weights, tokens):
  return MODEL.apply({'params': weights}, tokens)[0]


def take(tokens: Tokens, index) -> Tokens:
  """Some tokens of a stream, in another order perhaps."""
  return jax.tree.map(lambda a: a[:, jnp.asarray(index)], tokens)


def without_gen(weights):
  """The parameters of a model that never had the gen expert."""
  layers = {k: v for k, v in weights['layers'].items() if k != 'gen'}
  return {'layers': layers, 'und_norm': weights['und_norm']}


def test_a_gen_stream_of_padding_changes_nothing():
  tokens = streams()
  zero = jnp.zeros_like(tokens['gen'].order)
  padded = tokens['gen'].replace(
    positions=zero, order=zero, visible_from=zero, visible_to=zero
  )
  both = run(params(), {'und': tokens['und'], 'gen': padded})
  alone = run(params(), {'und': tokens['und']})
  np.testing.assert_allclose(both['und'], alone['und'], **TOLERANCE)
  assert np.isfinite(both['gen']).all()
  # The real gen stream does change it: und tokens see the clean image.
  real = run(params(), tokens)
  assert np.abs(real['und'] - alone['und']).max() > 1e-2


def test_an_und_stream_alone_needs_no_gen_parameters():
  und = {'und': streams()['und']}

  def loss(weights):
    return jnp.square(run(weights, und)['und']).sum()

  gradient = jax.grad(loss)(without_gen(params()))
  assert set(gradient['layers']) == {'und'}
  assert set(gradient) == {'layers', 'und_norm'}
  for leaf in jax.tree.leaves(gradient):
    assert np.abs(leaf).max() > 0
  whole = jax.grad(loss)(params())
  for leaf in jax.tree.leaves([whole['layers']['gen'], whole['gen_norm']]):
    assert not np.asarray(leaf).any()


def test_a_detached_und_stream_is_a_constant_of_the_backward_pass():
  """As if its keys and values came from a cache."""
  tokens = streams()
  aim = jnp.asarray(
    np.random.default_rng(0).standard_normal(tokens['gen'].x.shape),
    jnp.float32,
  )
  call = jax.jit(MODEL.apply, static_argnames=('return_keys', 'detach_und'))
  und = tokens['und'].order.shape[1]
  plain, (keys, values) = call({'params': params()}, tokens, return_keys=True)
  cache = Cache(
    keys[:, :, :und],
    values[:, :, :und],
    tokens['und'].visible_from,
    tokens['und'].visible_to,
  )

  def detached(weights):
    hidden, _ = call({'params': weights}, tokens, detach_und=True)
    return (hidden['gen'] * aim).sum(), hidden

  def cached(weights):
    hidden, _ = call({'params': weights}, {'gen': tokens['gen']}, cache)
    return (hidden['gen'] * aim).sum()

  gradient, hidden = jax.grad(detached, has_aux=True)(params())
  expected = jax.grad(cached)(params())
  for name in ('und', 'gen'):
    np.testing.assert_allclose(hidden[name], plain[name], **TOLERANCE)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4),
    gradient['layers']['gen'],
    expected['layers']['gen'],
  )
  for leaf in jax.tree.leaves(gradient['layers']['und']):
    assert not np.asarray(leaf).any()
  # The gradient of the loss is another one: und tokens see the clean image.
  whole = jax.grad(
    lambda w: (call({'params': w}, tokens)[0]['gen'] * aim).sum()
  )(params())['layers']['gen']['v_proj']['kernel']
  assert np.abs(whole - gradient['layers']['gen']['v_proj']['kernel']).max() > (
    1e-3
  )


def test_the_experts_have_weights_of_their_own():
  layers = params()['layers']
  shapes = {
    name: jax.tree.map(lambda leaf: leaf.shape, layers[name])
    for name in ('und', 'gen')
  }
  assert shapes['und'] == shapes['gen']
  assert shapes['und']['q_proj']['kernel'] == (2, 8, 16)
  assert shapes['und']['k_proj']['kernel'] == (2, 8, 8)
  # An expert's projection of values reaches the other stream's outputs.
  changed = jax.tree.map(lambda leaf: leaf, params())
  changed['layers']['gen']['v_proj']['kernel'] += 1.0
  tokens = streams()
  change = np.abs(run(changed, tokens)['und'] - run(params(), tokens)['und'])
  # The first three und tokens precede the clean image; the last two belong to
  # another example, whose only image is noised.
  assert change[0, :3].max() == 0
  assert change[0, 3:5].min() > 1e-4
  assert change[0, 5:].max() == 0


@pytest.mark.parametrize('name', ['und', 'gen'])
def test_tokens_may_stand_anywhere_in_their_stream(name):
  tokens = streams()
  count = tokens[name].order.shape[1]
  turn = np.random.default_rng(1).permutation(count)
  assert not (turn == np.arange(count)).all()
  plain = run(params(), tokens)
  moved = run(params(), tokens | {name: take(tokens[name], turn)})
  np.testing.assert_allclose(moved[name], plain[name][:, turn], **TOLERANCE)
  other = {'und': 'gen', 'gen': 'und'}[name]
  np.testing.assert_allclose(moved[other], plain[other], **TOLERANCE)


def test_noised_tokens_are_hidden_from_the_text():
  tokens = streams()
  plain = run(params(), tokens)
  gen = tokens['gen']
  # Gen tokens 2, 3, 4 are the first example's noised image.
  noised = gen.replace(x=gen.x.at[:, 2:5].add(1.0))
  changed = run(params(), tokens | {'gen': noised})
  np.testing.assert_array_equal(changed['und'], plain['und'])
  np.testing.assert_array_equal(changed['gen'][:, :2], plain['gen'][:, :2])
  np.testing.assert_array_equal(changed['gen'][:, 5:], plain['gen'][:, 5:])
  assert np.abs(changed['gen'] - plain['gen'])[:, 2:5].min() > 1e-6


def test_cached_keys_equal_those_of_the_complete_row():
  tokens = streams()
  whole = run(params(), tokens)
  # First the prompt of the first example with its clean image, then the rest.
  prompt = {
    'und': take(tokens['und'], range(3)),
    'gen': take(tokens['gen'], range(2)),
  }
  rest = {
    'und': take(tokens['und'], range(3, 7)),
    'gen': take(tokens['gen'], range(2, 7)),
  }
  run_cached = jax.jit(MODEL.apply, static_argnames='return_keys')
  first, (keys, values) = run_cached(
    {'params': params()}, prompt, return_keys=True
  )
  assert keys.shape == (2, 1, 5, MOT.kv_heads, MOT.head_dim)
  assert values.shape == keys.shape
  cache = Cache(
    keys,
    values,
    *(
      jnp.concatenate([getattr(t, field) for t in prompt.values()], axis=1)
      for field in ('visible_from', 'visible_to')
    ),
  )
  second, none = run_cached({'params': params()}, rest, cache)
  assert none is None
  for name in ('und', 'gen'):
    parts = np.concatenate([first[name], second[name]], axis=1)
    np.testing.assert_allclose(parts, whole[name], **TOLERANCE)


def test_keys_come_back_in_the_order_of_the_experts():
  tokens = streams()
  turned = {name: tokens[name] for name in ('gen', 'und')}
  run_keys = jax.jit(
    lambda weights, given: MODEL.apply(
      {'params': weights}, given, return_keys=True
    )[1][0]
  )
  alone = run_keys(params(), {'und': tokens['und']})
  for given in (tokens, turned):
    # The first layer's keys of a stream depend on that stream alone.
    und = run_keys(params(), given)[0, :, : alone.shape[2]]
    np.testing.assert_allclose(und, alone[0], **TOLERANCE)


def test_rematerialised_and_unrolled_layers_agree_with_plain_ones():
  und = {'und': streams()['und']}
  weights = without_gen(params())

  def value_and_grad(**fields):
    model = MoT(MOT, dataclasses.replace(COMPUTE, **fields))

    def loss(weights):
      return jnp.sin(model.apply({'params': weights}, und)[0]['und']).sum()

    return jax.jit(jax.value_and_grad(loss))(weights)

  plain = value_and_grad()
  for fields in (
    {'remat': 'full'},
    {'remat': 'dots'},
    {'unroll': 2},
    {'unroll': 9},
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4),
      value_and_grad(**fields),
      plain,
    )


def test_a_scanned_layer_is_the_experts_applied_one_by_one():
  """One expert's layer in plain NumPy, und stream alone."""
  tokens = jax.tree.map(np.asarray, streams()['und'])
  config = dataclasses.replace(MOT, layers=1)
  weights = jax.tree.map(lambda a: a[:1], without_gen(params())['layers'])
  weights = {'layers': weights, 'und_norm': params()['und_norm']}
  hidden, _ = MoT(config, COMPUTE).apply(
    {'params': weights}, {'und': streams()['und']}
  )
  p = jax.tree.map(lambda a: np.asarray(a[0]), weights['layers']['und'])

  def norm(x, scale):
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * scale

  def heads(name, x):
    y = x @ p[name]['kernel'] + p[name]['bias']
    return y.reshape(len(x), -1, MOT.head_dim)

  def turn(x):
    angle = tokens.positions[0][:, None, None] * np.asarray([1.0, 0.1])
    a, b = x[..., :2], x[..., 2:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

  x = tokens.x[0]
  y = norm(x, p['input_norm']['scale'])
  query = turn(norm(heads('q_proj', y), p['q_norm']['scale']))
  key = turn(norm(heads('k_proj', y), p['k_norm']['scale'])).repeat(2, axis=1)
  value = heads('v_proj', y).repeat(2, axis=1)
  scores = np.einsum('qhd,khd->hqk', query, key) / 2.0
  order = tokens.order[0][:, None]
  mask = (tokens.visible_from[0] <= order) & (order < tokens.visible_to[0])
  weight = np.exp(scores) * mask
  weight /= weight.sum(-1, keepdims=True)
  out = np.einsum('hqk,khd->qhd', weight, value).reshape(len(x), -1)
  x = x + out @ p['o_proj']['kernel']
  y = norm(x, p['post_norm']['scale'])
  gate = y @ p['mlp']['gate_proj']['kernel']
  up = y @ p['mlp']['up_proj']['kernel']
  x = x + (gate / (1 + np.exp(-gate)) * up) @ p['mlp']['down_proj']['kernel']
  expected = norm(x, np.asarray(weights['und_norm']['scale']))
  np.testing.assert_allclose(hidden['und'][0], expected, atol=1e-5)


def test_shared_experts_are_two_equal_ones_without_gen():
  shared = MoT(dataclasses.replace(MOT, experts='shared'), COMPUTE)
  tokens = streams()
  shapes = jax.eval_shape(shared.init, jax.random.key(0), tokens)['params']
  weights = without_gen(params())
  assert jax.tree.structure(nn.unbox(shapes)) == jax.tree.structure(weights)
  twice = {
    'layers': dict.fromkeys(('und', 'gen'), weights['layers']['und']),
    'und_norm': weights['und_norm'],
    'gen_norm': weights['und_norm'],
  }
  dense = jax.jit(shared.apply)({'params': weights}, tokens)[0]
  pair = run(twice, tokens)
  for name in ('und', 'gen'):
    np.testing.assert_allclose(dense[name], pair[name], **TOLERANCE)


def test_unknown_experts_are_named():
  with pytest.raises(ValueError, match="'dense': expected one of mot, shared"):
    dataclasses.replace(MOT, experts='dense')
