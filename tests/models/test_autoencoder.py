import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import AUTOENCODER, fill

from synermedgen_jax.models import autoencoder as lib

pytestmark = pytest.mark.usefixtures('quick_compiles')

CONFIGS = {
  'flux_like': AUTOENCODER,
  'folded': dataclasses.replace(
    AUTOENCODER, ch_mult=(1,), space_to_depth=4, channels=3
  ),
}


@functools.cache
def model_and_params(name):
  model = lib.Autoencoder(CONFIGS[name], jnp.float32)
  images = jnp.zeros((1, 8, 8, CONFIGS[name].channels))
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  return model, fill(shapes['params'])


@functools.cache
def compiled(name, method):
  model, params = model_and_params(name)
  apply = jax.jit(functools.partial(model.apply, method=method))
  return functools.partial(apply, {'params': params})


def call(name, method, x):
  return compiled(name, method)(x)


def pictures(name, side=8):
  shape = (2, side, side, CONFIGS[name].channels)
  return jax.random.uniform(jax.random.key(1), shape, minval=-1, maxval=1)


def test_downsampling_counts_folding_and_levels():
  downsample = {n: c.downsample for n, c in CONFIGS.items()}
  assert downsample == {'flux_like': 2, 'folded': 4}
  flux = dataclasses.replace(AUTOENCODER, ch_mult=(1, 2, 4, 4))
  assert flux.downsample == 8


@pytest.mark.parametrize(('name', 'side'), [('flux_like', 4), ('folded', 2)])
def test_latents_lie_on_a_smaller_grid_and_decode_to_pictures(name, side):
  images = pictures(name)
  latents = call(name, 'encode', images)
  assert latents.shape == (2, side, side, 3)
  assert call(name, 'decode', latents).shape == images.shape


def test_encoding_shifts_then_scales_the_mean():
  name = 'flux_like'
  _, params = model_and_params(name)
  shift, scale = params['latent_shift'], params['latent_scale']
  assert shift.shape == scale.shape == (3,)
  mean, logvar = call(name, 'moments', pictures(name))
  assert mean.shape == logvar.shape
  np.testing.assert_allclose(
    call(name, 'encode', pictures(name)), (mean - shift) * scale, atol=1e-5
  )


def test_decoding_undoes_shift_and_scale():
  name = 'flux_like'
  latents = call(name, 'encode', pictures(name))
  mean, _ = call(name, 'moments', pictures(name))
  np.testing.assert_allclose(
    call(name, 'decode', latents), call(name, 'decode_raw', mean), atol=1e-4
  )


def test_shift_and_scale_start_at_fluxs_constants():
  model = lib.Autoencoder(CONFIGS['folded'], jnp.float32)
  # Under jit nothing but the two constants is computed.
  images = pictures('folded')
  params = jax.jit(
    lambda key: {
      name: leaf
      for name, leaf in model.init(key, images)['params'].items()
      if name.startswith('latent')
    }
  )(jax.random.key(0))
  np.testing.assert_allclose(params['latent_shift'], [0.1159] * 3)
  np.testing.assert_allclose(params['latent_scale'], [0.3611] * 3)


def test_pictures_of_a_batch_do_not_mix():
  name = 'flux_like'
  images = pictures(name)
  plain = call(name, 'encode', images)
  changed = call(name, 'encode', images.at[1].add(0.5))
  np.testing.assert_allclose(changed[0], plain[0], atol=1e-6)
  assert np.abs(changed[1] - plain[1]).max() > 1e-3


@pytest.mark.parametrize('name', CONFIGS)
def test_latents_do_not_depend_on_the_canvas(name):
  """Alone, and on a larger canvas beside another image, with noise around."""
  step = CONFIGS[name].downsample
  canvases = pictures(name, 4 * step)
  sizes = [(3 * step, 2 * step), (4 * step, 4 * step)]
  valid = np.zeros(canvases.shape[:3], bool)
  for canvas, (height, width) in zip(valid, sizes, strict=True):
    canvas[:height, :width] = True
  encode = compiled(name, 'encode')
  together = encode(canvases, jnp.asarray(valid))
  for number, (height, width) in enumerate(sizes):
    alone = encode(canvases[number : number + 1, :height, :width])[0]
    np.testing.assert_allclose(
      together[number, : height // step, : width // step], alone, atol=1e-5
    )
  assert np.abs(encode(canvases)[0, :3, :2] - together[0, :3, :2]).max() > 1e-3


def test_folding_puts_rows_before_columns_before_channels():
  x = jnp.arange(32.0).reshape(1, 4, 4, 2)
  folded = lib.space_to_depth(x, 2)
  np.testing.assert_array_equal(
    folded[0],
    [
      [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]],
      [[16, 17, 18, 19, 24, 25, 26, 27], [20, 21, 22, 23, 28, 29, 30, 31]],
    ],
  )


def test_unfolding_is_the_inverse_of_folding():
  deep = jnp.arange(8.0).reshape(1, 1, 2, 4)
  np.testing.assert_array_equal(
    lib.depth_to_space(deep, 2)[0, ..., 0], [[0, 1, 4, 5], [2, 3, 6, 7]]
  )
  x = jnp.arange(72.0).reshape(1, 6, 6, 2)
  for factor in (1, 2, 3):
    folded = lib.space_to_depth(x, factor)
    assert folded.shape == (1, 6 // factor, 6 // factor, 2 * factor**2)
    np.testing.assert_array_equal(lib.depth_to_space(folded, factor), x)
