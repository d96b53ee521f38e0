"""The convolutional networks of the baselines, and the layers they share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.baselines.networks import patch_gan
from synermedgen_jax.baselines.networks.patch_gan import PatchGAN
from synermedgen_jax.baselines.networks.pix2pix_unet import (
  Pix2PixUNet,
  Pix2PixUNetConfig,
)
from synermedgen_jax.baselines.networks.resnet import ResnetGenerator
from synermedgen_jax.baselines.unet_regression import UNetRegression
from synermedgen_jax.models import convolutions
from synermedgen_jax.models.unet import (
  ResidualBlock,
  UNet,
  UNetConfig,
)

pytestmark = pytest.mark.usefixtures('quick_compiles')

# Small networks, the size of an image they take, and the smallest multiple.
UNET = UNet(UNetConfig(stages=3, width=4, widest=12))
RESENC = UNet(UNetConfig(stages=2, width=4, residual_blocks=(1, 2), decoder=1))
RESIDUAL = UNet(
  UNetConfig(
    stages=2,
    width=4,
    residual_blocks=(1, 1),
    decoder='residual',
    bare_shortcuts=True,
  )
)
PIX2PIX = Pix2PixUNet(Pix2PixUNetConfig(levels=6, channels=4))
RESNET = ResnetGenerator(blocks=1, width=4)
BATCH_GAN = PatchGAN('batch', channels=4)
INSTANCE_GAN = PatchGAN('instance', channels=4)
SMALL = {
  'unet': (UNET, (16, 8)),
  'resenc': (RESENC, (8, 4)),
  'residual': (RESIDUAL, (8, 4)),
  'pix2pix': (PIX2PIX, (64, 128)),
  'resnet': (RESNET, (12, 8)),
  'batch_gan': (BATCH_GAN, (32, 40)),
  'instance_gan': (INSTANCE_GAN, (32, 40)),
}
GENERATORS = ('unet', 'resenc', 'residual', 'pix2pix', 'resnet')


def has_modes(model) -> bool:
  """Whether the model takes `train`."""
  return isinstance(model, Pix2PixUNet)


def call(model, variables, x, *, train=False, key=0):
  """The model's output, whether or not it takes `train`."""
  mode = (train,) if has_modes(model) else ()
  rngs = {'dropout': jax.random.key(key)} if train else None
  return model.apply(variables, x, *mode, rngs=rngs)


def shapes_of(model, shape):
  """Shapes of the parameters and of the output for images of this shape."""
  mode = (False,) if has_modes(model) else ()
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  output, variables = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x, *mode), x
  )
  return variables['params'], output


def count(params) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def filled(model, shape):
  """Random parameters, none of them at its initial zero or one."""
  params, _ = shapes_of(model, shape)
  rng = np.random.default_rng(0)

  def leaf(path, shape):
    value = rng.normal(0, 0.3, shape.shape)
    is_scale = path[-1].key == 'scale'
    return jnp.asarray(value + is_scale, shape.dtype)

  return {'params': jax.tree_util.tree_map_with_path(leaf, params)}


def images(shape, seed=1):
  return jax.random.uniform(jax.random.key(seed), shape, minval=-1, maxval=1)


@pytest.mark.parametrize(
  ('model', 'channels', 'parameters'),
  [
    (UNet(UNetConfig()), 1, 33_468_833),
    (UNet(UNetRegression.preset('resenc', None).generator), 1, 105_913_825),
    (Pix2PixUNet(Pix2PixUNetConfig()), 1, 54_407_809),
    (Pix2PixUNet(Pix2PixUNetConfig(out_channels=3)), 3, 54_413_955),
    (ResnetGenerator(), 1, 11_365_633),
    (ResnetGenerator(out_channels=3), 3, 11_378_179),
    (ResnetGenerator(blocks=6), 1, 7_825_153),
  ],
)
def test_generators_have_their_published_size(model, channels, parameters):
  params, output = shapes_of(model, (1, 256, 256, channels))
  assert count(params) == parameters
  out_channels = 1 if isinstance(model, UNet) else channels
  assert output.shape == (1, 256, 256, out_channels)


@pytest.mark.parametrize(
  ('norm', 'channels', 'parameters'),
  [
    ('batch', 6, 2_768_705),
    ('batch', 2, 2_764_609),
    # Biases of three convolutions in place of three scales and shifts.
    ('instance', 2, 2_764_609 - 128 - 256 - 512),
  ],
)
def test_discriminators_have_their_published_size(norm, channels, parameters):
  params, output = shapes_of(PatchGAN(norm), (1, 256, 256, channels))
  assert count(params) == parameters
  assert output.shape == (1, 30, 30, 1)


def test_the_unet_of_64_pixels_has_five_stages():
  model = UNet(UNetConfig(stages=5))
  assert model.config.widths == (32, 64, 128, 256, 512)
  assert UNetConfig().widths == (32, 64, 128, 256, 512, 512, 512)
  _, output = shapes_of(model, (1, 64, 64, 1))
  assert output.shape == (1, 64, 64, 1)


@pytest.mark.parametrize('name', SMALL)
def test_extra_channels_change_the_convolutions_of_the_image_alone(name):
  model, size = SMALL[name]
  few, small = shapes_of(model, (2, *size, 1))
  many, large = shapes_of(model, (2, *size, 24))
  assert small.shape == large.shape
  flat = [
    dict(jax.tree_util.tree_leaves_with_path(params)) for params in (few, many)
  ]
  assert flat[0].keys() == flat[1].keys()
  changed = [k for k in flat[0] if flat[0][k].shape != flat[1][k].shape]
  # A network without a stem has a shortcut beside its first convolution.
  assert len(changed) == (2 if name == 'residual' else 1)
  for key in changed:
    assert flat[0][key].shape[2] == 1
    assert flat[1][key].shape[2] == 24


@pytest.mark.parametrize('name', GENERATORS)
def test_images_keep_their_height_and_width(name):
  model, (height, width) = SMALL[name]
  for size in ((height, width), (width, height)):
    _, output = shapes_of(model, (2, *size, 3))
    assert output.shape == (2, *size, 1)


def test_patches_are_eight_pixels_apart():
  _, output = shapes_of(BATCH_GAN, (2, 24, 64, 2))
  assert output.shape == (2, 1, 6, 1)


@pytest.mark.parametrize(
  ('name', 'size', 'multiple', 'least'),
  [
    ('unet', (16, 18), 4, 8),
    ('unet', (4, 16), 4, 8),
    ('pix2pix', (96, 64), 64, 64),
    ('resnet', (16, 18), 4, 8),
    ('resnet', (16, 4), 4, 8),
    ('batch_gan', (36, 32), 8, 24),
    ('batch_gan', (16, 32), 8, 24),
  ],
)
def test_sizes_that_do_not_fit_are_refused(name, size, multiple, least):
  with pytest.raises(ValueError, match=rf'{size[0]} x {size[1]}') as error:
    shapes_of(SMALL[name][0], (1, *size, 1))
  message = str(error.value)
  assert f'multiples of {multiple}, at least {least}' in message
  assert '\n' not in message


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'residual_blocks': (1, 3)}, 'not one number for each of 3 stages'),
    ({'bare_shortcuts': True}, 'there are no residual_blocks'),
  ],
)
def test_a_unet_of_contradicting_settings_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    UNetConfig(stages=3, **changes)


def test_an_unknown_norm_is_refused():
  with pytest.raises(ValueError, match="not 'layer'"):
    shapes_of(PatchGAN('layer'), (1, 32, 32, 1))


def identity(**_):
  """In the place of a norm, whose statistics depend on every pixel."""
  return lambda x: x


def test_a_patch_is_70_pixels(monkeypatch):
  monkeypatch.setattr(patch_gan, 'batch_norm', identity)
  model, shape = PatchGAN('batch', channels=1), (1, 128, 128, 1)
  # No two paths from a pixel to the output cancel.
  variables = jax.tree.map(jnp.ones_like, filled(model, shape))

  def logit(x):
    return model.apply(variables, x)[0, 6, 7, 0]

  gradient = jax.jit(jax.grad(logit))(images(shape))[0, :, :, 0]
  rows, columns = np.nonzero(gradient)
  # The patch of output 0 starts 23 pixels beyond the border.
  assert (rows.min(), rows.max()) == (6 * 8 - 23, 6 * 8 - 23 + 69)
  assert (columns.min(), columns.max()) == (7 * 8 - 23, 7 * 8 - 23 + 69)
  assert len(rows) == 70 * 70


@pytest.mark.parametrize('name', SMALL)
def test_images_of_a_batch_do_not_mix_at_test(name):
  model, size = SMALL[name]
  shape = (2, *size, 2)
  x, variables = images(shape), filled(model, shape)
  x = x.at[1].multiply(0.3)
  apply = jax.jit(lambda x: call(model, variables, x))
  together = apply(x)
  for number in range(2):
    alone = apply(x[number : number + 1])
    np.testing.assert_allclose(
      together[number : number + 1], alone, rtol=1e-4, atol=1e-5
    )
  assert np.abs(together[0] - together[1]).max() > 1e-2


@pytest.mark.parametrize('model', [UNET, RESENC, RESIDUAL])
def test_a_condition_reaches_the_network_behind_its_norms(model):
  """As constant planes of the image it would not: norms remove them."""
  x = images((1, 16, 16, 1))
  here, there = jnp.asarray([[0.0, 1.0]]), jnp.asarray([[1.0, 0.0]])
  variables = model.init(jax.random.key(0), x, here)
  apply = jax.jit(model.apply)
  # It has no effect before training, and one afterwards.
  start = apply(variables, x, here)
  np.testing.assert_array_equal(start, apply(variables, x, there))
  rng = np.random.default_rng(0)
  learned = jax.tree.map(
    lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32),
    variables,
  )
  difference = apply(learned, x, here) - apply(learned, x, there)
  assert np.abs(difference).max() > 1e-2


def test_dropout_is_random_in_training_and_off_at_test():
  _, size = SMALL['pix2pix']
  shape = (1, *size, 1)
  x, variables = images(shape), filled(PIX2PIX, shape)
  train = jax.jit(
    lambda key: PIX2PIX.apply(variables, x, True, rngs={'dropout': key})
  )
  first, second = train(jax.random.key(0)), train(jax.random.key(1))
  assert np.abs(first - second).max() > 1e-2
  np.testing.assert_array_equal(first, train(jax.random.key(0)))
  test = call(PIX2PIX, variables, x)
  assert np.abs(first - test).max() > 1e-2


@pytest.mark.parametrize(
  ('levels', 'dropout'),
  [(8, [4, 5, 6]), (9, [5, 6, 7]), (7, [4, 5]), (6, [4]), (5, []), (3, [])],
)
def test_dropout_lies_in_the_innermost_blocks_of_full_width(levels, dropout):
  assert list(Pix2PixUNetConfig(levels=levels).dropout_levels) == dropout


def test_pix2pix_reaches_one_pixel_in_eight_levels():
  widths = Pix2PixUNetConfig().widths
  assert widths == (64, 128, 256, 512, 512, 512, 512, 512)
  params, _ = shapes_of(PIX2PIX, (1, 64, 64, 1))
  # Neither the first nor the innermost level has a norm, nor has the output.
  norms = {name for name in params if 'norm' in name}
  assert norms == {f'down_norm_{level}' for level in (1, 2, 3, 4)} | {
    f'up_norm_{level}' for level in (1, 2, 3, 4, 5)
  }
  assert {name for name in params if 'bias' in params[name]} == norms | {'up_0'}


@pytest.mark.parametrize('name', SMALL)
def test_every_convolution_reaches_the_output(name):
  model, size = SMALL[name]
  shape = (1, *size, 2)
  x, variables = images(shape), filled(model, shape)
  target = images(shapes_of(model, shape)[1].shape, seed=2)

  def loss(variables):
    return jnp.mean(call(model, variables, x) * target)

  gradient = jax.jit(jax.grad(loss))(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    if path[-1].key == 'kernel':
      assert np.abs(leaf).max() > 1e-7, jax.tree_util.keystr(path)


@pytest.mark.parametrize('name', SMALL)
def test_half_precision_keeps_parameters_and_output_in_full(name):
  model, size = SMALL[name]
  shape = (1, *size, 1)
  half = model.copy(dtype=jnp.bfloat16)
  params, output = shapes_of(half, shape)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
  assert dtypes == {np.dtype('float32')}
  assert output.dtype == jnp.float32
  x, variables = images(shape), filled(model, shape)
  expected = np.asarray(call(model, variables, x))
  difference = call(half, variables, x) - expected
  assert 0 < np.abs(difference).mean() < 0.1 * np.abs(expected).mean()


@pytest.mark.parametrize('name', ['pix2pix', 'resnet'])
def test_gan_generators_stay_between_minus_one_and_one(name):
  model, size = SMALL[name]
  shape = (1, *size, 1)
  variables = jax.tree.map(lambda p: 10 * p, filled(model, shape))
  output = call(model, variables, images(shape))
  assert 0.9 < np.abs(output).max() <= 1


def test_the_regression_unet_is_not_bounded():
  shape = (1, 16, 8, 1)
  variables = jax.tree.map(lambda p: 10 * p, filled(UNET, shape))
  assert np.abs(call(UNET, variables, images(shape))).max() > 1


def leaves(variables, name):
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    if path[-1].key == name
  }


def initial(model, shape):
  mode = (False,) if has_modes(model) else ()
  init = jax.jit(lambda key: model.init(key, jnp.zeros(shape), *mode))
  return init(jax.random.key(0))


def test_the_unet_starts_as_nnunet_does():
  model = UNet(UNetConfig(stages=2, width=32))
  params = initial(model, (1, 4, 4, 4))['params']
  # Standard deviation sqrt(2 / (1 + 0.01 ** 2) / n): n is what one output
  # reads, but for a transposed convolution the outputs that one input reaches.
  reads = {
    'down_0': (params['down_0']['conv_1']['conv'], 9 * 32),
    'down_1': (params['down_1']['conv_1']['conv'], 9 * 64),
    'upsample_0': (params['upsample_0'], 4 * 32),
    'up_0': (params['up_0']['conv_0']['conv'], 9 * 64),
  }
  for name, (layer, n) in reads.items():
    deviation = np.std(layer['kernel'])
    np.testing.assert_allclose(
      deviation, math.sqrt(2 / 1.0001 / n), rtol=0.04, err_msg=name
    )
  assert all((leaf == 0).all() for leaf in leaves(params, 'bias').values())
  assert all((leaf == 1).all() for leaf in leaves(params, 'scale').values())


@pytest.mark.parametrize('stride', [1, 2])
def test_a_residual_block_starts_as_its_shortcut(stride):
  block = ResidualBlock(3, jnp.float32, stride)
  x = images((1, 4, 6, 3))
  output = block.apply(block.init(jax.random.key(0), x), x)
  pooled = np.asarray(x).reshape(1, 4 // stride, stride, 6 // stride, stride, 3)
  pooled = pooled.mean((2, 4))
  np.testing.assert_allclose(
    output, np.where(pooled > 0, pooled, 0.01 * pooled), atol=1e-6
  )


def test_a_bare_shortcut_keeps_the_level_of_its_input():
  block = ResidualBlock(5, jnp.float32, bare=True)
  x = images((1, 4, 6, 3))
  variables = block.init(jax.random.key(0), x)
  kernel = variables['params']['shortcut']['kernel'][0, 0]
  for level in (0.0, 10.0):
    projected = np.asarray(x + level) @ kernel
    np.testing.assert_allclose(
      block.apply(variables, x + level),
      np.where(projected > 0, projected, 0.01 * projected),
      atol=1e-5,
    )


@pytest.mark.parametrize(
  'model',
  [
    Pix2PixUNet(Pix2PixUNetConfig(levels=4, channels=16)),
    ResnetGenerator(blocks=1, width=16),
    PatchGAN('batch', channels=16),
  ],
)
def test_gan_networks_start_at_small_normal_weights(model):
  variables = initial(model, (1, 32, 32, 4))
  for name, kernel in leaves(variables, 'kernel').items():
    tolerance = 4 / math.sqrt(2 * kernel.size)
    np.testing.assert_allclose(
      np.std(kernel), 0.02, rtol=tolerance, err_msg=name
    )
  assert all((leaf == 0).all() for leaf in leaves(variables, 'bias').values())
  scales = list(leaves(variables, 'scale').values())
  assert bool(scales) == (not isinstance(model, ResnetGenerator))
  for scale in scales:
    assert 0.9 < scale.min() < 1 < scale.max() < 1.1


def transposed(x, kernel, pad, output_pad):
  """PyTorch's transposed convolution of stride 2, one channel, in NumPy."""
  side = kernel.shape[0]
  height, width = (2 * (n - 1) + side for n in x.shape)
  y = np.zeros((height + output_pad, width + output_pad))
  for i, j in np.ndindex(x.shape):
    y[2 * i : 2 * i + side, 2 * j : 2 * j + side] += x[i, j] * kernel
  return y[pad : height - pad + output_pad, pad : width - pad + output_pad]


@pytest.mark.parametrize(
  ('kernel', 'pad', 'output_pad'), [(2, 0, 0), (3, 1, 1), (4, 1, 0)]
)
def test_transposed_convolutions_are_aligned_as_pytorchs(
  kernel, pad, output_pad
):
  layer = convolutions.ConvTranspose(1, kernel, bias=False)
  x = images((1, 3, 5, 1))
  weights = images((kernel, kernel, 1, 1), seed=2)
  output = layer.apply({'params': {'kernel': weights}}, x)[0, ..., 0]
  assert output.shape == (6, 10)
  # Flax slides its kernel over the output, PyTorch over the input.
  flipped = np.asarray(weights)[::-1, ::-1, 0, 0]
  expected = transposed(np.asarray(x)[0, ..., 0], flipped, pad, output_pad)
  np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize('kernel', [2, 3, 4])
def test_a_transposed_convolution_is_that_of_flax(kernel):
  pad = (kernel // 2, (kernel + 1) // 2)
  expected = nn.ConvTranspose(5, (kernel, kernel), (2, 2), padding=(pad, pad))
  assert_same_layers(convolutions.ConvTranspose(5, kernel), expected)


def test_a_halving_convolution_is_that_of_flax():
  layer = convolutions.conv(5, 4, stride=2, pad=1)
  assert isinstance(layer, convolutions.HalvingConv)
  ones = ((1, 1), (1, 1))
  assert_same_layers(layer, nn.Conv(5, (4, 4), (2, 2), padding=ones))


def test_constant_channels_may_be_bfloat16():
  layer = convolutions.HalvingConv(5, dtype=jnp.bfloat16)
  x, planes = images((2, 8, 8, 1)), images((2, 3), seed=4)
  variables = layer.init(jax.random.key(1), x, planes)
  y = layer.apply(variables, x, planes)
  assert y.dtype == jnp.bfloat16
  exact = convolutions.HalvingConv(5).apply(variables, x, planes)
  np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=2e-3)


@pytest.mark.parametrize('side', [2, 4, 6, 8, 12])
def test_constant_channels_are_convolved_like_others(side):
  layer = convolutions.HalvingConv(5)
  x, planes = images((2, side, 8, 1)), images((2, 3), seed=4)
  variables = layer.init(jax.random.key(1), x, planes)
  weight = images((2, side // 2, 4, 5), seed=3)

  def as_channels(variables, planes):
    shape = (2, side, 8, 3)
    images_of_them = jnp.broadcast_to(planes[:, None, None], shape)
    return layer.apply(variables, jnp.concatenate([x, images_of_them], -1))

  def as_planes(variables, planes):
    return layer.apply(variables, x, planes)

  def gradients(function):
    return jax.grad(lambda *a: (function(*a) * weight).sum(), (0, 1))(
      variables, planes
    )

  np.testing.assert_allclose(
    as_planes(variables, planes), as_channels(variables, planes), atol=1e-5
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    gradients(as_planes),
    gradients(as_channels),
  )


def assert_same_layers(layer, expected):
  """Asserts equal outputs and gradients, with the same parameters."""
  x = images((2, 6, 4, 3))
  variables = expected.init(jax.random.key(1), x)
  variables['params']['bias'] += jnp.arange(5.0)
  weight = images(expected.apply(variables, x).shape, seed=3)

  def total(layer):
    return lambda v, x: (layer.apply(v, x) * weight).sum()

  np.testing.assert_allclose(
    layer.apply(variables, x), expected.apply(variables, x), atol=1e-5
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
    jax.grad(total(layer), (0, 1))(variables, x),
    jax.grad(total(expected), (0, 1))(variables, x),
  )


def test_norms_standardise_each_channel():
  x = np.array([[1.0, 3.0, 5.0, 7.0], [10.0, 10.0, 30.0, 30.0]])
  x = jnp.asarray(x.reshape(2, 2, 2, 1))
  instance, _ = convolutions.InstanceNorm().init_with_output(
    jax.random.key(0), x
  )
  outer, inner = 3 / math.sqrt(5), 1 / math.sqrt(5)
  expected = [[-outer, -inner, inner, outer], [-1, -1, 1, 1]]
  np.testing.assert_allclose(instance.reshape(2, 4), expected, atol=1e-4)
  affine = {'params': {'scale': jnp.array([2.0]), 'bias': jnp.array([0.5])}}
  for norm, axis in (
    (convolutions.InstanceNorm(affine=True), (1, 2)),
    (convolutions.batch_norm(), (1, 2)),
  ):
    y = np.asarray(norm.apply(affine, x))
    np.testing.assert_allclose(y.mean(axis), 0.5, atol=1e-4)
    np.testing.assert_allclose(y.std(axis), 2, atol=1e-4)


def test_a_group_of_channels_has_one_mean_and_deviation():
  x = jnp.array([[1.0, 3.0, 0.0, 0.0], [1.0, 3.0, 0.0, 4.0]])
  norm = convolutions.GroupNorm(2)
  y = np.asarray(norm.apply({}, x.reshape(1, 1, 2, 4))).reshape(2, 4)
  np.testing.assert_allclose(y[:, :2], [[-1, 1], [-1, 1]], atol=1e-4)
  deviation = math.sqrt(3)  # of 0, 0, 0, 4
  expected = np.array([[-1, -1], [-1, 3]]) / deviation
  np.testing.assert_allclose(y[:, 2:], expected, atol=1e-4)


def test_mirrors_leave_out_the_border():
  x = jnp.arange(3.0).reshape(1, 1, 3, 1)
  x = jnp.tile(x, (1, 3, 1, 1))
  mirrored = convolutions.reflect_pad(x, 2)[0, 0, :, 0]
  np.testing.assert_array_equal(mirrored, [2, 1, 0, 1, 2, 1, 0])
