"""Stages built from configs: trained parameters, starts and refusals."""

import json
import os
import re
import shutil
import subprocess
import sys
import types

import flax.linen as nn
import grain.python as grain
import jax
import nano
import numpy as np
import optax
import pytest

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.checkpoint.data_position import DataSave
from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.core import commit as core_commit
from synermedgen_jax.core.chips import Chip
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.mixture import Dropout
from synermedgen_jax.input.streams import BatchIterator
from synermedgen_jax.models.bagel import abstract_params
from synermedgen_jax.training import build, loop

# Parameters that each stage has to train, independent of its config.
UND = r'(vit|connector|embed_tokens|lm_head)/.*|mot/(layers/und|und_norm)/.*'
GEN = r'(vae2llm|llm2vae|time_embedder)/.*|mot/(layers/gen|gen_norm)/.*'
TRAINED = {
  'autoencoder': r'autoencoder/.*',
  'stage1': UND,
  'stage2': GEN,
  'joint': f'{UND}|{GEN}',
}


needs_git = pytest.mark.skipif(
  not shutil.which('git'), reason='git is not installed'
)


def params(workdir, *, average=False):
  """The parameters of the newest checkpoint, flat."""
  directory = workdir / 'checkpoints'
  flat = flatten(saved_model.load_model(directory, use_ema=average)[1])
  return {name: np.asarray(leaf) for name, leaf in flat.items()}


def changed(before, after):
  assert before.keys() == after.keys()
  return {name for name in before if (before[name] != after[name]).any()}


def test_validation_sees_pairs_as_they_are(
  store_path, nano_preset, tmp_path, monkeypatch
):
  asked = []

  def train_dataset(store, split, *args, **options):
    changes = {
      'augment': options.get('augment', Augment()),
      'dropout': options.get('dropout', Dropout()),
      'route_weights': args[-1].route_weights,
    }
    asked.append((split, changes))
    if split == 'val':
      raise UserError('That is all.')
    return dataset(store, split, *args, **options)

  dataset = build.train_dataset
  monkeypatch.setattr(build, 'train_dataset', train_dataset)
  config = nano.config(
    'stage1', store_path, augment={'mirror': 0.5, 'noise': 0.1}
  )
  config.dropout.update(text=0.0, vae=0.0, vit=0.25)
  config.route_weights = (('brain.*', 2.0),)
  with pytest.raises(ConfigError, match=r'That is all\.'):
    nano.train(config, tmp_path / 'run')
  changes = {
    'augment': Augment(mirror=0.5, noise=0.1),
    'dropout': Dropout(vit=0.25),
    'route_weights': (('brain.*', 2.0),),
  }
  unchanged = {
    'augment': Augment(),
    'dropout': Dropout(),
    'route_weights': (),
  }
  assert asked == [('train', changes), ('val', unchanged)]


@pytest.mark.parametrize('stage', nano.STAGES)
def test_every_stage_trains_to_its_last_step(nano_runs, stage):
  workdir = nano_runs / stage
  steps = 4 if stage == 'joint' else 2
  rows = (workdir / 'metrics.jsonl').read_text().splitlines()
  last = json.loads(rows[-1])
  assert last['step'] == steps
  assert np.isfinite(last['loss'])
  assert np.isfinite(last['val/loss'])
  checkpoints, newest = saved_model.latest(workdir / 'checkpoints')
  checkpoints.close()
  assert newest == steps
  assert list((workdir / 'tensorboard').iterdir())


@pytest.mark.parametrize('stage', ['stage1', 'stage2', 'joint'])
def test_a_stage_trains_its_own_part_and_leaves_the_rest_to_the_bit(
  nano_runs, stage
):
  before = params(nano_runs / nano.STAGES[stage])
  changes = changed(before, params(nano_runs / stage))
  expected = {n for n in before if re.fullmatch(TRAINED[stage], n)}
  assert expected
  assert changes == expected


def test_only_trained_parameters_have_an_average(nano_runs):
  last = params(nano_runs / 'stage2')
  changes = changed(last, params(nano_runs / 'stage2', average=True))
  assert changes == {n for n in last if re.fullmatch(TRAINED['stage2'], n)}


def test_the_resolved_config_is_kept(nano_runs):
  record = json.loads((nano_runs / 'stage2' / 'config.json').read_text())
  config = record['config']
  assert config['stage'] == 'ucg'
  assert config['model'] == 'nano'
  assert config['init_from'] == str(nano_runs / 'stage1')
  assert config['capacity'] == {'und': 96, 'gen': 8, 'vit': 20, 'images': 2}
  assert config['trainable'][0] == ['autoencoder/.*', 0.0]


def test_the_commit_is_recorded_with_the_config(nano_runs):
  record = json.loads((nano_runs / 'stage2' / 'config.json').read_text())
  versions = record['versions']
  assert versions['python'] == '.'.join(map(str, sys.version_info[:3]))
  assert versions['jax'] == jax.__version__
  assert versions['numpy'] == np.__version__
  assert versions['optax'] == optax.__version__
  assert versions.keys() == {
    *('python', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint'),
    *('grain', 'tensorstore', 'numpy'),
  }
  assert all(versions.values())
  assert re.fullmatch(r'([0-9a-f]{40}(-dirty)?)?', record['commit'])


def test_rows_have_every_figure_of_health(nano_runs):
  """The row of joint training after a step with a validation."""
  text = (nano_runs / 'joint' / 'metrics.jsonl').read_text()
  row = json.loads(text.splitlines()[-1])
  tasks = {n.removeprefix('ntp/') for n in row if n.startswith('ntp/')}
  assert tasks
  assert tasks <= {'cts', 'mi', 'tia', 'synthesis'}
  measured = {'loss', 'flow', *(f'ntp/{task}' for task in tasks)}
  for task in tasks:
    measured |= {f'token_accuracy/{task}', f'answer_accuracy/{task}'}
  parts = {'und', 'gen', 'vit', 'connector', 'embed_tokens', 'lm_head'}
  parts |= {'vae2llm', 'llm2vae', 'time_embedder'}
  names = {n for n in row if not n.startswith('val/')}
  assert names == measured | {
    'step',
    'grad_norm',
    *(f'grad_norm/{part}' for part in parts),
    *('fill/und', 'fill/gen', 'tokens/und', 'tokens/gen', 'images'),
    *('skipped/loss', 'skipped/gradient', 'skipped/update'),
    'skipped_steps',
    *('steps_per_second', 'step_seconds/p50', 'step_seconds/p95'),
    *('data_wait', 'tokens_per_second', 'images_per_second'),
    *('memory/host_gib', 'learning_rate'),
  }
  validated = {n for n in row if n.startswith('val/')}
  assert {'val/loss', 'val/flow'} < validated
  assert any(name.startswith('val/token_accuracy/') for name in validated)
  assert not {n for n in validated if 'fill' in n or 'skipped' in n}


def git(folder, *arguments):
  values = {
    f'GIT_{who}_{what}': 'someone'
    for who in ('AUTHOR', 'COMMITTER')
    for what in ('NAME', 'EMAIL')
  }
  done = subprocess.run(
    ['git', *arguments],
    cwd=folder,
    env=os.environ | values,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip()


@pytest.fixture
def code(tmp_path, monkeypatch):
  """The code in a repository of its own, with a commit and a tag."""
  module = tmp_path / 'code' / 'commit.py'
  module.parent.mkdir()
  module.write_text('a = 1\n')
  git(module.parent, 'init', '-q')
  git(module.parent, 'add', 'commit.py')
  git(module.parent, 'commit', '-q', '-m', 'First')
  git(module.parent, 'tag', '-a', 'v1', '-m', 'v1')
  monkeypatch.setattr(core_commit, '__file__', str(module))
  return module


@needs_git
def test_the_commit_is_that_of_the_code(code):
  commit = git(code.parent, 'rev-parse', 'HEAD')
  assert len(commit) == 40
  assert core_commit.commit() == commit
  code.write_text('a = 2\n')
  assert core_commit.commit() == f'{commit}-dirty'


@needs_git
def test_code_that_is_in_no_repository_has_no_commit(
  tmp_path, monkeypatch, code
):
  shutil.rmtree(code.parent / '.git')
  monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path))
  assert core_commit.commit() == ''


@needs_git
def test_code_that_lies_in_another_repository_has_no_commit(code, monkeypatch):
  installed = code.parent / 'site-packages' / 'commit.py'
  installed.parent.mkdir()
  installed.write_text('a = 1\n')
  monkeypatch.setattr(core_commit, '__file__', str(installed))
  assert core_commit.commit() == ''


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  assert core_commit.commit() == ''


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

  monkeypatch.setattr(loop, 'make_train_step', step)
  nano.train(nano.stage_config('stage1', nano_runs), workdir)
  after = contents(workdir)
  # Written again, and the same.
  assert changed_files(before, after) <= {
    workdir / 'config.json',
    workdir / 'parameters.txt',
  }
  assert [b for _, b in before.values()] == [b for _, b in after.values()]


def changed_files(before, after):
  assert before.keys() == after.keys()
  return {path for path in before if before[path] != after[path]}


def test_a_stage_of_another_shape_is_no_starting_point(
  nano_runs, nano_preset, tmp_path
):
  config = nano.stage_config('stage2', nano_runs, model='tiny')
  with pytest.raises(ConfigError) as error:
    nano.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  assert str(error.value) == (
    f'config.init_from {nano_runs / "stage1"} holds a model of another shape '
    "than config.model 'tiny'."
  )


def test_compute_settings_do_not_change_a_models_shape(
  nano_runs, nano_preset, tmp_path
):
  config = nano.stage_config('stage2', nano_runs)
  config.compute.update(remat='full', attention='xla_blocks')
  run = build.build(config)
  assert run.model.compute.remat == 'full'
  assert run.model.compute.attention == 'xla_blocks'
  loop.train(run, tmp_path / 'run')
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
  config = nano.stage_config('stage1', nano_runs, steps=4, optimizer='muon')
  with pytest.raises(ckpt.CheckpointError) as error:
    nano.train(config, workdir)
  assert '\n' not in str(error.value)
  assert 'resume with the config it was begun with' in str(error.value)
  assert contents(workdir) == before


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """A workdir with checkpoints of all ones, twos and threes; twos are best."""
  workdir = tmp_path_factory.mktemp('measured')
  shapes = abstract_params(nano.MODEL)

  def filled(value):
    return jax.tree.map(
      lambda x: np.full(x.shape, value, x.dtype), nn.unbox(shapes)
    )

  data = BatchIterator({0: iter(grain.MapDataset.range(9).to_iter_dataset())})
  checkpoints = ckpt.manager(workdir / 'checkpoints', keep=3, best='val/loss')
  for step, loss in ((1, 0.5), (2, 0.25), (3, 0.75)):
    ckpt.save(
      checkpoints,
      step,
      params=filled(step),
      ema={},
      optimizer={'opt_state': np.zeros(1)},
      data=DataSave.of(data),
      model=nano.MODEL,
      metrics={'val/loss': loss},
    )
  ckpt.close(checkpoints)
  return workdir


@pytest.mark.parametrize(
  ('step', 'number'), [('newest', 3), ('best', 2), ('1', 1)]
)
@pytest.mark.parametrize('model', ['nano', 'init_from'])
def test_a_stage_starts_from_the_checkpoint_that_it_names(
  measured, nano_preset, store_path, tmp_path, monkeypatch, model, step, number
):
  values = {'init_from': str(measured), 'init_step': step, 'model': model}
  started = {}

  class Started(Exception):
    pass

  def create_state(model, *_, initial, **__):
    started.update(model=model, params=flatten(initial))
    raise Started

  monkeypatch.setattr(build, 'create_state', create_state)
  with pytest.raises(Started):
    nano.train(nano.config('stage1', store_path, **values), tmp_path / 'run')
  assert started['model'] == nano.BAGEL
  assert {float(x) for p in started['params'].values() for x in p.flat} == {
    number
  }


def test_a_missing_checkpoint_to_start_from_is_named(
  measured, nano_preset, store_path, tmp_path
):
  values = {'init_from': str(measured), 'init_step': '7'}
  with pytest.raises(ConfigError) as error:
    nano.train(nano.config('stage1', store_path, **values), tmp_path / 'run')
  assert str(error.value) == (
    f"config.init_from: {measured}/checkpoints: has no checkpoint '7'; there "
    'are newest, best and 1, 2, 3.'
  )
  assert not (tmp_path / 'run').exists()


@pytest.fixture
def utilisation(monkeypatch):
  """Utilisation of four chips at a step per second, and the counted rows."""
  calls = []

  def step_flops(model, tx, constants, state, batch, shares):
    calls.append((batch, shares))
    return {'attention': 2e12, 'other': 6e12}

  monkeypatch.setattr(build.flops, 'step_flops', step_flops)
  monkeypatch.setattr(build.flops, 'needed_shares', lambda rows: {'mot': 0.5})
  mesh = types.SimpleNamespace(devices=np.array(jax.devices()[:1]), size=4)
  # Two of the eight rows are on this process.
  rows = {'und': np.zeros((2, 96), np.int32), 'vit': np.zeros((2, 20, 64))}

  def find(chip):
    monkeypatch.setattr(build, 'chip_of', lambda device: chip)
    arguments = 8, nano.BAGEL, None, None, None, rows, mesh
    return build._step_utilisation(*arguments), calls

  return find


def test_a_steps_utilisation_by_hand(utilisation):
  # 8e12 operations, of 4 chips with 50e12 a second each.
  share, ((batch, shares),) = utilisation(Chip('c', 'C', 16, 50))
  assert share == pytest.approx(0.04)
  assert {name: x.shape for name, x in batch.items()} == {
    'und': (8, 96),
    'vit': (8, 20, 64),
  }
  assert shares == {'mot': 0.5}


def test_the_utilisation_of_a_chip_that_is_not_listed_is_not_known(utilisation):
  assert utilisation(None) == (0.0, [])
