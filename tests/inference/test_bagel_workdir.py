"""BAGEL's files to a workdir and back, and damaged files."""

import json
import shutil

import bagel_files
import commands
import jax
import jax.numpy as jnp
import nano
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file
from tokenizers import pre_tokenizers

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.checkpoint import streaming
from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.core import lazy_array, trees
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.inference.bagel_workdir import export_bagel, import_bagel
from synermedgen_jax.inference.workdir import Trained, WorkdirError
from synermedgen_jax.input import tokenizer
from synermedgen_jax.interop import bagel_weights
from synermedgen_jax.interop.bagel_configs import BagelError, bagel_config
from synermedgen_jax.interop.bagel_weights import load_params
from synermedgen_jax.interop.tensor_files import TensorFileError
from synermedgen_jax.models.shape_json import model_to_json

FLOAT32, BFLOAT16 = jnp.dtype('float32'), jnp.dtype('bfloat16')
FILES = ('ema.safetensors', 'ae.safetensors')


@pytest.fixture
def source(tmp_path):
  return bagel_files.copy(tmp_path / 'source')


@pytest.fixture
def output(tmp_path):
  return tmp_path / 'output'


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
  """A workdir with the tiny model in float32; not to be changed."""
  workdir = tmp_path_factory.mktemp('imported') / 'workdir'
  import_bagel(bagel_files.TINY, workdir, FLOAT32)
  return workdir


def flat(tree):
  return traverse_util.flatten_dict(tree, sep='/')


def assert_same(ours, theirs):
  """The same arrays to the bit, by name."""
  assert set(ours) == set(theirs)
  for name, array in theirs.items():
    assert ours[name].dtype == array.dtype, name
    assert ours[name].shape == array.shape, name
    assert np.asarray(ours[name]).tobytes() == np.asarray(array).tobytes(), name


def test_the_checkpoint_holds_what_the_files_hold(imported):
  model, params = saved_model.load_model(imported / 'checkpoints')
  assert model == bagel_config(bagel_files.TINY)
  assert_same(flat(params), flat(load_params(bagel_files.TINY, model)))


def test_import_casts_the_weights(source, output):
  import_bagel(source, output, BFLOAT16)
  model, params = saved_model.load_model(output / 'checkpoints')
  exact = load_params(source, model)
  np.testing.assert_array_equal(
    params['lm_head']['kernel'], exact['lm_head']['kernel'].astype(BFLOAT16)
  )


@pytest.mark.parametrize('dtype', [FLOAT32, BFLOAT16])
def test_import_export_import_is_exact(
  source, tmp_path, output, dtype, monkeypatch
):
  # Small enough that layers and matrices fall apart into many blocks.
  monkeypatch.setattr(lazy_array, 'BLOCK_BYTES', 4096)
  for name in FILES:
    weights = load_file(source / name)
    save_file({k: v.astype(dtype) for k, v in weights.items()}, source / name)
  import_bagel(source, tmp_path / 'first', dtype)
  export_bagel(tmp_path / 'first', output)
  for name in FILES:
    assert_same(load_file(output / name), load_file(source / name))
  import_bagel(output, tmp_path / 'second', dtype)
  first, second = (
    saved_model.load_model(tmp_path / name / 'checkpoints')
    for name in ('first', 'second')
  )
  assert first[0] == second[0]
  assert_same(flat(second[1]), flat(first[1]))


def test_export_casts_the_weights(imported, output):
  export_bagel(imported, output, BFLOAT16)
  weights = load_file(output / 'ae.safetensors')
  exact = load_file(bagel_files.TINY / 'ae.safetensors')
  assert_same(weights, {k: v.astype(BFLOAT16) for k, v in exact.items()})


@pytest.mark.parametrize(
  'index', ['ema.safetensors.index.json', 'model.safetensors.index.json']
)
def test_shards_hold_what_the_one_file_holds(source, index):
  config = bagel_config(source)
  whole = flat(load_params(source, config))
  bagel_files.shard(source, index)
  assert_same(flat(load_params(source, config)), whole)


def test_no_block_is_larger_than_the_limit(monkeypatch):
  monkeypatch.setattr(lazy_array, 'BLOCK_BYTES', 4096)
  config = bagel_config(bagel_files.TINY)
  params = bagel_weights.parameters(
    bagel_weights.match(bagel_files.TINY, config), config
  )
  array = params['mot/layers/und/mlp/up_proj/kernel']
  assert array.shape == (2, 64, 96)
  assert array.block == (1, 64, 12)
  assert params['embed_tokens/embedding'].block == (16, 64)
  for index in array.blocks():
    assert array.read(index).nbytes <= 4096


def drop(key):
  return lambda weights: weights.pop(key)


def add(key):
  return lambda weights: weights.update({key: np.zeros(1, np.float32)})


def reshape(key, *shape):
  return lambda weights: weights.update({key: np.resize(weights[key], shape)})


def spoil_weights(name, *edits):
  def spoil(source):
    for edit in edits:
      bagel_files.edit_weights(source / name, edit)

  return spoil


def spoil_options(name, **values):
  return lambda source: bagel_files.change(source / name, **values)


def truncate(name):
  def spoil(source):
    path = source / name
    path.write_bytes(path.read_bytes()[:-100])

  return spoil


WRONG = {
  'missing keys': (
    spoil_weights(
      'ema.safetensors', drop('vae2llm.bias'), drop('connector.fc1.weight')
    ),
    r'ema\.safetensors lacks connector\.fc1\.weight, vae2llm\.bias',
  ),
  'unknown keys': (
    spoil_weights('ae.safetensors', add('encoder.z'), add('decoder.y')),
    r'ae\.safetensors has unknown decoder\.y, encoder\.z',
  ),
  'missing and unknown keys': (
    spoil_weights('ema.safetensors', drop('llm2vae.bias'), add('lm_tail')),
    r'has unknown lm_tail; ema\.safetensors lacks llm2vae\.bias',
  ),
  'a wrong shape': (
    spoil_weights('ema.safetensors', reshape('connector.fc1.bias', 63)),
    r'connector\.fc1\.bias has shape \(63,\); expected \(64,\) from the JSON',
  ),
  'a matrix laid the other way': (
    spoil_weights(
      'ema.safetensors',
      reshape('language_model.model.layers.1.mlp.up_proj.weight', 64, 96),
    ),
    r'layers\.1\.mlp\.up_proj\.weight has shape \(64, 96\); .* \(96, 64\)',
  ),
  'a cut file': (truncate('ema.safetensors'), r'ema\.safetensors: has \d+'),
  'another cut file': (truncate('ae.safetensors'), r'ae\.safetensors: has \d+'),
  'a wider model by the configs': (
    spoil_options('llm_config.json', intermediate_size=97),
    r'mlp\.down_proj\.weight has shape \(64, 96\); .* \(64, 97\)',
  ),
  'a deeper model by the configs': (
    spoil_options('llm_config.json', num_hidden_layers=3),
    r'lacks language_model\.model\.layers\.2\.',
  ),
  'a shallower autoencoder by the configs': (
    spoil_options('ae_config.json', num_res_blocks=0),
    r'has unknown decoder\.up\.0\.block\.1',
  ),
  'another latent position table': (
    spoil_options('config.json', max_latent_size=7),
    r'latent_pos_embed\.pos_embed has shape \(64, 64\); expected \(49, 64\) '
    r'from max_latent_size of config\.json',
  ),
  'another ViT position table': (
    spoil_options('config.json', vit_max_num_patch_per_side=9),
    r'vit_pos_embed\.pos_embed has shape \(64, 64\); expected \(81, 64\) '
    r'from vit_max_num_patch_per_side of config\.json',
  ),
}


@pytest.mark.parametrize('what', WRONG)
def test_wrong_files_are_named_and_nothing_is_left(source, output, what):
  spoil, message = WRONG[what]
  spoil(source)
  with pytest.raises((BagelError, TensorFileError), match=message) as error:
    import_bagel(source, output, BFLOAT16)
  assert '\n' not in str(error.value)
  assert not output.exists()


def test_what_is_at_the_output_stays(imported, output):
  output.mkdir()
  (output / 'notes.txt').write_text('mine')
  for move in (
    lambda: import_bagel(bagel_files.TINY, output, FLOAT32),
    lambda: export_bagel(imported, output),
  ):
    with pytest.raises(WorkdirError, match='already exists'):
      move()
  assert [path.name for path in output.iterdir()] == ['notes.txt']


def _lose_the_disk(monkeypatch):
  """One of the parameters cannot be read."""
  whole = bagel_weights.parameters

  def parameters(*args):
    def fail(index):
      raise OSError('the disk is gone')

    return whole(*args) | {
      'lm_head/kernel': LazyArray((64, 256), FLOAT32, (64, 256), fail)
    }

  monkeypatch.setattr(bagel_weights, 'parameters', parameters)


def test_an_error_halfway_leaves_nothing(source, output, monkeypatch):
  _lose_the_disk(monkeypatch)
  with pytest.raises(OSError, match='the disk is gone'):
    import_bagel(source, output, FLOAT32)
  assert not output.exists()


def test_a_crash_leaves_no_complete_checkpoint(source, output, monkeypatch):
  _lose_the_disk(monkeypatch)
  monkeypatch.setattr(shutil, 'rmtree', lambda *_, **__: None)
  with pytest.raises(OSError, match='the disk is gone'):
    import_bagel(source, output, FLOAT32)
  assert any((output / 'checkpoints').iterdir())
  for read in (saved_model.load_model, streaming.open_model):
    with pytest.raises(ckpt.CheckpointError, match='no complete checkpoint'):
      read(output / 'checkpoints')


def test_inference_reads_an_imported_workdir(tmp_path, output):
  source = bagel_files.with_tokenizer(tmp_path / 'source')
  import_bagel(source, output, FLOAT32)
  trained = Trained.load(output)
  assert trained.tokenizer.encode('a CT') == (
    tokenizer.project_tokenizer().encode('a CT')
  )
  # As far as the tiny model's position tables reach.
  assert trained.geometry.vit_size == (32, 32)
  assert trained.geometry.vae_size == (64, 64)
  sampling = trained.synthesiser().sampling
  assert (sampling.points, sampling.shift) == (50, 3.0)
  assert sampling.guidance.renorm == 'text_channel'


def test_an_imported_tokenizer_may_be_in_two_files(source, tmp_path, output):
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {char: i for i, char in enumerate(alphabet)}
  (source / 'vocab.json').write_text(json.dumps(vocab))
  (source / 'merges.txt').write_text('#version: 0.2\n')
  import_bagel(source, tmp_path / 'workdir', FLOAT32)
  shutil.rmtree(source)
  trained = Trained.load(tmp_path / 'workdir')
  assert trained.tokenizer.encode('ab') == [vocab['a'], vocab['b']]
  export_bagel(tmp_path / 'workdir', output)
  assert json.loads((output / 'vocab.json').read_text()) == vocab


def test_export_takes_the_tokenizer_along(source, tmp_path, output):
  for name in ('tokenizer.json', 'vocab.json', 'merges.txt'):
    (source / name).write_text(name)
  import_bagel(source, tmp_path / 'workdir', FLOAT32)
  export_bagel(tmp_path / 'workdir', output)
  for name in ('tokenizer.json', 'vocab.json', 'merges.txt'):
    assert (output / name).read_text() == name


def test_a_missing_tokenizer_is_named(imported):
  with pytest.raises(WorkdirError) as error:
    Trained.load(imported)
  assert str(error.value) == (
    f'{imported}: has no tokenizer; put its tokenizer.json into '
    f'{imported}/tokenizer.'
  )


@pytest.mark.usefixtures('quick_compiles')
def test_a_run_starts_from_an_imported_model(tmp_path, store_path):
  source = bagel_files.with_tokenizer(tmp_path / 'source')
  import_bagel(source, tmp_path / 'bagel', FLOAT32)
  config = nano.config('stage1', store_path, model='init_from')
  config.init_from = str(tmp_path / 'bagel')
  config.tokenizer = ''
  config.capacity = {'und': 256, 'gen': 0, 'vit': 96, 'images': 0}
  config.val_every = 0
  nano.train(config, tmp_path / 'stage1')
  before, after = (
    flat(saved_model.load_model(tmp_path / name / 'checkpoints')[1])
    for name in ('bagel', 'stage1')
  )
  frozen = 'mot/layers/gen/q_proj/kernel'
  np.testing.assert_array_equal(after[frozen], before[frozen])
  trained = 'mot/layers/und/q_proj/kernel'
  moved = np.abs(after[trained] - before[trained]).max()
  assert 0 < moved < 0.1


def test_a_run_does_not_take_another_tokenizer(source, store_path, tmp_path):
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {char: i for i, char in enumerate(alphabet)}
  (source / 'vocab.json').write_text(json.dumps(vocab))
  (source / 'merges.txt').write_text('#version: 0.2\n')
  import_bagel(source, tmp_path / 'bagel', FLOAT32)
  config = nano.config('stage1', store_path, model='init_from')
  config.init_from = str(tmp_path / 'bagel')
  with pytest.raises(
    ConfigError, match=r"tokenizer 'project' has other ids than .*/bagel: leave"
  ):
    nano.train(config, tmp_path / 'stage1')


def test_a_run_from_weights_without_a_tokenizer_is_refused(
  imported, store_path, tmp_path
):
  config = nano.config('stage1', store_path, model='init_from', tokenizer='')
  config.init_from = str(imported)
  with pytest.raises(
    ConfigError,
    match=rf'tokenizer is empty and config\.init_from {imported} holds none: ',
  ):
    nano.train(config, tmp_path / 'stage1')


def test_the_model_init_from_needs_one(store_path, tmp_path):
  config = nano.config('stage1', store_path, model='init_from')
  with pytest.raises(ConfigError, match=r'needs config\.init_from'):
    nano.train(config, tmp_path / 'stage1')


def _save(workdir, model, params, ema=None):
  """A checkpoint as the training loop writes it."""
  workdir.mkdir()
  record = {'config': {'tokenizer': 'project'}}
  (workdir / 'config.json').write_text(json.dumps(record))
  checkpoints = ckpt.manager(workdir / 'checkpoints')
  items = {
    'params': ocp.args.StandardSave(params),
    'model': ocp.args.JsonSave(model_to_json(model)),
  }
  if ema:
    items['ema'] = ocp.args.StandardSave(ema)
  checkpoints.save(7, args=ocp.args.Composite(**items))
  checkpoints.wait_until_finished()
  checkpoints.close()


def test_a_model_with_parts_that_bagel_lacks_is_not_exported(tmp_path, output):
  shapes = bagel_weights.param_shapes(nano.MODEL)
  params = {name: np.zeros(shape) for name, shape in shapes.items()}
  _save(tmp_path / 'run', nano.MODEL, trees.unflatten(params))
  with pytest.raises(BagelError, match='connector_norm = True'):
    export_bagel(tmp_path / 'run', output)
  assert not output.exists()


def test_a_damaged_checkpoint_is_named(source, tmp_path, output):
  import_bagel(source, tmp_path / 'run', FLOAT32)
  data = tmp_path / 'run' / 'checkpoints' / '0' / 'params'
  for path in (data / 'ocdbt.process_0' / 'd').iterdir():
    path.write_bytes(b'')
  with pytest.raises(ckpt.CheckpointError, match='cannot be read') as error:
    export_bagel(tmp_path / 'run', output)
  assert '\n' not in str(error.value)
  assert not output.exists()


def test_latents_scaled_channel_by_channel_are_not_exported(tmp_path, output):
  model = bagel_config(bagel_files.TINY)
  params = load_params(bagel_files.TINY, model)
  params['autoencoder']['latent_shift'][1] = 0.2
  _save(tmp_path / 'run', model, params)
  with pytest.raises(BagelError, match=r'latent_shift is not shift_factor'):
    export_bagel(tmp_path / 'run', output)
  assert not output.exists()


@pytest.mark.parametrize('dtype', [jnp.float16, BFLOAT16])
def test_latents_whose_scale_a_weights_folder_rounded_are_exported(dtype):
  model = bagel_config(bagel_files.TINY)
  params = flat(load_params(bagel_files.TINY, model))
  for name in ('autoencoder/latent_scale', 'autoencoder/latent_shift'):
    rounded = params[name].astype(dtype).astype(np.float32)
    assert (rounded != params[name]).all()
    params[name] = rounded
  lazy = {name: LazyArray.of(value) for name, value in params.items()}
  written = bagel_weights.source_tensors(model, lazy)
  assert written.keys() == {'ema.safetensors', 'ae.safetensors'}


def test_export_takes_the_average_where_a_run_kept_one(tmp_path, output):
  model = bagel_config(bagel_files.TINY)
  params = load_params(bagel_files.TINY, model)
  # Training rounds what it froze.
  for name in ('latent_scale', 'latent_shift'):
    params['autoencoder'][name] = params['autoencoder'][name].astype(BFLOAT16)
  average = {'lm_head': {'kernel': params['lm_head']['kernel'] + 1}}
  params = jax.tree.map(jnp.asarray, params)
  _save(tmp_path / 'run', model, params, ema=average)
  export_bagel(tmp_path / 'run', output)
  expected = load_file(bagel_files.TINY / 'ema.safetensors')
  expected['language_model.lm_head.weight'] += 1
  assert_same(load_file(output / 'ema.safetensors'), expected)
  assert (output / 'tokenizer.json').is_file()


def test_the_dry_run_reads_headers_alone(source):
  for name in FILES:
    path = source / name
    length = int.from_bytes(path.read_bytes()[:8], 'little')
    path.write_bytes(path.read_bytes()[: 8 + length])
  code, out, err = commands.run(
    'import_bagel', f'--source={source}', '--dry_run'
  )
  assert code == 0, err
  rows = [line.split() for line in out.splitlines()]
  row = next(row for row in rows if row[0] == 'language_model.lm_head.weight')
  assert ' '.join(row[1:]) == (
    '(256, 64) float32 -> lm_head/kernel (64, 256) dense'
  )
  stacked = 'language_model.model.layers.{0..1}.self_attn.q_proj.weight'
  assert stacked in {row[0] for row in rows}
  assert out.splitlines()[-1].startswith('259 tensors, 0.004 GB')


def test_the_commands_import_and_export(source, tmp_path, output):
  workdir = tmp_path / 'workdir'
  code, out, err = commands.run(
    'import_bagel',
    f'--source={source}',
    f'--output={workdir}',
    '--dtype=float32',
  )
  assert code == 0, err
  assert f'--config.init_from={workdir}' in out
  code, out, err = commands.run(
    'export_bagel', f'--checkpoint={workdir}', f'--output={output}'
  )
  assert code == 0, err
  assert '259 tensors' in out
  for name in FILES:
    assert_same(load_file(output / name), load_file(source / name))


def test_an_error_of_a_command_is_one_line(source, output):
  truncate('ema.safetensors')(source)
  commands.assert_refused(
    commands.run('import_bagel', f'--source={source}', f'--output={output}'),
    f'{source}/ema.safetensors: has ',
  )
  assert not output.exists()
  commands.assert_refused(
    commands.run('import_bagel', f'--source={source}'), '--output'
  )
  commands.assert_refused(
    commands.run(
      'export_bagel', f'--checkpoint={source}', f'--output={output}'
    ),
    f'{source}/config.json: is not the config of a run',
  )
