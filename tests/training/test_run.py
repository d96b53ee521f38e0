"""A stage from its config: what it trains, from what, and what it refuses."""

import dataclasses
import json
import re
import shutil
import types

import jax
import nano
import numpy as np
import pytest
from store_fakes import write_store

from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models import presets
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.training import checkpoints as ckpt
from synermedgen_jax.training import run
from synermedgen_jax.training.config_checks import ConfigError
from synermedgen_jax.training.optim import flatten
from synermedgen_jax.training.train_state import TrainState

# What each stage trains, whatever its table of regular expressions says.
UND = r'(vit|connector|embed_tokens|lm_head)/.*|mot/(layers/und|und_norm)/.*'
GEN = r'(vae2llm|llm2vae|time_embedder)/.*|mot/(layers/gen|gen_norm)/.*'
TRAINED = {
  'autoencoder': r'autoencoder/.*',
  'stage1': UND,
  'stage2': GEN,
  'joint': f'{UND}|{GEN}',
}


def params(workdir, *, average=False):
  """The parameters of the newest checkpoint, flat."""
  directory = workdir / 'checkpoints'
  flat = flatten(ckpt.load_model(directory, use_ema=average)[1])
  return {name: np.asarray(leaf) for name, leaf in flat.items()}


def changed(before, after):
  assert before.keys() == after.keys()
  return {name for name in before if (before[name] != after[name]).any()}


@pytest.mark.parametrize('stage', nano.STAGES)
def test_every_stage_trains_to_its_last_step(nano_runs, stage):
  workdir = nano_runs / stage
  steps = 4 if stage == 'joint' else 2
  rows = (workdir / 'metrics.jsonl').read_text().splitlines()
  last = json.loads(rows[-1])
  assert last['step'] == steps
  assert np.isfinite(last['loss'])
  assert np.isfinite(last['val/loss'])
  checkpoints, newest = ckpt.latest(workdir / 'checkpoints')
  checkpoints.close()
  assert newest == steps
  assert list((workdir / 'tensorboard').iterdir())


@pytest.mark.parametrize('stage', ['stage1', 'stage2', 'joint'])
def test_a_stage_trains_its_own_part_and_leaves_the_rest_to_the_bit(
  nano_runs, stage
):
  before = params(nano_runs / nano.STAGES[stage])
  found = changed(before, params(nano_runs / stage))
  expected = {n for n in before if re.fullmatch(TRAINED[stage], n)}
  assert expected
  assert found == expected


def test_the_average_is_of_what_the_stage_trains_alone(nano_runs):
  last = params(nano_runs / 'stage2')
  found = changed(last, params(nano_runs / 'stage2', average=True))
  assert found == {n for n in last if re.fullmatch(TRAINED['stage2'], n)}


def test_latents_are_shifted_and_scaled_to_unit_variance(
  nano_runs, quick_compiles, monkeypatch
):
  model, nested = ckpt.load_model(nano_runs / 'autoencoder' / 'checkpoints')
  state = TrainState(
    step=0, trainable={}, frozen=flatten(nested), opt_state=(), ema={}
  )
  images = np.random.default_rng(0).uniform(-1, 1, (8, 2, 3, 16, 16, 1))
  images = images.astype(np.float32)
  batches = (types.SimpleNamespace(vae_images=rows) for rows in images)

  @jax.jit
  def latents(state):
    flat = images.reshape(-1, 16, 16, 1)
    return Bagel(model).apply(
      {'params': state.params}, flat, method=Bagel.encode_latents
    )

  monkeypatch.setattr(run.loop, 'to_devices', lambda batch, _: batch)
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  found = run.calibrate_latents(model, state, batches, mesh)
  assert abs(latents(state).std() - 1) > 0.01
  np.testing.assert_allclose(latents(found).mean(), 0, atol=1e-4)
  np.testing.assert_allclose(latents(found).std(), 1, atol=1e-4)


def test_the_resolved_config_is_kept(nano_runs):
  record = json.loads((nano_runs / 'stage2' / 'config.json').read_text())
  config = record['config']
  assert config['stage'] == 'ucg'
  assert config['model'] == 'nano'
  assert config['init_from'] == str(nano_runs / 'stage1')
  assert config['capacity'] == {'und': 96, 'gen': 8, 'vit': 20, 'images': 2}
  assert config['trainable'][0] == ['autoencoder/.*', 0.0]
  assert record['versions'].keys() >= {'jax', 'flax', 'optax', 'grain'}


def contents(folder):
  return {
    path: (path.stat().st_mtime_ns, path.read_bytes())
    for path in folder.rglob('*')
    if path.is_file()
  }


def test_a_finished_run_does_nothing_more(
  nano_runs, nano_preset, tmp_path, monkeypatch
):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  before = contents(workdir)

  def step(*_):
    raise AssertionError('a step was made')

  monkeypatch.setattr(run.loop, 'make_train_step', step)
  run.train(nano.stage_config('stage1', nano_runs), workdir)
  after = contents(workdir)
  # Written again, and the same.
  assert changed_files(before, after) <= {workdir / 'config.json'}
  assert [b for _, b in before.values()] == [b for _, b in after.values()]


def changed_files(before, after):
  assert before.keys() == after.keys()
  return {path for path in before if before[path] != after[path]}


def refusal(config, workdir):
  with pytest.raises(ConfigError) as error:
    run.train(config, workdir)
  assert '\n' not in str(error.value)
  return str(error.value)


ROUTE = 'brain_ct_to_pet'
BAD = {
  'model': (
    {'model': 'huge'},
    r"config\.model: Unknown preset 'huge': expected one of tiny, .*nano\.",
  ),
  'model of nothing': (
    {'model': 'init_from'},
    r"config\.model 'init_from' needs config\.init_from: .*",
  ),
  'stage': (
    {'stage': 'vqa'},
    r"config\.stage 'vqa': expected one of autoencoder, gau, ucg, joint\.",
  ),
  'task': (
    {'tasks': {'vqa': 1.0}},
    r'config\.tasks: unknown vqa; expected some of cts, mi, tia, .*',
  ),
  'remat': (
    {'remat': 'some'},
    r'config\.remat: unknown some; expected some of none, full, dots\.',
  ),
  'attention': (
    {'attention': 'flash'},
    r'config\.attention: unknown flash; expected some of xla, .*',
  ),
  'attention of another platform': (
    {'attention': 'pallas_tpu'},
    r"config\.attention 'pallas_tpu': is for tpu, and the devices are of cpu.*",
  ),
  'no task': (
    {'tasks': {'cts': 0.0, 'mi': 0.0, 'tia': 0.0}},
    r'config\.tasks: no task has a share above 0\.',
  ),
  'route': (
    {'routes': (ROUTE,)},
    rf'config\.routes: unknown {ROUTE}; expected some of brain_cbct_to_ct, .*',
  ),
  'route without a pair': (
    {'routes': ('whole_body_pet_to_ct',)},
    r'config\.routes: no subject to train on in the store .* has '
    r'whole_body_pet_to_ct; it holds brain_.*',
  ),
  'tokenizer': (
    {'tokenizer': 'nowhere'},
    r'config\.tokenizer: .*nowhere.*',
  ),
  'mesh': (
    {'mesh': (3, 1, 1)},
    r'config\.mesh: mesh \(3, 1, 1\) .* does not fit \d+ devices: .*',
  ),
  'image': (
    {'image': {'vit_side': 12}},
    r'config\.image: Image side 12 is not a multiple of 8\.',
  ),
  'rows': ({'rows': 0}, r'config\.rows 0: must be at least 1\.'),
  'log_every': ({'log_every': 0}, r'config\.log_every 0: must be .*'),
  'checkpoint_every': (
    {'checkpoint_every': 0},
    r'config\.checkpoint_every 0: must be at least 1\.',
  ),
  'neighbours': ({'neighbours': 2}, r'CTS .*neighbours must be at least .*'),
  'no store': ({'store': ''}, r'config\.store is empty: name a slice store\.'),
  'store': (
    {'store': 'nowhere'},
    r'config\.store: nowhere: holds no slice store; .*',
  ),
  'capacity': (
    {'capacity': {'und': 20}},
    r"config\.capacity\.und is 20, an example of task '\w+' fills \d+\.",
  ),
  'init_from': (
    {'init_from': 'nowhere'},
    r'config\.init_from: nowhere/checkpoints: no checkpoint directory there\.',
  ),
  'trainable': (
    {'trainable': (('autoencoder/.*', 0.0), ('[b-z].*', 1.0), ('a', 1.0))},
    r'config\.trainable has rows that match nothing: a\.',
  ),
  'untold': (
    {'trainable': (('[a-k].*', 0.0), ('[m-z].*', 1.0))},
    r'config\.trainable says nothing of latent_pos_embed, llm2vae/bias, '
    r'llm2vae/kernel, lm_head/kernel: add a row\.',
  ),
  'optimiser': (
    {'optimizer': 'sgd'},
    r"Unknown config\.optimizer 'sgd': expected adamw or muon\.",
  ),
  'decay': (
    {'decay': 'linear'},
    r"Unknown config\.decay 'linear': expected constant or cosine\.",
  ),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_config_is_refused_in_a_line_that_names_the_key(
  store_path, nano_preset, tmp_path, monkeypatch, kind
):
  values, message = BAD[kind]
  monkeypatch.chdir(tmp_path)
  config = nano.config('stage1', store_path, **values)
  found = refusal(config, tmp_path / 'run')
  assert re.fullmatch(message, found), found
  assert not (tmp_path / 'run').exists()


def test_rows_have_to_fill_the_devices(store_path):
  config = nano.config('stage1', store_path, mesh=(2, 2, 1), rows=6)
  mesh = types.SimpleNamespace(
    shape={'data': 2, 'fsdp': 2, 'tensor': 1},
    devices=np.array(jax.devices()[:1]),
  )
  with pytest.raises(ConfigError) as error:
    run.check(config, nano.MODEL, project_tokenizer(), mesh)
  assert str(error.value).startswith(
    'config.rows 6 is not divisible by the 4 devices of the data and fsdp axes '
    'of config.mesh (2, 2, 1)'
  )


def test_a_model_has_to_embed_the_whole_vocabulary(
  store_path, tmp_path, monkeypatch
):
  small = dataclasses.replace(
    nano.MODEL, llm=dataclasses.replace(nano.MODEL.llm, vocab=100)
  )
  monkeypatch.setitem(presets.PRESETS, 'nano', lambda: small)
  size = project_tokenizer().vocab_size
  message = refusal(nano.config('stage1', store_path), tmp_path / 'run')
  assert message == (
    f"config.tokenizer has {size} tokens, the model 'nano' embeds 100."
  )


def test_an_unfinished_store_is_not_trained_on(nano_preset, tmp_path):
  write_store(tmp_path / 'store', finish=False)
  config = nano.config('stage1', tmp_path / 'store')
  assert refusal(config, tmp_path / 'run') == (
    f'config.store: {tmp_path / "store"}: is a store that was not finished; '
    'run the same prepare command again.'
  )


def test_a_stage_of_another_shape_is_no_starting_point(
  nano_runs, nano_preset, tmp_path
):
  config = nano.stage_config('stage2', nano_runs, model='tiny')
  assert refusal(config, tmp_path / 'run') == (
    f'config.init_from {nano_runs / "stage1"} holds a model of another shape '
    "than config.model 'tiny'."
  )


def test_how_a_model_is_computed_does_not_change_what_it_is(
  nano_runs, nano_preset, tmp_path
):
  config = nano.stage_config(
    'stage2', nano_runs, remat='full', attention='xla_chunked'
  )
  model = run.computed_as(config, nano.MODEL)
  assert (model.llm.remat, model.vit.remat) == ('full', 'full')
  assert (model.llm.attention, model.vit.attention) == ('xla_chunked',) * 2
  run.train(config, tmp_path / 'run')
  rows = [
    json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])
    for folder in (tmp_path / 'run', nano_runs / 'stage2')
  ]
  assert rows[0]['loss'] == pytest.approx(rows[1]['loss'], rel=1e-5)


def test_a_run_is_not_resumed_with_another_config_which_is_not_kept(
  nano_runs, nano_preset, tmp_path
):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  before = contents(workdir)
  config = nano.stage_config('stage1', nano_runs, steps=4, optimizer='adamw')
  with pytest.raises(ckpt.CheckpointError) as error:
    run.train(config, workdir)
  assert '\n' not in str(error.value)
  assert 'resume with the config it was begun with' in str(error.value)
  assert contents(workdir) == before
