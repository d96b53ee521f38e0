"""The model against BAGEL's reference numbers, in float32.

The tolerances are fixed: a difference above them is a bug.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import bagel_golden as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.inference.answering import decode
from synermedgen_jax.inference.sampling import sample
from synermedgen_jax.models.autoencoder import space_to_depth
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.flow import shift_timestep
from synermedgen_jax.models.interval_attention import interval_mask
from synermedgen_jax.training.objectives import (
  ObjectiveConfig,
  flow_and_text_sums,
  total,
)
from synermedgen_jax.training.token_losses import token_losses

pytestmark = pytest.mark.usefixtures('quick_compiles')


@functools.cache
def row():
  return jax.tree.map(jnp.asarray, golden.training_row())


def reference(name):
  return golden.arrays()[name]


def call(*arguments, method):
  @jax.jit
  def apply(params, arguments):
    return golden.model().apply({'params': params}, *arguments, method=method)

  return apply(golden.params(), arguments)


def both_streams(field, row):
  """A field of all tokens of the row, in packing order."""
  values = np.concatenate(
    [np.asarray(getattr(s, field))[0] for s in (row.und, row.gen)]
  )
  return values[_turn(row)]


def _turn(row):
  return np.argsort(np.concatenate([row.und.order[0], row.gen.order[0]]))


def relative(ours, theirs):
  """The largest difference, as a part of the largest value."""
  return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def test_the_autoencoder_encodes_and_decodes_as_flux():
  pictures = golden.to_picture(reference('vae_encode_image'))
  latents = golden.to_picture(reference('vae_encode_mean_latent'))
  encoded = call(pictures, method=lambda m, x: m.autoencoder.encode(x))
  np.testing.assert_allclose(encoded, latents, rtol=0, atol=1e-4)
  decoded = call(latents, method=lambda m, z: m.autoencoder.decode(z))
  np.testing.assert_allclose(
    decoded,
    golden.to_picture(reference('vae_decode_image')),
    rtol=0,
    atol=1e-4,
  )


def test_the_packer_lays_tokens_out_as_bagel():
  und, gen = row().und.order[0], row().gen.order[0]
  is_text = row().vit_index[0] < 0
  for ours, name in (
    (und[is_text], 'train_packed_text_indexes'),
    (row().token_ids[0][is_text], 'train_packed_text_ids'),
    (und[~is_text], 'train_packed_vit_token_indexes'),
    (row().vit_patches[0], 'train_packed_vit_tokens'),
    (row().vit_positions[0], 'train_packed_vit_position_ids'),
    (gen, 'train_packed_vae_token_indexes'),
    (row().latent_positions[0], 'train_packed_latent_position_ids'),
    (both_streams('positions', row()), 'train_packed_position_ids'),
  ):
    np.testing.assert_array_equal(ours, reference(name), err_msg=name)


def test_the_packer_puts_the_losses_where_bagel_does():
  has_loss = row().ntp_weight[0] > 0
  np.testing.assert_array_equal(
    row().und.order[0][has_loss], reference('train_ce_loss_indexes')
  )
  np.testing.assert_array_equal(
    row().labels[0][has_loss], reference('train_packed_label_ids')
  )
  np.testing.assert_array_equal(
    row().gen.order[0][row().noise_ids[0] > 0],
    reference('train_mse_loss_indexes'),
  )


def test_the_intervals_are_bagels_attention_mask():
  ids = both_streams('example_ids', row())
  mask = interval_mask(
    *(
      jnp.asarray(both_streams(field, row()))[None]
      for field in ('order', 'visible_from', 'visible_to')
    )
  )[0]
  mask = np.asarray(mask)
  assert not mask[ids[:, None] != ids].any()
  for i in range(len(reference('train_sample_lens'))):
    of_example = ids == i + 1
    np.testing.assert_array_equal(
      mask[np.ix_(of_example, of_example)],
      reference(f'train_attention_allowed_{i}'),
    )


def timesteps():
  return jnp.asarray(reference('train_timesteps_sigmoid'))[None]


def test_timesteps_are_the_shifted_sigmoid():
  normal = reference('train_packed_timesteps')
  t = shift_timestep(jax.nn.sigmoid(normal), golden.train_shift())
  np.testing.assert_allclose(t, timesteps()[0], rtol=0, atol=1e-6)
  np.testing.assert_array_equal(timesteps() > 0, row().noise_ids > 0)


@functools.cache
def latents():
  """BAGEL's clean latents; it pads the images of a batch to one size."""
  patch = golden.model().config.latent_patch
  shapes = reference('train_patchified_vae_latent_shapes')
  rows = []
  for grid, (height, width) in zip(
    golden.to_picture(reference('train_padded_latent')), shapes, strict=True
  ):
    own = jnp.asarray(grid[None, : height * patch, : width * patch])
    rows.append(space_to_depth(own, patch).reshape(height * width, -1))
  return jnp.concatenate(rows)[None]


def test_the_latents_of_a_row_are_those_of_each_image_alone():
  ours = call(row(), method=Bagel.row_latents)[0]
  start = 0
  for number in (2, 4):
    alone = call(golden.image(number)[None], method=Bagel.encode_latents)
    alone = alone.reshape(-1, alone.shape[-1])
    stop = start + len(alone)
    np.testing.assert_allclose(ours[start:stop], alone, rtol=0, atol=1e-5)
    start = stop
    if f'alone_{number}' in golden.arrays():
      theirs = reference(f'alone_{number}')
      np.testing.assert_allclose(alone, theirs, rtol=0, atol=1e-5)
  assert start == ours.shape[0]
  if (
    len(np.unique(reference('train_patchified_vae_latent_shapes'), axis=0)) == 1
  ):
    np.testing.assert_allclose(ours, latents()[0], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_images_higher_or_wider_than_others_agree_as_well(tmp_path):
  """Every test of this file, with the images of `golden_shapes.npz`.

  ViT images of 32 x 28, 20 x 32 and 28 x 32 pixels, VAE images of 24 x 16 and
  16 x 24; `alone_2` and `alone_4` are BAGEL's latents of each image alone.
  """
  for path in golden.DIRECTORY.iterdir():
    if path.suffix != '.npz':
      (tmp_path / path.name).symlink_to(path)
  shapes = Path(__file__).parent / 'data' / 'bagel_tiny' / 'golden_shapes.npz'
  (tmp_path / 'golden.npz').symlink_to(shapes)
  done = subprocess.run(
    [sys.executable, '-m', 'pytest', '-m', 'not slow', __file__],
    env={**os.environ, 'BAGEL_GOLDEN_DIR': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout
  assert 'skipped' not in done.stdout


@functools.cache
def hidden():
  t, noise = timesteps()[..., None], reference('train_noise')
  noised = (1 - t) * latents() + t * noise

  def forward(model, batch, noised, t):
    return model.backbone(model.embed_batch(batch, noised, t))[0]

  return call(row(), noised, timesteps(), method=forward)


def test_the_training_forward_gives_bagels_hidden_states():
  ours = np.concatenate([hidden()['und'][0], hidden()['gen'][0]])[_turn(row())]
  assert relative(ours, reference('train_last_hidden_state')) < 1e-4


def test_token_losses_are_bagels():
  has_loss = row().ntp_weight[0] > 0
  losses, _ = token_losses(
    golden.model(),
    golden.params(),
    hidden()['und'],
    row().labels,
    has_loss[None],
  )
  np.testing.assert_allclose(
    losses[0][has_loss], reference('train_ce'), rtol=1e-4
  )
  velocity = call(hidden()['gen'], method=Bagel.velocity)
  error = jnp.square(velocity - (reference('train_noise') - latents()))[0]
  np.testing.assert_allclose(
    error[row().noise_ids[0] > 0].mean(-1),
    reference('train_mse').mean(-1),
    rtol=1e-4,
  )


@functools.cache
def loss_and_gradients():
  """The loss, and its gradients by BAGEL's keys and in BAGEL's layouts."""

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    sums = flow_and_text_sums(
      golden.model(),
      params,
      row(),
      latents(),
      reference('train_noise')[None],
      timesteps(),
      golden.TASKS,
    )
    return total(sums, ObjectiveConfig(), ('ntp', 'flow'))

  value, gradients = loss(golden.params())
  gradients = jax.tree.map(np.asarray, gradients)
  flat = traverse_util.flatten_dict(gradients, sep='/')
  return value, {
    key: entry.to_source(LazyArray.of(flat[entry.ours]))[layer].whole()
    for key, entry, layer in golden.parameter_keys()
  }


def test_the_total_loss_is_bagels():
  value, _ = loss_and_gradients()
  np.testing.assert_allclose(value, reference('train_loss'), rtol=0, atol=1e-5)


def test_every_gradient_has_bagels_norm():
  _, gradients = loss_and_gradients()
  norms = {
    name.removeprefix('gradnorm/'): float(value)
    for name, value in golden.arrays().items()
    if name.startswith('gradnorm/')
  }
  # The position tables do not train; every other parameter has a gradient.
  tables = {'vit_pos_embed.pos_embed', 'latent_pos_embed.pos_embed'}
  assert set(norms) == set(gradients) - tables
  for key, norm in norms.items():
    ours = np.linalg.norm(gradients[key].astype(np.float64))
    if key.endswith('self_attn.k_proj.bias') and key.startswith('vit_model'):
      # A constant added to all keys of a query changes no softmax: this
      # gradient is zero, and both sides hold rounding alone.
      assert max(ours, norm) < 1e-6, key
    else:
      np.testing.assert_allclose(ours, norm, rtol=1e-3, err_msg=key)


def test_stored_gradients_agree_in_every_element():
  _, gradients = loss_and_gradients()
  stored = [n for n in golden.arrays() if n.startswith('grad/')]
  assert stored
  for name in stored:
    key = name.removeprefix('grad/')
    assert relative(gradients[key], reference(name)) < 1e-3, key


def test_greedy_text_with_cached_keys_is_bagels():
  # BAGEL lists <|im_start|>, then the generated tokens.
  expected = reference('generated_token_ids')[:, 0]
  tokenizer = golden.Ids()
  assert expected[0] == tokenizer.im_start
  ids = decode(
    golden.model(),
    golden.params(),
    golden.question_batch(),
    im_start=tokenizer.im_start,
    im_end=tokenizer.im_end,
    max_tokens=len(expected) - 1,
  )
  np.testing.assert_array_equal(ids[0], expected[1:])


@pytest.mark.parametrize('name', golden.SAMPLED)
def test_sampled_latents_are_bagels(name):
  config = SamplingConfig(golden.POINTS, golden.SHIFT, golden.SAMPLED[name])
  latents = sample(
    golden.model(),
    golden.params(),
    golden.prompts(config),
    reference('init_noise')[None],
    config,
  )
  np.testing.assert_allclose(
    latents[0], reference(f'sample_{name}_tokens'), rtol=0, atol=1e-3
  )
