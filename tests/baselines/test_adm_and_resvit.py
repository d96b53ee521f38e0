"""The networks of BBDM and ResViT."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.baselines.networks import adm_unet, resvit
from synermedgen_jax.baselines.networks.adm_unet import ADMUNet, ADMUNetConfig
from synermedgen_jax.baselines.networks.resvit import ResViT, ResViTConfig

pytestmark = pytest.mark.usefixtures('quick_compiles')

ADM = ADMUNet(ADMUNetConfig(channels=8, multipliers=(1, 2), blocks=1, head=8))
RESVIT = ResViT(
  ResViTConfig(
    width=2, blocks=6, vit_layers=2, vit_hidden=6, vit_heads=2, vit_mlp=5
  )
)
RES_CNN = ResViT(dataclasses.replace(RESVIT.config, transformers=False))
# Models and the size of an image they take.
SMALL = {
  'adm': (ADM, (4, 6)),
  'resvit': (RESVIT, (32, 48)),
  'res_cnn': (RES_CNN, (8, 12)),
}


def normal(shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), 'float32')


def inputs(model, shape, *, train=False, seed=1):
  """Images, and what else the model takes."""
  x = normal(shape, seed)
  return (x, jnp.arange(shape[0])) if isinstance(model, ADMUNet) else (x, train)


def call(model, variables, x, *, train=False, key=0):
  """The model's output; t is the number of the image in the batch."""
  _, second = inputs(model, x.shape, train=train)
  rngs = {'dropout': jax.random.key(key)} if train else None
  return model.apply(variables, x, second, rngs=rngs)


def shapes_of(model, shape):
  """Shapes of the parameters and of the output for images of this shape."""
  x, second = inputs(model, shape)
  output, variables = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x, second), x
  )
  return variables['params'], output


def count(params):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def filled(shapes):
  """Random parameters, so that no branch is near zero; scales are near one."""
  rng = np.random.default_rng(0)

  def leaf(path, shape):
    value = rng.normal(0, 0.3, shape.shape) + (path[-1].key == 'scale')
    return jnp.asarray(value, shape.dtype)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


@functools.cache
def variables_of(name, channels=1):
  model, size = SMALL[name]
  return {'params': filled(shapes_of(model, (2, *size, channels))[0])}


def flat(params):
  return {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


# Both.


@pytest.mark.parametrize('name', SMALL)
def test_images_keep_their_height_and_width(name):
  model, (height, width) = SMALL[name]
  for size in ((height, width), (width, height)):
    _, output = shapes_of(model, (2, *size, 4))
    assert output.shape == (2, *size, model.config.out_channels)


@pytest.mark.parametrize('name', SMALL)
def test_extra_channels_change_the_first_convolution_alone(name):
  model, size = SMALL[name]
  few, many = (
    flat(shapes_of(model, (2, *size, channels))[0]) for channels in (1, 5)
  )
  changed = [key for key in few if few[key].shape != many[key].shape]
  assert few.keys() == many.keys()
  assert len(changed) == 1
  assert (few[changed[0]].shape[2], many[changed[0]].shape[2]) == (1, 5)


@pytest.mark.parametrize(
  ('name', 'size', 'multiple', 'least'),
  [
    ('adm', (4, 5), 2, 2),
    ('resvit', (32, 40), 16, 32),
    ('resvit', (16, 32), 16, 32),
    ('res_cnn', (8, 10), 4, 8),
    ('res_cnn', (4, 8), 4, 8),
  ],
)
def test_sizes_that_do_not_fit_are_refused(name, size, multiple, least):
  with pytest.raises(ValueError, match=rf'{size[0]} x {size[1]}') as error:
    shapes_of(SMALL[name][0], (1, *size, 1))
  message = str(error.value)
  assert f'multiples of {multiple}, at least {least}' in message
  assert '\n' not in message


@pytest.mark.parametrize('name', SMALL)
def test_images_of_a_batch_do_not_mix_at_test(name):
  model, size = SMALL[name]
  x, variables = normal((2, *size, 1)), variables_of(name)
  apply = jax.jit(lambda x: call(model, variables, x))
  together = apply(x)
  changed = apply(x.at[1].set(normal(x.shape[1:], seed=5)))
  np.testing.assert_allclose(together[0], changed[0], atol=1e-5)
  assert np.abs(together[1] - changed[1]).max() > 1e-3


@pytest.mark.parametrize('name', SMALL)
def test_every_layer_reaches_the_output(name):
  model, size = SMALL[name]
  x, variables = normal((2, *size, 1)), variables_of(name)
  target = normal((2, *size, model.config.out_channels), seed=2)

  def loss(variables):
    return jnp.mean(call(model, variables, x) * target)

  gradient = jax.jit(jax.grad(loss))(variables)
  for path, leaf in flat(gradient).items():
    if path.endswith("['kernel']") or path.endswith("['positions']"):
      assert np.abs(leaf).max() > 1e-7, path


@pytest.mark.parametrize('name', ['adm', 'resvit'])
def test_half_precision_keeps_parameters_and_output_in_full(name):
  model, size = SMALL[name]
  half = model.copy(dtype=jnp.bfloat16)
  params, output = shapes_of(half, (2, *size, 1))
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
  assert dtypes == {np.dtype('float32')}
  assert output.dtype == jnp.float32
  x, variables = normal((2, *size, 1)), variables_of(name)
  expected, output = (
    np.asarray(jax.jit(functools.partial(call, m))(variables, x))
    for m in (model, half)
  )
  difference = output - expected
  assert 0 < np.abs(difference).mean() < 0.1 * np.abs(expected).mean()


# BBDM's U-Net.


@pytest.mark.parametrize(
  ('channels', 'parameters'),
  [
    (3, 237_091_331),  # of latents
    (6, 237_094_787),  # of pixels, beside the source
  ],
)
def test_the_published_unet_has_237_09_million_parameters(channels, parameters):
  params, output = shapes_of(ADMUNet(ADMUNetConfig()), (1, 64, 32, channels))
  assert count(params) == parameters
  assert output.shape == (1, 64, 32, 3)


def test_the_middle_alone_attends():
  model = ADMUNet(ADMUNetConfig())
  params, _ = shapes_of(model, (1, 64, 64, 3))
  attention = {key for key in params if 'query' in params[key]}
  assert attention == {'middle_attention'}
  assert params['middle_attention']['query']['kernel'].shape[-1] == 1024
  assert model.config.heads == 16  # of width 64


def test_heads_of_narrow_networks_divide_their_channels():
  heads = {
    channels: ADMUNetConfig(channels=channels, multipliers=(1, 1)).heads
    for channels in (8, 64, 96, 128)
  }
  assert heads == {8: 1, 64: 1, 96: 3, 128: 2}


def test_norms_have_32_groups_or_as_many_as_narrow_layers_allow():
  published = {128, 256, 512, 640, 1024, 1536, 2048}
  assert {adm_unet.groups(channels) for channels in published} == {32}
  narrow = {1: 1, 4: 1, 8: 2, 12: 3, 28: 7, 32: 8, 64: 16, 124: 31, 136: 17}
  assert {n: adm_unet.groups(n) for n in narrow} == narrow


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.int32])
def test_the_step_changes_the_image(dtype):
  x = jnp.tile(normal((1, 4, 6, 1)), (3, 1, 1, 1))
  t = jnp.asarray([5, 900, 5], dtype)
  y = ADM.apply(variables_of('adm'), x, t)
  np.testing.assert_allclose(y[0], y[2], atol=1e-6)
  assert np.abs(y[0] - y[1]).max() > 0.1


def group_norm(x, leaf, groups):
  shape = x.shape
  x = x.reshape(*shape[:3], groups, -1)
  x = x - x.mean((1, 2, 4), keepdims=True)
  x = x / np.sqrt(np.square(x).mean((1, 2, 4), keepdims=True) + 1e-5)
  return x.reshape(shape) * leaf['scale'] + leaf['bias']


def convolved(x, leaf):
  """A convolution with zeros around, in NumPy."""
  kernel = np.asarray(leaf['kernel'])
  pad = kernel.shape[0] // 2
  padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  h, w = x.shape[1:3]
  taps = [
    padded[:, i : i + h, j : j + w] @ kernel[i, j]
    for i, j in np.ndindex(kernel.shape[:2])
  ]
  return sum(taps) + leaf['bias']


def silu(x):
  return x / (1 + np.exp(-x))


def means_of_four(x):
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def four_times(x):
  return np.kron(x, np.ones((1, 2, 2, 1)))


@pytest.mark.parametrize(
  ('resample', 'reference'),
  [
    (None, lambda x: x),
    (adm_unet.halved, means_of_four),
    (adm_unet.doubled, four_times),
  ],
)
def test_a_block_is_modulated_by_time_and_resampled_after_its_first_norm(
  resample, reference
):
  block = adm_unet.ResBlock(12, jnp.float32, resample)
  x, time = normal((2, 4, 6, 8)), normal((2, 5), 1)
  shapes = jax.eval_shape(block.init, jax.random.key(0), x, time)
  variables = filled(shapes)
  leaf = jax.tree.map(np.asarray, variables['params'])
  y = silu(group_norm(np.asarray(x), leaf['norm1'], 2))
  y = convolved(reference(y), leaf['conv1'])
  told = np.asarray(time) @ leaf['time']['kernel'] + leaf['time']['bias']
  scale, shift = told[:, None, None, :12], told[:, None, None, 12:]
  y = group_norm(y, leaf['norm2'], 3) * (1 + scale) + shift
  y = convolved(silu(y), leaf['conv2'])
  y += convolved(reference(np.asarray(x)), leaf['shortcut'])
  np.testing.assert_allclose(block.apply(variables, x, time), y, atol=1e-4)


def attended(query, key, value, heads):
  """Attention over the tokens of each image, head by head."""
  result = np.zeros_like(value)
  width = value.shape[-1] // heads
  for head in range(heads):
    part = np.s_[..., head * width : (head + 1) * width]
    scores = query[part] @ key[part].swapaxes(1, 2) / math.sqrt(width)
    weights = np.exp(scores)
    weights /= weights.sum(-1, keepdims=True)
    result[part] = weights @ value[part]
  return result


def test_heads_attend_over_all_places():
  block = adm_unet.AttentionBlock(2, jnp.float32)
  x = normal((2, 2, 3, 8))
  variables = filled(jax.eval_shape(block.init, jax.random.key(0), x))
  leaf = jax.tree.map(np.asarray, variables['params'])
  y = group_norm(np.asarray(x), leaf['norm'], 2)
  query, key, value = (
    convolved(y, leaf[name]).reshape(2, 6, 8)
    for name in ('query', 'key', 'value')
  )
  y = attended(query, key, value, heads=2).reshape(x.shape)
  expected = x + convolved(y, leaf['out'])
  np.testing.assert_allclose(block.apply(variables, x), expected, atol=1e-5)


def test_the_unet_starts_at_small_normal_weights():
  model = ADMUNet(ADMUNetConfig(channels=32, multipliers=(1, 2), blocks=1))
  x = jnp.zeros((1, 4, 4, 3))
  params = jax.jit(model.init)(jax.random.key(0), x, jnp.zeros(1))['params']
  for path, leaf in flat(params).items():
    if path == "['middle_attention']['out']['kernel']":
      assert (leaf == 0).all()
    elif path.endswith("['kernel']"):
      tolerance = 4 / math.sqrt(2 * leaf.size)
      np.testing.assert_allclose(
        np.std(leaf), 0.02, rtol=tolerance, err_msg=path
      )


def test_attention_starts_as_the_identity():
  block = adm_unet.AttentionBlock(2, jnp.float32)
  x = normal((1, 2, 3, 8))
  y, _ = block.init_with_output(jax.random.key(0), x)
  np.testing.assert_array_equal(y, x)


# ResViT.


def test_the_published_resvit_has_123_44_million_parameters():
  params, output = shapes_of(ResViT(ResViTConfig()), (1, 256, 256, 1))
  assert count(params) == 123_441_537
  assert count(params['vit']) == 85_056_000
  assert count(params['head_1']) == count(params['head_6']) == 13_507_328
  assert params['head_1']['positions'].shape == (16, 16, 768)
  assert output.shape == (1, 256, 256, 1)


def test_the_first_stages_parameters_are_among_those_of_the_second():
  full, _ = shapes_of(ResViT(ResViTConfig()), (1, 256, 256, 1))
  config = ResViTConfig(transformers=False)
  first, _ = shapes_of(ResViT(config), (1, 256, 256, 1))
  assert count(first) == 11_370_881
  assert full.keys() - first.keys() == {'vit', 'head_1', 'head_6'}
  assert first == {name: full[name] for name in first}


def test_the_second_stage_starts_from_the_first():
  """Trained weights take their place by name, and the network runs."""
  _, size = SMALL['resvit']
  full = variables_of('resvit')['params']
  first = variables_of('res_cnn')['params']
  x = normal((1, *size, 1))
  before, after = (
    call(RESVIT, {'params': params}, x) for params in (full, {**full, **first})
  )
  assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize(
  ('head', 'other'), [('head_1', 'head_6'), ('head_6', 'head_1')]
)
def test_both_heads_use_the_transformer(head, other):
  """Without the other head's tokens, the shared weights still matter."""
  _, size = SMALL['resvit']
  x = normal((1, *size, 1))
  params = dict(variables_of('resvit')['params'])
  # The other head concatenates zeros.
  silent = jax.tree.map(jnp.zeros_like, params[other]['up_1'])
  params[other] = {**params[other], 'up_1': silent}
  changed = {**params, 'vit': jax.tree.map(lambda p: 0.5 * p, params['vit'])}
  apply = jax.jit(lambda params: call(RESVIT, {'params': params}, x))
  assert np.abs(apply(params) - apply(changed)).max() > 1e-4
  # With neither, they do not.
  both = {head: {**params[head], 'up_1': silent}}
  np.testing.assert_array_equal(
    apply({**params, **both}), apply({**changed, **both})
  )


def test_each_size_of_image_has_positions_of_its_own():
  variables = variables_of('resvit')
  assert variables['params']['head_1']['positions'].shape == (2, 3, 6)
  message = '48 x 32 pixels; positions are learned for 32 x 48'
  with pytest.raises(ValueError, match=message):
    call(RESVIT, variables, normal((1, 48, 32, 1)))
  output = call(RES_CNN, variables_of('res_cnn'), normal((1, 48, 32, 1)))
  assert output.shape == (1, 48, 32, 1)


def test_dropout_is_random_in_training_and_off_at_test():
  _, size = SMALL['resvit']
  x, variables = normal((1, *size, 1)), variables_of('resvit')
  train = jax.jit(
    lambda key: RESVIT.apply(variables, x, True, rngs={'dropout': key})
  )
  first, second = train(jax.random.key(0)), train(jax.random.key(1))
  assert np.abs(first - second).max() > 1e-3
  np.testing.assert_array_equal(first, train(jax.random.key(0)))
  assert np.abs(first - call(RESVIT, variables, x)).max() > 1e-3


def test_without_dropout_one_image_is_the_same_in_training_and_at_test():
  model = ResViT(dataclasses.replace(RESVIT.config, dropout=0.0))
  _, size = SMALL['resvit']
  x, variables = normal((1, *size, 1)), variables_of('resvit')
  training = call(model, variables, x, train=True)
  np.testing.assert_allclose(training, call(model, variables, x), atol=1e-6)


def test_an_image_is_the_same_alone_and_in_a_batch_in_training_too():
  _, size = SMALL['res_cnn']
  x = normal((2, *size, 1)).at[1].multiply(0.3)
  apply = jax.jit(
    lambda x: call(RES_CNN, variables_of('res_cnn'), x, train=True)
  )
  np.testing.assert_allclose(apply(x)[:1], apply(x[:1]), atol=1e-5)


def test_images_stay_between_minus_one_and_one():
  _, size = SMALL['res_cnn']
  variables = jax.tree.map(lambda p: 10 * p, variables_of('res_cnn'))
  output = call(RES_CNN, variables, normal((1, *size, 1)))
  assert 0.9 < np.abs(output).max() <= 1


def layer_norm(x, leaf):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
  return x * leaf['scale'] + leaf['bias']


def gelu(x):
  return x * np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2)(x)


def test_a_layer_of_the_transformer_has_pre_norm_attention_and_mlp():
  layer = resvit.ViTLayer(RESVIT.config, False, jnp.float32)
  x = normal((2, 4, 6))
  variables = filled(jax.eval_shape(layer.init, jax.random.key(0), x))
  leaf = jax.tree.map(np.asarray, variables['params'])

  def dense(x, name):
    return x @ leaf[name]['kernel'] + leaf[name]['bias']

  y = layer_norm(np.asarray(x), leaf['norm1'])
  qkv = (dense(y, name) for name in ('query', 'key', 'value'))
  y = np.asarray(x) + dense(attended(*qkv, heads=2), 'out')
  z = gelu(dense(layer_norm(y, leaf['norm2']), 'fc1'))
  expected = y + dense(z, 'fc2')
  np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-4)


class Head(nn.Module):
  """A head, and a transformer of no layers, which keeps tokens apart."""

  config: ResViTConfig

  @nn.compact
  def __call__(self, x):
    vit = resvit.ViTEncoder(self.config, False, jnp.float32)
    return resvit.TransformerHead(self.config, False, jnp.float32)(x, vit)


def test_tokens_return_to_their_places(monkeypatch):
  monkeypatch.setattr(resvit, '_norm', lambda _: lambda x, _=None: x)
  model = Head(dataclasses.replace(RESVIT.config, vit_layers=0))
  x = normal((1, 8, 32, 2))
  variables = filled(jax.eval_shape(model.init, jax.random.key(0), x))
  # In absolute values, no two paths from input to output cancel.
  variables = jax.tree.map(jnp.abs, variables)

  def last(x):
    return model.apply(variables, x)[0, :, -1].sum()

  gradient = jax.jit(jax.grad(last))(jnp.abs(x))
  reached = np.nonzero(np.abs(gradient).sum((0, 1, 3)))[0]
  # Beyond the 2 pixels that the compression sees, tokens of 4 pixels count.
  assert 31 in reached
  assert 16 <= reached.min() < 29


def test_resvit_starts_as_pytorchs_layers_do():
  model = ResViT(
    ResViTConfig(
      width=8, blocks=1, vit_layers=1, vit_hidden=64, vit_heads=2, vit_mlp=64
    )
  )
  init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 32, 32, 4)), False))
  params = init(jax.random.key(0))['params']
  # Uniform in 1 / sqrt(n), where n is what one output reads, but for a
  # transposed convolution the outputs that one input reaches.
  bounds = {
    'stem': (params['stem']['conv'], 7 * 7 * 4),
    'block': (params['block_1']['conv_0']['conv'], 9 * 32),
    'up': (params['up_1']['conv'], 9 * 16),
    'head': (params['head_1']['up_0']['conv'], 9 * 64),
    'embed': (params['head_1']['embed'], 128),
    'query': (params['vit']['layer_0']['query'], 64),
  }
  for name, (layer, n) in bounds.items():
    largest = np.abs(layer['kernel']).max() * math.sqrt(n)
    assert 0.98 < largest <= 1.0001, name
  fc1 = np.abs(params['vit']['layer_0']['fc1']['kernel']).max()
  assert 0.98 < fc1 / math.sqrt(6 / 128) <= 1.0001
  assert (params['head_1']['positions'] == 0).all()
