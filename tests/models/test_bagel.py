"""The parts of the model combined: positions of tokens in the two streams."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import BAGEL, COMPUTE, fill

from synermedgen_jax.core.batch import Layout, PackedBatch
from synermedgen_jax.models import bagel
from synermedgen_jax.models.layers import sincos_table

pytestmark = pytest.mark.usefixtures('quick_compiles')

MODEL = bagel.Bagel(BAGEL, COMPUTE)
SIDE = 3 * BAGEL.latent_stride  # pixels of a canvas: 3 x 3 latent tokens


@functools.cache
def params():
  return fill(bagel.abstract_params(BAGEL))


@functools.partial(jax.jit, static_argnames='method')
def apply(weights, arguments, method):
  return MODEL.apply({'params': weights}, *arguments, method=method)


def call(*arguments, method):
  return apply(params(), arguments, method=method)


def layout(count):
  line = jnp.arange(count)[None]
  return Layout(line, line, line * 0, line * 0 + count, line * 0 + 1)


def batch(**fields) -> PackedBatch:
  """Two text tokens around two ViT patches; three latents of two canvases."""
  rng = np.random.default_rng(0)
  plain = {
    'und': layout(4),
    'token_ids': jnp.asarray([[1, 0, 0, 5]]),
    'vit_index': jnp.asarray([[-1, 2, 0, -1]]),
    'labels': jnp.zeros((1, 4), int),
    'ntp_weight': jnp.zeros((1, 4)),
    'task_ids': jnp.zeros((1, 4), int),
    'gen': layout(3),
    'latent_index': jnp.asarray([[9, 4, 17]]),
    'latent_positions': jnp.asarray([[0, 4, 8]]),
    'latent_offsets': jnp.zeros((1, 3), int),
    'noise_ids': jnp.asarray([[0, 0, 1]]),
    'vit_patches': jnp.asarray(rng.standard_normal((1, 3, 4)), jnp.float32),
    'vit_positions': jnp.asarray([[0, 1, 3]]),
    'vit_visible_from': jnp.zeros((1, 3), int),
    'vit_visible_to': jnp.full((1, 3), 3),
    'vae_images': jnp.asarray(
      rng.uniform(-1, 1, (1, 2, SIDE, SIDE, 1)), jnp.float32
    ),
    'image_latents': 9,
  }
  return PackedBatch(**plain | fields)


def test_vit_tokens_are_at_their_indices():
  b = batch()
  vit = call(
    b.vit_patches,
    b.vit_positions,
    b.vit_visible_from,
    b.vit_visible_to,
    method='encode_images',
  )
  latents = jnp.zeros((1, 3, BAGEL.latent_dim))
  und = call(b, latents, jnp.zeros((1, 3)), method='embed_batch')['und'].x[0]
  table = params()['embed_tokens']['embedding']
  expected = np.stack([table[1], vit[0, 2], vit[0, 0], table[5]])
  np.testing.assert_allclose(und, expected, atol=1e-5)


def test_latents_are_taken_from_their_canvas_row_and_column():
  b = batch()
  rows = call(b, method='row_latents')
  grids = call(b.vae_images[0], method='encode_latents')
  assert grids.shape == (2, 3, 3, BAGEL.latent_dim)
  expected = np.stack([grids[1, 0, 0], grids[0, 1, 1], grids[1, 2, 2]])
  np.testing.assert_allclose(rows[0], expected, atol=1e-5)


def test_latents_of_a_smaller_image_do_not_depend_on_its_canvas():
  """The first image has 2 x 1 latents, the second fills its canvas."""
  index = [0, 3, *range(9, 18), 0]
  count = len(index)
  real = jnp.asarray([[1] * (count - 1) + [0]])
  b = batch(
    gen=dataclasses.replace(layout(count), example_ids=real),
    latent_index=jnp.asarray([index]),
    latent_positions=real * 0,
    latent_offsets=real * 0,
    noise_ids=real * 0,
    image_latents=0,
  )
  rows = call(b, method='row_latents')[0]
  stride = BAGEL.latent_stride
  small = b.vae_images[0, :1, : 2 * stride, :stride]
  alone = call(small, method='encode_latents').reshape(2, -1)
  np.testing.assert_allclose(rows[:2], alone, atol=1e-5)
  whole = call(b.vae_images[0, 1:], method='encode_latents').reshape(9, -1)
  np.testing.assert_allclose(rows[2:11], whole, atol=1e-5)
  assert np.isfinite(rows).all()
  plain = call(b.replace(image_latents=9), method='row_latents')[0]
  assert np.abs(plain[:2] - alone).max() > 1e-3


def test_latents_of_a_canvas_without_an_image_are_finite():
  b = batch(
    gen=dataclasses.replace(layout(3), example_ids=jnp.zeros((1, 3), int)),
    image_latents=0,
  )
  assert np.isfinite(call(b, method='row_latents')).all()


def test_a_latent_token_is_its_value_its_time_and_its_place():
  b = batch()
  latents = jax.random.normal(jax.random.key(0), (1, 3, BAGEL.latent_dim))
  t = jnp.asarray([[0.0, 0.0, 0.7]])
  gen = call(b, latents, t, method='embed_batch')['gen'].x
  p = params()
  value = latents @ p['vae2llm']['kernel'] + p['vae2llm']['bias']
  place = p['latent_pos_embed'][jnp.asarray([[0, 4, 8]])]
  time = gen - value - place
  # Equal times give equal vectors, other times others.
  np.testing.assert_allclose(time[0, 0], time[0, 1], atol=1e-5)
  assert np.abs(time[0, 2] - time[0, 0]).max() > 1e-2


def test_a_batch_without_latents_has_no_gen_stream():
  none = jnp.zeros((1, 0), int)
  b = batch(
    gen=Layout(*[none] * 5),
    latent_index=none,
    latent_positions=none,
    latent_offsets=none,
    noise_ids=none,
  )
  assert set(call(b, method='embed_batch')) == {'und'}


def test_latents_unfold_into_the_picture_they_were_folded_from():
  b = batch()
  tokens = call(b.vae_images[0], method='encode_latents')
  decoded = call(tokens, method='decode_latents')
  autoencoder = bagel.Autoencoder(BAGEL.autoencoder, jnp.float32)
  expected = jax.jit(autoencoder.apply)(
    {'params': params()['autoencoder']}, b.vae_images[0]
  )
  np.testing.assert_allclose(decoded, expected, atol=1e-4)


def test_a_fresh_model_has_sincos_tables_and_predicts_no_velocity():
  @jax.jit  # computes these leaves alone
  def fresh(key):
    p = nn.unbox(bagel.init_params(BAGEL, key))
    return p['vit_pos_embed'], p['latent_pos_embed'], p['llm2vae']['kernel']

  vit, latent, llm2vae = fresh(jax.random.key(0))
  table = sincos_table(3, 8)
  np.testing.assert_allclose(vit, table, atol=1e-6)
  np.testing.assert_allclose(latent, table, atol=1e-6)
  assert not llm2vae.any()
