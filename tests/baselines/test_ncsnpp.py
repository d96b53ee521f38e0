import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.baselines.networks import critic as critic_lib
from synermedgen_jax.baselines.networks import fir
from synermedgen_jax.baselines.networks import ncsnpp as lib

pytestmark = pytest.mark.usefixtures('quick_compiles')

TINY = lib.NCSNppConfig(
  channels=8,
  multipliers=(1, 2),
  blocks=1,
  attention_levels=(1,),
  noise=3,
  style=6,
  mapping_layers=1,
  time=5,
)
TINY_CRITIC = critic_lib.CriticConfig(channels=2, down_blocks=2, time=6)


def normal(shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), 'float32')


def filled(shapes):
  """Random parameters, so that no branch is near zero."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype),
    shapes,
  )


def parameters(model, *inputs):
  return jax.eval_shape(model.init, jax.random.key(0), *inputs)


def count(variables):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))


def convolved(x, leaf):
  y = jax.lax.conv_general_dilated(
    x,
    leaf['kernel'],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y + leaf.get('bias', 0)


def affine(x, leaf):
  return (x @ leaf['kernel'] + leaf['bias'])[:, None, None]


def inputs(batch=2, height=4, width=6, channels=2):
  return (
    normal((batch, height, width, channels)),
    jnp.arange(batch),
    normal((batch, TINY.noise), 1),
  )


@functools.cache
def generator_parameters():
  return filled(parameters(lib.NCSNpp(TINY), *inputs()))


@functools.cache
def compiled(dtype):
  return jax.jit(lib.NCSNpp(TINY, jnp.dtype(dtype)).apply)


def generate(x, t, z, *, dtype='float32', conv_out=None):
  """Images by random parameters, but for those of the last convolution."""
  params = dict(generator_parameters()['params'])
  if conv_out:
    params['conv_out'] = conv_out
  return compiled(dtype)({'params': params}, x, t, z)


@functools.cache
def critic(dtype='float32'):
  model = critic_lib.Critic(TINY_CRITIC, jnp.dtype(dtype))
  x, t, _ = inputs(height=8, width=8)
  variables = filled(parameters(model, x, t))
  return jax.jit(functools.partial(model.apply, variables))


# FIR resampling.


def upfirdn(x, *, up, down, pad, gain):
  """One (h, w) image: zeros between, zeros around, filter, every n-th."""
  h, w = x.shape
  spread = np.zeros((h * up, w * up))
  spread[::up, ::up] = x
  spread = np.pad(spread, (pad, pad))
  kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 * gain
  rows, columns = spread.shape[0] - 3, spread.shape[1] - 3
  result = [
    [(spread[r : r + 4, q : q + 4] * kernel).sum() for q in range(columns)]
    for r in range(rows)
  ]
  return np.array(result)[::down, ::down]


@pytest.mark.parametrize(
  ('resample', 'setting'),
  [
    (fir.downsample, {'up': 1, 'down': 2, 'pad': (1, 1), 'gain': 1}),
    (fir.upsample, {'up': 2, 'down': 1, 'pad': (2, 1), 'gain': 4}),
    (fir.blur, {'up': 1, 'down': 1, 'pad': (2, 2), 'gain': 1}),
  ],
)
def test_resampling_filters_each_channel_of_each_image(resample, setting):
  x = normal((2, 6, 4, 3))
  expected = [
    [upfirdn(x[image, ..., c], **setting) for c in range(3)]
    for image in range(2)
  ]
  np.testing.assert_allclose(
    resample(x), np.moveaxis(np.array(expected), 1, -1), atol=1e-6
  )


def test_a_constant_image_changes_beside_the_border_alone():
  x = jnp.ones((1, 8, 8, 1))
  np.testing.assert_allclose(
    fir.downsample(x)[0, 1], [[7 / 8], [1], [1], [7 / 8]]
  )
  up = fir.upsample(x)[0, ..., 0]
  np.testing.assert_allclose(up[1:-1, 1:-1], 1)
  np.testing.assert_allclose(up[0, 1:-1], 3 / 4)
  np.testing.assert_allclose(fir.blur(x)[0, 2:-2, 2:-2], 1)


def test_resampling_keeps_the_mean_of_an_image():
  x = jnp.pad(normal((1, 4, 4, 1)), ((0, 0), (2, 2), (2, 2), (0, 0)))
  np.testing.assert_allclose(4 * fir.downsample(x).sum(), x.sum(), rtol=1e-5)
  np.testing.assert_allclose(fir.upsample(x).sum(), 4 * x.sum(), rtol=1e-5)


def test_resampling_does_not_shift_an_image():
  """Pixels that hold the position of their centre keep it, off the border."""
  centres = np.arange(8) + 0.5
  rows = jnp.asarray(np.tile(centres[:, None], (1, 8)), 'float32')
  rows = rows[None, ..., None]
  for x in (rows, rows.swapaxes(1, 2)):
    axis = 0 if x is rows else 1
    half, double = (
      np.moveaxis(np.asarray(f(x))[0, ..., 0], axis, 0)
      for f in (fir.downsample, fir.upsample)
    )
    np.testing.assert_allclose(half[1:-1, 1], [3, 5])
    np.testing.assert_allclose(double[1:-1, 2], (np.arange(1, 15) + 0.5) / 2)


def test_an_odd_side_cannot_be_halved():
  with pytest.raises(ValueError, match=r'6 x 5 pixels.*multiples of 2'):
    fir.downsample(jnp.zeros((1, 6, 5, 1)))


def test_resampling_keeps_the_dtype():
  x = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
  for resample in (fir.downsample, fir.upsample, fir.blur):
    assert resample(x).dtype == jnp.bfloat16


# The generator.


@pytest.mark.parametrize(
  ('channels', 'expected'), [(2, 39_725_250), (3, 39_726_402)]
)
def test_the_published_generator_has_39_73_million_parameters(
  channels, expected
):
  model = lib.NCSNpp(lib.NCSNppConfig())
  x = jnp.zeros((1, 64, 32, channels))
  variables = parameters(model, x, jnp.zeros(1), jnp.zeros((1, 100)))
  assert count(variables) == expected


def test_the_generator_returns_one_channel_of_the_inputs_size():
  y = generate(*inputs())
  assert y.shape == (2, 4, 6, 1)
  assert y.dtype == jnp.float32
  assert np.abs(y).max() < 1


def test_the_generator_starts_near_zero():
  model = lib.NCSNpp(TINY)
  # Under jit nothing but the last convolution is computed.
  conv_out = jax.jit(
    lambda key: model.init(key, *inputs())['params']['conv_out']
  )(jax.random.key(0))
  assert 0 < np.abs(generate(*inputs(), conv_out=conv_out)).max() < 1e-3


def test_the_image_is_the_tanh_of_the_first_of_two_channels():
  conv_out = {
    'kernel': jnp.zeros((3, 3, 8, 2)),
    'bias': jnp.array([0.5, -2]),
  }
  y = generate(*inputs(), conv_out=conv_out)
  np.testing.assert_allclose(y, np.tanh(0.5), rtol=1e-5)


def test_latent_time_and_every_channel_matter():
  x, t, z = inputs()
  plain = generate(x, t, z)
  for changed in (
    (x, t, z + 1),
    (x, t + 1, z),
    (x.at[..., 0].add(1), t, z),
    (x.at[..., 1].add(1), t, z),
  ):
    assert np.abs(generate(*changed) - plain).max() > 1e-3


def test_the_length_of_the_latent_does_not_matter():
  x, t, z = inputs()
  np.testing.assert_allclose(
    generate(x, t, 3 * z), generate(x, t, z), atol=1e-5
  )


def test_generated_images_of_a_batch_do_not_mix():
  x, t, z = inputs()
  plain = generate(x, t, z)
  changed = generate(x.at[1].add(1), t.at[1].add(1), z.at[1].add(1))
  np.testing.assert_allclose(changed[0], plain[0], atol=1e-6)


def test_bfloat16_computes_nearly_the_same():
  y = generate(*inputs(), dtype='bfloat16')
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, generate(*inputs()), atol=0.1)


def test_sides_must_be_multiples_of_the_stride():
  model = lib.NCSNpp(lib.NCSNppConfig())
  x = jnp.zeros((1, 64, 48, 2))
  with pytest.raises(ValueError, match=r'64 x 48 pixels.*multiples of 32'):
    parameters(model, x, jnp.zeros(1), jnp.zeros((1, 100)))


def test_attention_needs_a_level_that_exists():
  with pytest.raises(ValueError, match=r'levels \[2\].*0 to 1'):
    dataclasses.replace(TINY, attention_levels=(1, 2))


def test_attention_weighs_all_places_of_an_image_with_one_head():
  x = normal((2, 2, 3, 4))
  model = lib.AttentionBlock(jnp.float32)
  variables = filled(parameters(model, x))
  leaves = variables['params']

  def project(name, y):
    return y @ np.asarray(leaves[name]['kernel'][0, 0]) + leaves[name]['bias']

  for image, result in zip(x, model.apply(variables, x), strict=True):
    y = np.asarray(image).reshape(6, 4)
    y = (y - y.mean()) / y.std() * leaves['norm']['scale']
    y += leaves['norm']['bias']
    scores = project('query', y) @ project('key', y).T / 2  # root of 4 channels
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    y = project('out', weights @ project('value', y)).reshape(2, 3, 4)
    np.testing.assert_allclose(result, (image + y) / np.sqrt(2), atol=1e-4)


@pytest.mark.parametrize(('channels', 'groups'), [(12, 3), (256, 32)])
def test_the_adaptive_norm_scales_and_shifts_each_group(channels, groups):
  x, style = normal((2, 2, 3, channels)), normal((2, 4), 1)
  model = lib.AdaptiveGroupNorm(jnp.float32)
  variables = filled(parameters(model, x, style))
  grouped = np.asarray(x).reshape(2, 6, groups, -1)
  mean = grouped.mean((1, 3), keepdims=True)
  deviation = grouped.std((1, 3), keepdims=True)
  normalised = ((grouped - mean) / deviation).reshape(x.shape)
  scale, shift = (
    affine(style, variables['params'][name]) for name in ('scale', 'shift')
  )
  np.testing.assert_allclose(
    model.apply(variables, x, style), scale * normalised + shift, atol=1e-4
  )


def test_the_adaptive_norm_starts_with_scale_one_and_shift_zero():
  x, style = normal((2, 2, 3, 8)), jnp.zeros((2, 4))
  y, _ = lib.AdaptiveGroupNorm(jnp.float32).init_with_output(
    jax.random.key(0), x, style
  )
  grouped = np.asarray(y).reshape(2, 6, 2, 4)
  np.testing.assert_allclose(grouped.mean((1, 3)), 0, atol=1e-5)
  np.testing.assert_allclose(grouped.std((1, 3)), 1, atol=1e-4)


def test_a_residual_block_starts_as_its_input_by_root_two():
  x, time, style = normal((1, 4, 4, 8)), normal((1, 5)), normal((1, 6))
  block = lib.ResBlock(8, jnp.float32)
  y, _ = block.init_with_output(jax.random.key(0), x, time, style)
  np.testing.assert_allclose(y, x / np.sqrt(2), atol=1e-3)


@pytest.mark.parametrize('resample', [fir.downsample, fir.upsample, None])
def test_a_residual_block_resamples_between_norm_and_convolution(resample):
  x, time, style = normal((2, 4, 6, 8)), normal((2, 5), 1), normal((2, 6), 2)
  model = lib.ResBlock(12, jnp.float32, resample)
  variables = filled(parameters(model, x, time, style))
  leaves = variables['params']

  def activated(y, name):
    norm = lib.AdaptiveGroupNorm(jnp.float32)
    y = norm.apply({'params': leaves[name]}, y, style)
    return y / (1 + np.exp(-y))

  resize = resample or (lambda y: y)
  y = convolved(resize(activated(x, 'norm1')), leaves['conv1'])
  y = activated(y + affine(time, leaves['time']), 'norm2')
  y = convolved(y, leaves['conv2'])
  shortcut = convolved(resize(x), leaves['shortcut'])
  np.testing.assert_allclose(
    model.apply(variables, x, time, style),
    (shortcut + y) / np.sqrt(2),
    atol=1e-4,
  )


def test_the_input_reaches_lower_levels_through_the_pyramid():
  """All parameters are zero but those of the pyramid's convolution."""
  x, time, style = normal((1, 4, 6, 2)), normal((1, 5)), normal((1, 6))
  model = lib.Encoder(TINY, jnp.float32)
  variables = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape), parameters(model, x, time, style)
  )
  kernel = variables['params']['level0_pyramid']['kernel']
  # The middle of the kernel: channel 1 of the input becomes channel 3.
  variables['params']['level0_pyramid']['kernel'] = kernel.at[1, 1, 1, 3].set(1)
  _, _, low, _ = model.apply(variables, x, time, style)
  expected = fir.blur(x)[:, 1:-1:2, 1:-1:2, 1] / np.sqrt(2)
  np.testing.assert_allclose(low[..., 3], expected, atol=1e-6)
  np.testing.assert_array_equal(low[..., :3], 0)


# The critic.


@pytest.mark.parametrize(
  ('channels', 'expected'), [(64, 27_736_705), (32, 7_216_705)]
)
def test_the_published_critics_have_27_74_and_7_2_million_parameters(
  channels, expected
):
  model = critic_lib.Critic(critic_lib.CriticConfig(channels))
  variables = parameters(model, jnp.zeros((1, 64, 128, 2)), jnp.zeros(1))
  assert count(variables) == expected


def test_a_block_of_the_critic_resamples_before_its_second_convolution():
  x, time = normal((2, 4, 6, 2)), normal((2, 5), 1)
  model = critic_lib.DownBlock(3, jnp.float32)
  variables = filled(parameters(model, x, time))
  leaves = variables['params']

  def activated(y):
    return np.where(y > 0, y, 0.2 * y)

  y = convolved(activated(x), leaves['conv1']) + affine(time, leaves['time'])
  y = convolved(fir.downsample(activated(y)), leaves['conv2'])
  shortcut = convolved(fir.downsample(x), leaves['shortcut'])
  np.testing.assert_allclose(
    model.apply(variables, x, time), (shortcut + y) / np.sqrt(2), atol=1e-5
  )


def test_a_block_of_the_critic_starts_as_its_shortcut_by_root_two():
  x, time = normal((1, 4, 6, 2)), normal((1, 5))
  block = critic_lib.DownBlock(3, jnp.float32)
  y, variables = block.init_with_output(jax.random.key(0), x, time)
  kernel = variables['params']['shortcut']['kernel'][0, 0]
  expected = fir.downsample(x) @ kernel / np.sqrt(2)
  np.testing.assert_allclose(y, expected, atol=1e-3)


@pytest.mark.parametrize('channels', [2, 3])
def test_the_critic_returns_a_logit_for_each_image(channels):
  model = critic_lib.Critic(TINY_CRITIC)
  x, t, _ = inputs(batch=4, height=4, width=8, channels=channels)
  logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x, t)
  assert logits.shape == (4,)
  assert logits.dtype == jnp.float32


def test_the_critic_sees_both_images_and_the_time():
  x, t, _ = inputs(height=8, width=8)
  plain = critic()(x, t)
  for changed in (
    (x, t + 1),
    (x.at[..., 0].add(1), t),
    (x.at[..., 1].add(1), t),
  ):
    assert np.abs(critic()(*changed) - plain).min() > 1e-3


def test_the_critic_sees_the_images_of_a_group_together():
  """Of eight images, those with even numbers are one group."""
  x, t, _ = inputs(batch=8, height=8, width=8)
  moved = critic()(x.at[2].add(1), t) - critic()(x, t)
  np.testing.assert_allclose(moved[1::2], 0, atol=1e-5)
  assert np.abs(moved[::2]).min() > 1e-4


def test_the_critic_in_bfloat16_computes_nearly_the_same():
  x, t, _ = inputs(height=8, width=8)
  y, exact = critic('bfloat16')(x, t), critic()(x, t)
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, exact, rtol=0.1, atol=0.1)


def test_the_sides_of_the_critics_images_must_be_multiples_of_its_stride():
  model = critic_lib.Critic(critic_lib.CriticConfig())
  with pytest.raises(ValueError, match=r'32 x 64 pixels.*multiples of 64'):
    parameters(model, jnp.zeros((1, 32, 64, 2)), jnp.zeros(1))


@pytest.mark.parametrize(
  ('batch', 'groups'),
  [
    (2, [[0, 1]]),
    (3, [[0, 1, 2]]),
    (4, [[0, 1, 2, 3]]),
    (8, [[0, 2, 4, 6], [1, 3, 5, 7]]),
  ],
)
def test_the_deviation_is_that_of_the_group(batch, groups):
  x = normal((batch, 2, 3, 5))
  y = critic_lib.with_minibatch_deviation(x)
  np.testing.assert_array_equal(y[..., :-1], x)
  for group in groups:
    expected = np.std(np.asarray(x)[group], axis=0).mean()
    for image in group:
      np.testing.assert_allclose(y[image, ..., -1], expected, rtol=1e-5)


def test_a_single_image_has_no_deviation():
  y = critic_lib.with_minibatch_deviation(normal((1, 2, 3, 5)))
  np.testing.assert_allclose(y[..., -1], 1e-4)


def test_equal_images_have_a_finite_gradient():
  gradient = jax.grad(lambda x: critic_lib.with_minibatch_deviation(x).sum())
  assert np.isfinite(gradient(jnp.ones((2, 2, 2, 1)))).all()


def test_a_batch_must_be_whole_groups():
  with pytest.raises(ValueError, match='groups of 4: 6 images'):
    critic_lib.with_minibatch_deviation(jnp.zeros((6, 1, 1, 1)))
