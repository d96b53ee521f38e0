"""An error in a config is one line that names the key."""

import dataclasses
import re
import types

import jax
import nano
import numpy as np
import pytest
from store_fakes import write_store

from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models import presets
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import build
from synermedgen_jax.training.config_checks import (
  check,
  check_best_is_measured,
  check_detached,
  check_store,
  local_streams,
)
from synermedgen_jax.training.objectives import ObjectiveConfig

pytestmark = pytest.mark.usefixtures('quick_compiles')


def refusal(config, workdir):
  """The one line with which a config is refused; nothing is written."""
  with pytest.raises(ConfigError) as error:
    nano.train(config, workdir)
  assert '\n' not in str(error.value)
  assert not workdir.exists()
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
  'freeze_und': (
    {'objective': {'freeze_und': True}},
    r"config\.objective: freeze_und True: expected 'detach' or ''\.",
  ),
  'stage': (
    {'stage': 'vqa'},
    r"config\.stage 'vqa': expected one of autoencoder, quantiser, gau, "
    r'ucg, joint.*\.',
  ),
  'task': (
    {'tasks': {'vqa': 1.0}},
    r'config\.tasks: unknown vqa; expected some of cts, mi, tia, .*',
  ),
  'remat': (
    {'compute': {'remat': 'some'}},
    r'config\.compute\.remat: unknown some; expected some of none, full, .*',
  ),
  'dtype': (
    {'compute': {'dtype': 'float8'}},
    r'config\.compute\.dtype: unknown float8; expected some of bfloat16, .*',
  ),
  'attention': (
    {'compute': {'attention': 'flash'}},
    r'config\.compute\.attention: unknown flash; expected some of xla, .*',
  ),
  'attention of another platform': (
    {'compute': {'attention': 'pallas_tpu'}},
    r"config\.compute\.attention 'pallas_tpu': runs on tpu, and the devices "
    r'are cpu.*',
  ),
  'wordings': (
    {'prompts': 'long'},
    r'config\.prompts: unknown long; expected some of paper, short\.',
  ),
  'points': (
    {'sampling': {'points': 1}},
    r'config\.sampling: points 1: must be at least 2\.',
  ),
  'renorm': (
    {'sampling': {'guidance': {'renorm': 'glboal'}}},
    r"config\.sampling: guidance\.renorm 'glboal': expected one of global, .*",
  ),
  'interval': (
    {'sampling': {'guidance': {'interval': (0.9, 0.4)}}},
    r'config\.sampling: guidance\.interval: expected \(low, high\), .*',
  ),
  'module': (
    {'modules': ('no.such.module',)},
    r'config\.modules: no\.such\.module: cannot be imported \(No module .*',
  ),
  'no start': (
    {'from_scratch': False},
    r"config\.init_from is empty and stage 'gau' continues from trained "
    r'weights: name a workdir .* or set config\.from_scratch=True .*',
  ),
  'no tokenizer': (
    {'tokenizer': ''},
    r'config\.tokenizer is empty: name a folder with a tokenizer\.json, or '
    r"'project' for the one that ships\.",
  ),
  'no task': (
    {'tasks': {'cts': 0.0, 'mi': 0.0, 'tia': 0.0}},
    r'config\.tasks: no task has a share above 0\.',
  ),
  'route': (
    {'routes': (ROUTE,)},
    rf"config\.routes: Unknown route '{ROUTE}': the nearest are brain_ct_to_.*",
  ),
  'sources in another order': (
    {'routes': ('brats_t2+t1_to_flair',)},
    r"config\.routes: Route 'brats_t2\+t1_to_flair': its sources are in "
    r'another order; write brats_t1\+t2_to_flair\.',
  ),
  'more than all subjects': (
    {'subjects': 1.5},
    r'config\.subjects 1\.5: must be from 0 to 1\.',
  ),
  'condition that no span has': (
    {'sampling': {'withheld': ('words',)}},
    r'config\.sampling: withheld words: expected some of text, vae, vit\.',
  ),
  'no source': (
    {'max_sources': 0},
    r'config\.max_sources 0: must be at least 1\.',
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
    {'image': {'vit_size': (12, 12)}},
    r'config\.image: vit_size \(12, 12\): 12 is not a positive multiple of 8\.',
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
    r"config\.capacity\.und is 20, but an example of task '\w+' needs \d+\.",
  ),
  'init_from': (
    {'init_from': 'nowhere'},
    r'config\.init_from: nowhere/checkpoints: no such checkpoint directory\.',
  ),
  'trainable': (
    {'trainable': (('autoencoder/.*', 0.0), ('[b-z].*', 1.0), ('a', 1.0))},
    r'config\.trainable has rows that match nothing: a\.',
  ),
  'untold': (
    {'trainable': (('[a-k].*', 0.0), ('[m-z].*', 1.0))},
    r'config\.trainable has no row for latent_pos_embed, llm2vae/bias, '
    r'llm2vae/kernel, lm_head/kernel: add one\.',
  ),
  'optimiser': (
    {'optimizer': 'lion'},
    r"Unknown config\.optimizer 'lion': expected adamw, muon or sgd\.",
  ),
  'decay': (
    {'decay': 'step'},
    r"Unknown config\.decay 'step': expected constant, cosine, .* poly\.",
  ),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_config_is_refused_in_a_line_that_names_the_key(
  store_path, nano_preset, tmp_path, monkeypatch, kind
):
  values, message = BAD[kind]
  monkeypatch.chdir(tmp_path)
  config = nano.config('stage1', store_path)
  config.update(values)
  line = refusal(config, tmp_path / 'run')
  assert re.fullmatch(message, line), line


def test_rows_have_to_fill_the_devices(store_path):
  config = nano.config('stage1', store_path, mesh=(2, 2, 1), rows=6)
  mesh = types.SimpleNamespace(
    shape={'data': 2, 'fsdp': 2, 'tensor': 1},
    devices=np.array(jax.devices()[:1]),
  )
  with pytest.raises(ConfigError) as error:
    check(config, nano.MODEL, project_tokenizer(), mesh)
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


# Keys with a smallest value, and that value.
AT_LEAST = {
  'rows': 1,
  'streams': 1,
  'packing_bins': 1,
  'reader_threads': 1,
  'steps': 1,
  'log_every': 1,
  'checkpoint_every': 1,
  'keep': 1,
  'compute.unroll': 1,
  'seed': 0,
  'warmup': 0,
  'max_bad_steps': 0,
  'val_every': 0,
  'keep_every': 0,
  'profile.start': 0,
  'profile.steps': 0,
}
SHARES = (
  'ema',
  'dropout.text',
  'dropout.vae',
  'dropout.vit',
  'augment.mirror',
  'augment.warp',
)


def config_with(store, key, value):
  config = nano.config('stage1', store)
  config.update_from_flattened_dict({key: value})
  return config


@pytest.mark.parametrize(('key', 'least'), AT_LEAST.items())
def test_a_number_below_its_least_is_refused(
  store_path, nano_preset, tmp_path, key, least
):
  config = config_with(store_path, key, least - 1)
  assert refusal(config, tmp_path / 'run') == (
    f'config.{key} {least - 1}: must be at least {least}.'
  )


def test_noise_of_less_than_nothing_is_refused(
  store_path, nano_preset, tmp_path
):
  config = config_with(store_path, 'augment.noise', -0.01)
  assert refusal(config, tmp_path / 'run') == (
    'config.augment.noise -0.01: must be at least 0.'
  )


@pytest.mark.parametrize('value', [-0.01, 1.01, float('nan')])
@pytest.mark.parametrize('key', SHARES)
def test_a_share_is_from_0_to_1(store_path, nano_preset, tmp_path, key, value):
  config = config_with(store_path, key, value)
  assert refusal(config, tmp_path / 'run') == (
    f'config.{key} {value}: must be from 0 to 1.'
  )


def checked(config):
  """Checks a config with itself alone, on one device."""
  mesh = types.SimpleNamespace(
    shape={'data': 1, 'fsdp': 1, 'tensor': 1},
    devices=np.array(jax.devices()[:1]),
  )
  check(config, nano.MODEL, project_tokenizer(), mesh)


def test_every_least_value_and_the_ends_of_every_share_will_do(store_path):
  for name in nano.STAGES:
    checked(nano.config(name, store_path, val_batches=1))
  for ends in (0.0, 1.0):
    config = nano.config('stage1', store_path)
    config.update_from_flattened_dict(AT_LEAST | dict.fromkeys(SHARES, ends))
    checked(config)


MORE_BAD = {
  'task': (
    {'tasks': {'vqa': 1.0}},
    r'config\.tasks: unknown vqa; expected some of cts, mi, tia, .*',
  ),
  'prompts': (
    {'prompts': 'long'},
    r'config\.prompts: unknown long; expected some of paper, short\.',
  ),
  'module': (
    {'modules': ('nowhere.tasks',)},
    r'config\.modules: nowhere\.tasks: cannot be imported \(No module named '
    r"'nowhere'\); run the command where .*",
  ),
  'share of a task': (
    {'tasks': {'mi': -0.5, 'tia': 1.5}},
    r'config\.tasks: a share is below 0\.',
  ),
  'val_batches': (
    {'val_every': 2, 'val_batches': 0},
    r'config\.val_batches 0: must be at least 1, or set config\.val_every=0\.',
  ),
  'best without validation': (
    {'best': 'val/loss', 'val_every': 0, 'checkpoint_every': 4},
    r"config\.best 'val/loss' needs a validation at every checkpoint: "
    r'config\.checkpoint_every 4 has to be a multiple of config\.val_every 0, '
    r'which is not 0\.',
  ),
  'best between validations': (
    {'best': 'val/loss', 'val_every': 4, 'checkpoint_every': 6},
    r"config\.best 'val/loss' needs a validation at every checkpoint: "
    r'config\.checkpoint_every 6 has to be a multiple of config\.val_every 4, '
    r'which is not 0\.',
  ),
  'best of training': (
    {'best': 'loss', 'val_every': 2, 'checkpoint_every': 2},
    r"config\.best 'loss': expected one of .*val/answer_accuracy/mi, .*"
    r'val/loss, .*val/ntp/tia.*\.',
  ),
  'best of what validation does not tell': (
    {'best': 'val/fill/und', 'val_every': 2, 'checkpoint_every': 2},
    r"config\.best 'val/fill/und': expected one of (val/[al-z]\S+, )+"
    r'val/token_accuracy/tia\.',
  ),
  'trainable is no expression': (
    {'trainable': (('(', 1.0),)},
    r'config\.trainable: missing \), unterminated subpattern at position 0\.',
  ),
  'learning rate': (
    {'learning_rate': -1.0},
    r'config\.learning_rate -1\.0: must be at least 0\.',
  ),
  'weight of a route': (
    {'route_weights': (('pelvis.*', 2.0), ('.*_pet', 0.0))},
    r"config\.route_weights '\.\*_pet': 0\.0 must be above 0 and finite; "
    r'config\.routes leaves routes out\.',
  ),
  'weight without end': (
    {'route_weights': (('pelvis.*', float('inf')),)},
    r"config\.route_weights 'pelvis\.\*': inf must be above 0 and finite; .*",
  ),
  'weights that are one row': (
    {'route_weights': ('pelvis.*', 2.0)},
    r"config\.route_weights 'pelvis\.\*': expected a route and a number, as in "
    r"\('pelvis_\.\*', 2\.0\)\.",
  ),
  'weight that is a word': (
    {'route_weights': (('pelvis.*', '2'),)},
    r"config\.route_weights \('pelvis\.\*', '2'\): expected a route and .*",
  ),
  'weight of no route': (
    {'route_weights': (('brats', 2.0),)},
    r"config\.route_weights 'brats': matches none of brain_cbct_to_ct, .*\.",
  ),
  'weight of no expression': (
    {'route_weights': (('(', 2.0),)},
    r"config\.route_weights '\(': missing \), unterminated subpattern at "
    r'position 0\.',
  ),
  'clip': ({'clip': 0.0}, r'config\.clip 0\.0: must be above 0\.'),
  'capacity of what is not there': (
    {'capacity': {'und': 96, 'gen': 0, 'vit': 20, 'images': 0, 'text': 9}},
    r"config\.capacity: .*unexpected keyword argument 'text'",
  ),
  'weight of an unknown task': (
    {'objective': {'task_weights': {'cts': 1.0, 'cst': 2.0}}},
    r"config\.objective\.task_weights 'cst': did you mean 'cts'\? Expected "
    r'some of .*\bmi, .*',
  ),
  'weight of an unknown term': (
    {'objective': {'term_weights': {'ntp/mu': 2.0}}},
    r"config\.objective\.term_weights 'ntp/mu': did you mean 'ntp/mi'\? "
    r'Expected some of .*',
  ),
  'weight of a term of another stage': (
    {'objective': {'term_weights': {'flow': 2.0}}},
    r"config\.objective\.term_weights 'flow': did you mean 'ntp/.*'\? .*",
  ),
  'streams that do not divide the rows': (
    {'rows': 4, 'streams': 3},
    r'config\.streams: 3 for 4 rows, 4 of them on this process: every stream '
    r'needs as many rows as the others, .*',
  ),
  'more streams than rows': (
    {'rows': 2, 'streams': 4},
    r'config\.streams: 4 for 2 rows, 2 of them on this process: .*',
  ),
}


@pytest.mark.parametrize('kind', MORE_BAD)
def test_a_contradiction_is_refused_in_a_line_that_names_the_key(
  store_path, nano_preset, tmp_path, kind
):
  values, message = MORE_BAD[kind]
  config = nano.config('stage1', store_path)
  for key in {'tasks', 'capacity'} & values.keys():
    config[key] = {}
  config.update(values)
  line = refusal(config, tmp_path / 'run')
  assert re.fullmatch(message, line), line


def test_the_terms_of_a_stage_may_have_weights(store_path):
  checked(
    nano.config(
      'joint',
      store_path,
      objective={
        'task_weights': {'tia': 2.0},
        'term_weights': {'flow': 2.0, 'pixels': 0.1, 'ntp/tia': 0.5},
      },
    )
  )


def test_an_unknown_best_metric_is_refused_before_anything_is_written(
  store_path, nano_preset, tmp_path, monkeypatch
):
  def create_state(*_, **__):
    raise AssertionError('parameters were made')

  monkeypatch.setattr(build, 'create_state', create_state)
  values = {'best': 'val/los', 'val_every': 2, 'checkpoint_every': 2}
  config = nano.config('stage1', store_path, **values)
  assert 'val/loss' in refusal(config, tmp_path / 'run')


def test_validation_may_be_left_out_with_any_number_of_batches(store_path):
  checked(nano.config('stage1', store_path, val_every=0, val_batches=0))


def test_the_best_may_be_measured_more_often_than_saved(store_path):
  values = {'best': 'val/loss', 'val_every': 2, 'checkpoint_every': 6}
  checked(nano.config('stage1', store_path, **values))


def test_a_metric_that_validation_makes_may_be_the_best(store_path):
  config = nano.config('stage1', store_path, best='val/ntp/mi')
  check_best_is_measured(config, {'loss', 'ntp/mi'})
  with pytest.raises(ConfigError) as error:
    check_best_is_measured(config, {'loss', 'ntp/tia'})
  assert str(error.value) == (
    "config.best 'val/ntp/mi': expected one of val/loss, val/ntp/tia."
  )
  config.best = ''
  check_best_is_measured(config, {'loss'})


def test_nothing_before_a_detached_stream_is_trained():
  detached = ObjectiveConfig(freeze_und='detach')
  gen = {'mot/layers/gen/q_proj/kernel': 1.0, 'vae2llm/kernel': 0.5}
  frozen = {'mot/layers/und/q_proj/kernel': 0.0, 'vit/post_norm/scale': 0.0}
  check_detached(detached, gen | frozen)
  for name in (
    *frozen,
    *('mot/und_norm/scale', 'connector/fc1/kernel', 'lm_head/kernel'),
    *('embed_tokens/embedding', 'vit_pos_embed'),
  ):
    with pytest.raises(ConfigError, match=rf"'detach': no grad.* {name}; set"):
      check_detached(detached, gen | frozen | {name: 0.1})
    check_detached(ObjectiveConfig(), gen | {name: 0.1})


def test_a_route_counts_where_a_subject_to_train_on_has_it(store_path):
  store = SliceStore.open(str(store_path))
  routes = ('brain_mr_to_ct', 'pelvis_ct_to_cbct', 'brats_flair_to_t1')
  check_store(nano.config('stage1', store_path, routes=routes), store)
  check_store(nano.config('stage1', store_path, routes=()), store)
  held_out = types.SimpleNamespace(
    path='slices', split=lambda name: store.split('val')
  )
  config = nano.config('stage1', store_path, routes=routes)
  with pytest.raises(ConfigError) as error:
    check_store(config, held_out)
  # The subjects of this split have no pelvis.
  assert re.fullmatch(
    r'config\.routes: no subject to train on in the store slices has '
    r'pelvis_ct_to_cbct; it holds brain_.*',
    str(error.value),
  )


def test_every_route_that_is_missing_is_named(store_path):
  store = types.SimpleNamespace(path='slices', split=lambda name: ())
  routes = ('brain_mr_to_ct', 'brats_t1_to_t2')
  config = nano.config('stage1', store_path, routes=routes)
  with pytest.raises(ConfigError) as error:
    check_store(config, store)
  assert str(error.value) == (
    'config.routes: no subject to train on in the store slices has '
    'brain_mr_to_ct, brats_t1_to_t2; it holds none.'
  )


def test_one_process_reads_all_streams(store_path):
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  config = nano.config('stage1', store_path, rows=8, streams=4)
  assert local_streams(config, mesh) == [0, 1, 2, 3]
