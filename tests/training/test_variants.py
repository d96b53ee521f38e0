"""Variants of SynerMedGen by one setting: training, resuming, synthesis."""

import dataclasses
import json
import re
import shutil

import flax.linen as nn
import jax
import nano
import numpy as np
import pytest
from etils.epath import Path

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import streaming
from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.inference.bagel_workdir import export_bagel
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.interop.bagel_configs import BagelError
from synermedgen_jax.models import presets
from synermedgen_jax.training.build import build
from synermedgen_jax.training.objectives import (
  OBJECTIVES,
  Objective,
  multimodal_sums,
)

pytestmark = pytest.mark.usefixtures('nano_preset', 'quick_compiles')

ROUTE = route_named('brain_mr_to_ct')
SHARED = (
  (r'(vae2llm|llm2vae|time_embedder|mot)/.*', 1.0),
  (r'.*', 0.0),
)


def saved(workdir):
  """The newest checkpoint's shape and its parameters, flat."""
  shape, params = saved_model.load_model(workdir / 'checkpoints', use_ema=False)
  return shape, {n: np.asarray(x) for n, x in flatten(params).items()}


def shared_config(runs, **values):
  return nano.config(
    'stage2',
    runs / 'store',
    init_from=str(runs / 'stage1'),
    experts='shared',
    trainable=SHARED,
    **values,
  )


@pytest.fixture(scope='module')
def shared_run(nano_runs, tmp_path_factory):
  workdir = Path(tmp_path_factory.mktemp('shared')) / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)
    nano.train(shared_config(nano_runs), workdir)
  return workdir


def test_shared_weights_train_and_there_is_no_gen_expert(nano_runs, shared_run):
  _, before = saved(nano_runs / 'stage1')
  shape, after = saved(shared_run)
  assert shape.llm.experts == 'shared'
  gone = {n for n in before if re.match(r'mot/(layers/gen|gen_norm)/', n)}
  assert gone
  assert after.keys() == before.keys() - gone
  changed = {n for n in after if (after[n] != before[n]).any()}
  assert changed == {n for n in after if re.fullmatch(SHARED[0][0], n)}
  assert any(n.startswith('mot/layers/und/') for n in changed)


def test_a_dense_run_synthesises_resumes_and_is_not_exported(
  nano_runs, shared_run, tmp_path
):
  trained = Trained.load(shared_run)
  assert trained.config['experts'] == 'shared'
  slices = np.linspace(-1, 1, 2 * nano.CANVAS**2, dtype=np.float32)
  slices = slices.reshape(2, nano.CANVAS, nano.CANVAS)
  out = trained.synthesiser().synthesise(ROUTE, slices[None])
  assert out.shape == slices.shape
  assert np.isfinite(out).all()
  with pytest.raises(BagelError, match=r"llm\.experts = 'shared' \(BAGEL: 'm"):
    export_bagel(shared_run, tmp_path / 'export')
  again = nano.train(
    shared_config(nano_runs, steps=3, checkpoint_every=3), shared_run
  )
  assert int(again.step) == 3


def test_two_experts_do_not_start_from_one(shared_run):
  config = nano.config('stage2', '', init_from=str(shared_run))
  with pytest.raises(
    ConfigError, match=r"lacks mot/gen_norm/scale, which.*'mot'"
  ):
    build(config, data=False)


def test_unknown_experts_are_refused_by_the_key(nano_runs):
  config = nano.config('stage2', '', experts='dense')
  with pytest.raises(ConfigError, match=r"config\.experts: 'dense': expected"):
    build(config, data=False)


CODES = (
  (r'(vae2llm|llm2code|time_embedder)/.*', 1.0),
  (r'mot/(layers/gen|gen_norm)/.*', 1.0),
  (r'.*', 0.0),
)
QUANTISER = (
  (r'(quantiser|autoencoder/decoder)/.*', 1.0),
  (r'.*', 0.0),
)


def quantiser_config(runs, **values):
  config = nano.config(
    'autoencoder',
    runs / 'store',
    stage='quantiser',
    init_from=str(runs / 'stage1'),
    generation='masked',
    trainable=QUANTISER,
    optimizer='adamw',
    objective={'l2_weight': 2.0},
  )
  config.update(values)
  return config


def codes_config(start, store, generation, **values):
  return nano.config(
    'stage2',
    store,
    init_from=str(start),
    generation=generation,
    trainable=CODES,
    **values,
  )


@pytest.fixture(scope='module')
def quantiser_run(nano_runs, tmp_path_factory):
  workdir = Path(tmp_path_factory.mktemp('quantiser')) / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)
    nano.train(quantiser_config(nano_runs), workdir)
  return workdir


def test_the_quantiser_is_new_and_leaves_source_and_text_alone(
  nano_runs, quantiser_run
):
  _, before = saved(nano_runs / 'stage1')
  shape, after = saved(quantiser_run)
  assert shape.generation == 'masked'
  new = after.keys() - before.keys()
  assert {n.split('/')[0] for n in new} == {'quantiser', 'llm2code'}
  assert before.keys() - after.keys() == {'llm2vae/kernel', 'llm2vae/bias'}
  changed = {n for n in before if n in after and (before[n] != after[n]).any()}
  assert changed
  assert all(n.startswith('autoencoder/decoder/') for n in changed)


@pytest.mark.parametrize('generation', ['masked', 'autoregressive'])
def test_codes_train_after_a_quantiser_and_synthesise(
  nano_runs, quantiser_run, tmp_path, generation
):
  config = codes_config(quantiser_run, nano_runs / 'store', generation)
  nano.train(config, tmp_path / 'run')
  _, before = saved(quantiser_run)
  shape, after = saved(tmp_path / 'run')
  assert shape.generation == generation
  changed = {n for n in after if (after[n] != before[n]).any()}
  assert changed == {
    n for n in after if any(re.fullmatch(p, n) for p, _ in CODES[:2])
  }
  row = json.loads(
    (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()[-1]
  )
  assert 0 < row['codes'] < 2 * np.log(8192)
  assert 'flow' not in row
  trained = Trained.load(tmp_path / 'run')
  slices = np.linspace(-1, 1, 2 * nano.CANVAS**2, dtype=np.float32)
  slices = slices.reshape(2, nano.CANVAS, nano.CANVAS)
  out = trained.synthesiser().synthesise(ROUTE, slices[None])
  assert np.isfinite(out).all()
  # Nothing is drawn.
  again = trained.synthesiser().synthesise(ROUTE, slices[None], seed=7)
  np.testing.assert_array_equal(again, out)


def test_the_ceiling_of_codes_is_the_truth_through_the_codes(quantiser_run):
  trained = Trained.load(quantiser_run)
  slices = np.random.default_rng(0).uniform(-1, 1, (1, *[nano.CANVAS] * 2))
  ceiling = trained.synthesiser().reconstruct(slices)

  def through(model, images):
    codes = model.codes(model.encode_latents(images).reshape(1, -1, 8))
    return model.decode_latents(model.code_latents(codes).reshape(1, 2, 2, 8))

  expected = trained.model.apply(
    {'params': trained.params},
    slices[..., None].astype(np.float32),
    method=through,
  )
  np.testing.assert_allclose(
    ceiling, np.clip(expected[..., 0], -1, 1), atol=1e-4
  )
  plain = trained.model.apply(
    {'params': trained.params},
    slices[..., None].astype(np.float32),
    method=lambda m, x: m.decode_latents(m.encode_latents(x)),
  )
  assert np.abs(np.clip(plain[..., 0], -1, 1) - ceiling).max() > 1e-3


def test_a_uniform_head_has_the_entropy_of_the_codes(nano_runs):
  """Every wanted code costs log 8192: all of an image, or the hidden ones."""
  config = codes_config('', nano_runs / 'store', 'autoregressive')
  config.init_from = ''
  run = build(config)
  batch = next(iter(run.data))
  params = nn.unbox(run.model.initial_params(jax.random.key(0)))
  params['llm2code'] = jax.tree.map(np.zeros_like, params['llm2code'])

  @jax.jit
  def sums(params, batch, key):
    return multimodal_sums(
      run.model, params, batch, key, run.step.objective, run.step.tasks
    )

  total, count = sums(params, batch, jax.random.key(1))['codes']
  assert count == (np.asarray(batch.noise_ids) > 0).sum() > 0
  assert total / count == pytest.approx(np.log(8192), rel=1e-5)


@pytest.mark.parametrize('generation', ['masked', 'autoregressive'])
def test_codes_do_not_start_without_a_quantiser(nano_runs, generation):
  config = codes_config(nano_runs / 'stage1', '', generation)
  with pytest.raises(ConfigError, match=r'lacks llm2code/bias, which.*another'):
    build(config, data=False)


def test_a_flow_does_not_start_from_codes(quantiser_run):
  config = nano.config('stage2', '', init_from=str(quantiser_run))
  with pytest.raises(ConfigError, match=r"lacks llm2vae/bias, which.*'flow'"):
    build(config, data=False)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'generation': 'diffusion'}, "config.generation: 'diffusion': expected"),
    ({'generation': 'flow'}, "config.generation 'flow': has no quantiser"),
    ({'init_from': '', 'from_scratch': False}, "stage 'quantiser' continues"),
  ],
)
def test_a_quantiser_that_cannot_train_is_refused(nano_runs, values, message):
  config = quantiser_config(nano_runs, **values)
  with pytest.raises(ConfigError, match=message):
    build(config)


def test_a_stage_without_the_loss_of_codes_is_refused(monkeypatch, nano_runs):
  of_flow = Objective(multimodal_sums, ('ntp', 'flow'))
  monkeypatch.setitem(OBJECTIVES, 'only_flow', of_flow)
  config = codes_config('', '', 'masked', stage='only_flow')
  config.init_from = ''
  with pytest.raises(ConfigError, match=r"stage 'only_flow' lacks .*'codes'"):
    build(config, data=False)


@pytest.mark.parametrize(
  ('name', 'changes'),
  [
    ('as_janusflow', {'experts'}),
    ('as_showo', {'generation', 'objective', 'sampling'}),
    ('as_januspro', {'generation', 'objective'}),
  ],
)
def test_a_config_is_that_of_stage_2_but_for_its_setting(name, changes):
  """Constants of the flow and Euler steps do not apply to codes."""
  ours, stage2 = (
    nano.config_file(f'configs.small.{n}').to_dict() for n in (name, 'stage2')
  )
  different = {key for key in ours if ours[key] != stage2[key]}
  assert different == changes | {'trainable'}


DETAIL = (
  (r'(vae2llm|llm2vae|time_embedder|detail)/.*', 1.0),
  (r'mot/(layers/gen|gen_norm)/.*', 1.0),
  (r'.*', 0.0),
)


def detail_config(runs, **values):
  return nano.config(
    'stage2',
    runs / 'store',
    trainable=DETAIL,
    **{'detail': 16, 'init_from': str(runs / 'stage1'), **values},
  )


@pytest.fixture(scope='module')
def detail_run(nano_runs, tmp_path_factory):
  workdir = Path(tmp_path_factory.mktemp('detail')) / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)
    nano.train(detail_config(nano_runs), workdir)
  return workdir


def test_the_detail_path_trains_from_weights_without_one(nano_runs, detail_run):
  _, before = saved(nano_runs / 'stage1')
  shape, after = saved(detail_run)
  assert shape.detail == 16
  new = after.keys() - before.keys()
  assert new
  assert all(name.startswith('detail/') for name in new)
  assert after['detail/unet/out/kernel'].any()  # starts at zero
  rows = (detail_run / 'metrics.jsonl').read_text().splitlines()
  last = json.loads(rows[-1])
  terms = sum(last[name] for name in ('flow', 'pixels', 'edges'))
  assert last['loss'] == pytest.approx(terms, rel=1e-5)


def test_a_run_with_detail_synthesises_from_the_pixels_of_its_source(
  detail_run, tmp_path
):
  trained = Trained.load(detail_run)
  slices = np.linspace(-1, 1, 2 * nano.CANVAS**2, dtype=np.float32)
  slices = slices.reshape(2, nano.CANVAS, nano.CANVAS)
  out = trained.synthesiser().synthesise(ROUTE, slices[None])
  assert out.shape == slices.shape
  assert np.isfinite(out).all()
  one, other, mean = (
    trained.synthesiser(
      dataclasses.replace(trained.sampling, draws=draws)
    ).synthesise(ROUTE, slices[None], seed=seed)
    for draws, seed in ((1, 0), (1, 1), (3, 0))
  )
  np.testing.assert_array_equal(out, one)
  assert np.abs(one - other).max() > 0
  assert np.abs(one - mean).max() > 0
  with pytest.raises(BagelError, match=r'detail = 16 \(BAGEL: 0\)'):
    export_bagel(detail_run, tmp_path / 'export')


def test_the_width_of_a_trained_path_is_kept(detail_run, nano_runs):
  for width in (0, 32):
    config = detail_config(nano_runs, init_from=str(detail_run), detail=width)
    with pytest.raises(
      ConfigError, match=rf'detail {width}: .*has a detail path of 16 channels'
    ):
      build(config, data=False)


def test_a_run_from_before_the_path_drew_is_refused(
  nano_runs, nano_preset, tmp_path
):
  shape = dataclasses.replace(nano.MODEL, detail=16)
  params = nano.initial_params(shape)
  del params['detail']['texture_0'], params['detail']['texture_1']
  run = shutil.copytree(
    nano_runs / 'stage2', tmp_path / 'run', ignore=lambda *_: ['checkpoints']
  )
  lazy = {n: LazyArray.of(np.asarray(x)) for n, x in flatten(params).items()}
  streaming.save_model(run / 'checkpoints', shape, lazy)
  message = f'{run}: lacks detail/texture_0, one of 2 parameters .*; train it'
  with pytest.raises(CheckpointError, match=message):
    Trained.load(run)
  with pytest.raises(ConfigError, match=f'config.init_from: {message}'):
    build(detail_config(nano_runs, init_from=str(run)), data=False).create()


def test_draws_of_a_model_without_a_detail_path_are_refused(nano_runs):
  config = nano.config('stage2', nano_runs / 'store')
  config.sampling.draws = 2
  with pytest.raises(ConfigError, match=r'sampling: draws 2: .*are equal'):
    build(config, data=False)
  trained = Trained.load(nano_runs / 'stage2')
  sampling = dataclasses.replace(trained.sampling, draws=2)
  with pytest.raises(UserError, match='draws 2: without a detail path'):
    trained.synthesiser(sampling)


def test_edits_have_no_detail_path(nano_runs):
  config = detail_config(nano_runs, tasks={'synthesis': 1.0, 'editing': 1.0})
  with pytest.raises(ConfigError, match=r'config\.detail 16: .*task editing'):
    build(config, data=False)
