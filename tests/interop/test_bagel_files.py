"""Reading a folder of BAGEL's files; test_bagel_parity has the numbers."""

import dataclasses
import json

import bagel_files
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from synermedgen_jax.interop.bagel_configs import (
  BagelError,
  bagel_config,
  config_files,
)
from synermedgen_jax.interop.bagel_weights import (
  load_params,
  match,
  param_shapes,
)
from synermedgen_jax.interop.key_table import autoencoder_table, bagel_table
from synermedgen_jax.models.presets import bagel_7b, tiny


@pytest.fixture
def source(tmp_path):
  return bagel_files.copy(tmp_path / 'source')


def test_the_shape_is_read_from_the_json_files():
  config = bagel_config(bagel_files.TINY)
  assert config.latent_stride == 8
  assert config.latent_table == 8
  assert config.llm.head_dim == 16
  assert config.llm.rope_theta == 1e6
  # BAGEL runs all but the last layer of the ViT.
  assert config.vit.layers == 2
  assert config.vit.table == 8
  assert config.autoencoder.ch_mult == (1, 1, 2)


def test_without_a_file_of_its_own_the_autoencoder_is_flux(source):
  (source / 'ae_config.json').unlink()
  bagel_files.change(source / 'config.json', vae_config={'downsample': 8})
  assert bagel_config(source).autoencoder == bagel_7b().autoencoder


def test_the_preset_of_bagels_size_is_what_its_files_say(tmp_path):
  files = {
    'llm_config': {
      'hidden_size': 3584,
      'intermediate_size': 18944,
      'num_attention_heads': 28,
      'num_hidden_layers': 28,
      'num_key_value_heads': 4,
      'rms_norm_eps': 1e-06,
      'rope_theta': 1000000.0,
      'vocab_size': 152064,
    },
    'vit_config': {
      'hidden_size': 1152,
      'image_size': 980,
      'intermediate_size': 4304,
      'num_attention_heads': 16,
      'num_hidden_layers': 27,
      'patch_size': 14,
    },
    'config': {},
  }
  for name, options in files.items():
    (tmp_path / f'{name}.json').write_text(json.dumps(options))
  assert bagel_config(tmp_path) == bagel_7b()


@pytest.mark.parametrize(
  ('file', 'values'),
  [
    ('llm_config', {'hidden_act': 'gelu'}),
    ('vit_config', {'hidden_act': 'silu'}),
    ('config', {'interpolate_pos': True}),
    ('config', {'visual_gen': False}),
  ],
)
def test_options_that_the_model_lacks_are_named(source, file, values):
  bagel_files.change(source / f'{file}.json', **values)
  (name,) = values
  with pytest.raises(BagelError, match=rf'{file}\.json: {name} = '):
    bagel_config(source)


def test_an_option_that_is_missing_is_named(source):
  path = source / 'llm_config.json'
  options = json.loads(path.read_text())
  del options['vocab_size']
  path.write_text(json.dumps(options))
  with pytest.raises(BagelError, match=r'llm_config\.json: has no vocab_size'):
    bagel_config(source)


def test_a_file_that_is_missing_or_no_json_is_named(source):
  (source / 'vit_config.json').write_text('{')
  with pytest.raises(BagelError, match=r'vit_config\.json: is not a JSON'):
    bagel_config(source)
  (source / 'vit_config.json').unlink()
  with pytest.raises(BagelError, match=r': has no vit_config\.json'):
    bagel_config(source)


def test_the_configs_may_not_contradict_each_other(source):
  vae = {'downsample': 16, 'z_channels': 4}
  bagel_files.change(source / 'config.json', vae_config=vae)
  with pytest.raises(BagelError, match=r'downsample = 16 .* only 4'):
    bagel_config(source)


@pytest.mark.parametrize('model', [bagel_7b(), bagel_config(bagel_files.TINY)])
def test_configs_that_are_written_read_back_the_same(tmp_path, model):
  for name, options in config_files(model).items():
    (tmp_path / f'{name}.json').write_text(json.dumps(options))
  assert bagel_config(tmp_path) == model


def test_a_model_with_parts_that_bagel_lacks_is_refused():
  with pytest.raises(BagelError) as error:
    config_files(tiny())
  message = str(error.value)
  assert 'connector_norm = True (BAGEL: False)' in message
  assert 'autoencoder.space_to_depth = 4' in message
  assert '\n' not in message


def test_parameters_keep_the_dtype_of_their_file(source):
  path = source / 'ema.safetensors'
  weights = load_file(path)
  save_file({k: v.astype(np.float16) for k, v in weights.items()}, path)
  params = load_params(source, bagel_config(source))
  assert params['lm_head']['kernel'].dtype == np.float16
  assert params['autoencoder']['latent_scale'].dtype == np.float32
  np.testing.assert_allclose(params['autoencoder']['latent_shift'], 0.1159)


def test_matrices_are_turned_and_layers_stacked(source):
  weights = load_file(source / 'ema.safetensors')
  params = load_params(source, bagel_config(source))
  key = 'language_model.model.layers.1.mlp_moe_gen.down_proj.weight'
  ours = params['mot']['layers']['gen']['mlp']['down_proj']['kernel']
  np.testing.assert_array_equal(ours[1], weights[key].T)
  convolution = load_file(source / 'ae.safetensors')['encoder.conv_in.weight']
  np.testing.assert_array_equal(
    params['autoencoder']['encoder']['conv_in']['kernel'],
    np.moveaxis(convolution, (0, 1), (3, 2)),
  )


def test_every_piece_of_a_parameter_is_that_piece_of_the_whole(source):
  for entry, tensors in match(source, bagel_config(source)):
    array = entry.to_ours(tensors, jnp.dtype('bfloat16'))
    index = tuple(slice(n // 3, max(n // 3 + 1, n - 1)) for n in array.shape)
    np.testing.assert_array_equal(array.read(index), array.whole()[index])


@pytest.mark.parametrize('model', [bagel_7b(), bagel_config(bagel_files.TINY)])
def test_the_table_names_every_key_and_every_parameter_once(model):
  rows = bagel_table(model) + autoencoder_table(model)
  keys = [key for row in rows for key in row.keys]
  assert len(set(keys)) == len(keys)
  ours = {row.ours for row in rows}
  assert len(ours) == len(rows)
  shapes = param_shapes(model)
  assert ours == set(shapes) - {
    'autoencoder/latent_scale',
    'autoencoder/latent_shift',
  }
  for row in rows:
    assert row.layers in (0, shapes[row.ours][0])


def test_a_model_that_the_table_does_not_fill_is_refused(source):
  config = dataclasses.replace(bagel_config(source), connector_norm=True)
  with pytest.raises(BagelError, match='no such model: connector/norm/scale'):
    match(source, config)
