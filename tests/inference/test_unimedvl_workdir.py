"""UniMedVL's files to a workdir, with the tiny model in their arrangement."""

import json

import bagel_files
import commands
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.inference.bagel_workdir import import_bagel
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.interop.bagel_configs import BagelError, bagel_config
from synermedgen_jax.interop.bagel_weights import match
from synermedgen_jax.interop.layouts import UNIMEDVL

FLOAT32 = jnp.dtype('float32')
WEIGHTS = 'ema.safetensors'
COPY = 'vae_model.encoder.conv_in.bias'


@pytest.fixture
def source(tmp_path):
  return bagel_files.as_unimedvl(bagel_files.copy(tmp_path / 'source'))


def params_of(source, output):
  import_bagel(source, output, FLOAT32, layout=UNIMEDVL)
  _, params = saved_model.load_model(output / 'checkpoints')
  return traverse_util.flatten_dict(params, sep='/')


def edit(source, name, change):
  bagel_files.edit_weights(source / name, change)


def refusal(source, output):
  with pytest.raises(BagelError) as error:
    import_bagel(source, output, FLOAT32, layout=UNIMEDVL)
  assert '\n' not in str(error.value)
  assert not output.exists()
  return str(error.value)


def test_the_layout_gives_the_values_of_the_missing_config(source):
  model = bagel_config(source, UNIMEDVL)
  assert (model.latent_patch, model.latent_table, model.vit_table) == (
    2,
    64,
    70,
  )
  vit = json.loads((source / 'vit_config.json').read_text())
  assert model.vit.layers == vit['num_hidden_layers'] - 1
  with pytest.raises(BagelError, match=r'has no config\.json'):
    bagel_config(source)


def test_a_config_with_unknown_options_is_not_read(source):
  (source / 'config.json').write_text('{"visual_gen": "custom", "x"')
  assert bagel_config(source, UNIMEDVL).latent_table == 64


def test_copies_of_the_autoencoder_are_accepted_and_not_stored(
  source, tmp_path
):
  with_copies = params_of(source, tmp_path / 'with')

  def drop(weights):
    for key in [key for key in weights if key.startswith('vae_model.')]:
      del weights[key]

  edit(source, WEIGHTS, drop)
  without = params_of(source, tmp_path / 'without')
  assert with_copies.keys() == without.keys()
  for name, value in without.items():
    np.testing.assert_array_equal(with_copies[name], value)


@pytest.mark.parametrize('name', UNIMEDVL.weights[1:])
def test_the_weights_may_have_another_name(source, tmp_path, name):
  expected = params_of(source, tmp_path / 'ema')
  (source / WEIGHTS).rename(source / name)
  found = params_of(source, tmp_path / 'other')
  np.testing.assert_array_equal(
    found['lm_head/kernel'], expected['lm_head/kernel']
  )
  edit(source, name, lambda weights: weights.pop('llm2vae.bias'))
  assert f'{name} lacks llm2vae.bias' in refusal(source, tmp_path / 'output')


def test_averaged_weights_come_before_others(source, tmp_path):
  other = load_file(source / WEIGHTS)
  other['lm_head.weight'] = np.zeros(1, np.float32)
  save_file(other, source / 'model.safetensors')
  params_of(source, tmp_path / 'output')  # reads no model.safetensors


@pytest.mark.parametrize('index', UNIMEDVL.indices)
def test_the_weights_may_be_shards(source, tmp_path, index):
  bagel_files.shard(source, index)
  assert 'lm_head/kernel' in params_of(source, tmp_path / 'output')


def test_a_copy_in_bfloat16_equals_the_rounded_autoencoder(source, tmp_path):
  weights = load_file(source / WEIGHTS)
  rounded = {k: v.astype(jnp.bfloat16) for k, v in weights.items()}
  assert any((rounded[k] != weights[k]).any() for k in weights if 'vae' in k)
  save_file(rounded, source / 'ema_bf16.safetensors')
  (source / WEIGHTS).unlink()
  assert 'lm_head/kernel' in params_of(source, tmp_path / 'output')


def nudge(weights):
  weights[COPY] = weights[COPY] + np.float32(1e-3)


def cut(weights):
  weights[COPY] = weights[COPY][:-1]


def invent(weights):
  weights['vae_model.encoder.new'] = np.zeros(2, np.float32)


def normalise(weights):
  weights['vae_batch_norm.running_mean'] = np.zeros(4, np.float32)
  weights['vae_batch_norm.num_batches_tracked'] = np.zeros((), np.int64)


def use_integers(weights):
  weights['llm2vae.bias'] = weights['llm2vae.bias'].astype(np.int64)


WRONG = {
  nudge: f'ema.safetensors has {COPY}, which differ from ae.safetensors',
  cut: f'ema.safetensors has {COPY}, which differ from ae.safetensors',
  invent: 'ema.safetensors has vae_model.encoder.new, which ae.safetensors '
  'lacks',
  normalise: 'ema.safetensors has vae_batch_norm.num_batches_tracked, '
  'vae_batch_norm.running_mean, and vae_batch_norm, of a model trained with '
  'enable_e2e_vae, is not supported',
  use_integers: 'llm2vae.bias has dtype int64',
}


@pytest.mark.parametrize('change', WRONG, ids=lambda change: change.__name__)
def test_keys_that_do_not_fit_are_refused_with_the_reason(
  source, tmp_path, change
):
  edit(source, WEIGHTS, change)
  assert WRONG[change] in refusal(source, tmp_path / 'output')


def test_all_keys_that_do_not_fit_are_listed(source, tmp_path):
  for change in (nudge, invent, normalise):
    edit(source, WEIGHTS, change)
  edit(source, WEIGHTS, lambda weights: weights.pop('vae2llm.bias'))
  edit(source, WEIGHTS, lambda w: w.update(tail=np.zeros(1, np.float32)))
  message = refusal(source, tmp_path / 'output')
  for change in (nudge, invent, normalise):
    assert WRONG[change] in message
  assert 'ema.safetensors lacks vae2llm.bias' in message
  assert 'ema.safetensors has unknown tail' in message


def test_a_position_table_of_another_side_names_the_layout(source, tmp_path):
  def shrink(weights):
    key = 'latent_pos_embed.pos_embed'
    weights[key] = weights[key][: 32**2]

  edit(source, WEIGHTS, shrink)
  assert (
    'latent_pos_embed.pos_embed has shape (1024, 64); expected (4096, 64) from '
    'max_latent_size of the layout unimedvl'
  ) in refusal(source, tmp_path / 'output')


def test_headers_alone_are_compared_by_shape(source):
  """A file that ends after its header has no values to compare."""
  model = bagel_config(source, UNIMEDVL)
  edit(source, WEIGHTS, nudge)
  match(source, model, UNIMEDVL, header_only=True)
  edit(source, WEIGHTS, cut)
  with pytest.raises(BagelError, match='which differ from ae'):
    match(source, model, UNIMEDVL, header_only=True)


def test_bagels_layout_refuses_a_copy_as_unknown(source, tmp_path):
  (source / 'config.json').write_text(
    (bagel_files.TINY / 'config.json').read_text()
  )
  with pytest.raises(BagelError, match='has unknown vae_model'):
    import_bagel(source, tmp_path / 'output', FLOAT32)


def test_the_workdir_samples_as_unimedvl(tmp_path):
  source = bagel_files.with_tokenizer(tmp_path / 'source')
  bagel_files.as_unimedvl(source)
  output = tmp_path / 'run'
  code, out, err = commands.run(
    'import_bagel',
    '--layout=unimedvl',
    f'--source={source}',
    f'--output={output}',
    '--dtype=float32',
  )
  assert code == 0, err
  assert out.splitlines()[-1] == str(output)
  trained = Trained.load(output)
  sampling = trained.sampling
  assert (sampling.points, sampling.shift) == (50, 3.0)
  guidance = sampling.guidance
  assert (guidance.text, guidance.image) == (4.0, 2.0)
  assert guidance.interval == (0.0, 1.0)
  assert guidance.renorm == 'text_channel'
  assert sampling.describe_tokens == 800
  # The canvas of a store by default; the tiny ViT's table ends at 8 patches.
  assert trained.geometry.vae_size == (256, 256)
  assert trained.geometry.vit_size == (32, 32)


def test_a_dry_run_lists_the_keys(source):
  code, out, err = commands.run(
    'import_bagel', '--layout=unimedvl', f'--source={source}', '--dry_run'
  )
  assert code == 0, err
  assert 'latent_pos_embed.pos_embed' in out
  assert 'vae_model' not in out
