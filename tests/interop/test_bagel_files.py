"""Reading a directory of BAGEL's files; test_bagel_parity has the numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from synermedgen_jax.interop.bagel_weights import bagel_config, load_params
from synermedgen_jax.models.presets import bagel_7b

TINY = Path(__file__).parents[1] / 'data' / 'bagel_tiny'


@pytest.fixture
def directory(tmp_path):
  for path in TINY.iterdir():
    if path.suffix != '.npz':
      shutil.copy(path, tmp_path)
  return tmp_path


def change(path: Path, **values):
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_shape_is_read_from_the_json_files():
  config = bagel_config(TINY, dtype='float32')
  assert config.dtype == 'float32'
  assert config.latent_stride == 8
  assert config.latent_table == 8
  assert config.llm.head_dim == 16
  assert config.llm.rope_theta == 1e6
  # BAGEL runs all but the last layer of the ViT.
  assert config.vit.layers == 2
  assert config.vit.table == 8
  assert config.autoencoder.ch_mult == (1, 1, 2)


def test_without_a_file_of_its_own_the_autoencoder_is_flux(directory):
  (directory / 'ae_config.json').unlink()
  config = bagel_config(directory)
  assert config.autoencoder == bagel_7b().autoencoder


@pytest.mark.parametrize(
  ('file', 'values'),
  [
    ('llm_config', {'hidden_act': 'gelu'}),
    ('vit_config', {'hidden_act': 'silu'}),
    ('config', {'interpolate_pos': True}),
  ],
)
def test_options_that_the_model_lacks_are_named(directory, file, values):
  change(directory / f'{file}.json', **values)
  (name,) = values
  with pytest.raises(ValueError, match=rf'{file}\.json: {name} = '):
    bagel_config(directory)


def test_parameters_keep_the_dtype_of_their_file(directory):
  path = directory / 'ema.safetensors'
  weights = load_file(path)
  save_file({k: v.astype(np.float16) for k, v in weights.items()}, path)
  params = load_params(directory, bagel_config(directory))
  assert params['lm_head']['kernel'].dtype == np.float16
  assert params['autoencoder']['latent_scale'].dtype == np.float32
  np.testing.assert_allclose(params['autoencoder']['latent_shift'], 0.1159)


def test_keys_that_are_missing_or_unknown_are_named(directory):
  path = directory / 'ema.safetensors'
  weights = load_file(path)
  head = weights.pop('language_model.lm_head.weight')
  weights['lm_tail.weight'] = head
  save_file(weights, path)
  with pytest.raises(ValueError, match=r'lm_head\.weight.*lm_tail\.weight'):
    load_params(directory, bagel_config(directory))


def test_a_shape_that_the_json_files_do_not_say_is_named(directory):
  change(directory / 'llm_config.json', vocab_size=300)
  with pytest.raises(ValueError, match='embed_tokens/embedding has shape'):
    load_params(directory, bagel_config(directory))
