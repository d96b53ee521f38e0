"""The arena on the nano store, with systems of two steps."""

import json

import pytest
from commands import run

from synermedgen_jax.planning.arena import Budget, trainings
from synermedgen_jax.slices.store import SliceStore

CONFIG = """
from synermedgen_jax.config.defaults import system_config

def get_config(model='small'):
  config = system_config()
  config.stage = '{stage}'
  config.model = model
  config.scope = 'all'
  config.size = (32, 32)
  config.rows = 2
  config.learning_rate = 1e-3
  config.val_every = 0
  return config
"""


@pytest.fixture
def configs(tmp_path):
  folder = tmp_path / 'configs'
  folder.mkdir()
  for stage in ('unet', 'pix2pix'):
    (folder / f'{stage}.py').write_text(CONFIG.format(stage=stage))
  return folder


@pytest.mark.slow
def test_systems_are_trained_once_and_ranked(tmp_path, store_path, configs):
  command = (
    'arena',
    f'--store={store_path}',
    f'--run={tmp_path / "arena"}',
    f'--configs={configs}',
    '--systems=unet:2,pix2pix',
    '--budget=images:5,images:2',
    '--slices=2',
  )
  code, _, err = run(*command)
  assert code == 0, err
  folder = tmp_path / 'arena' / 'images-5'
  record = json.loads((folder / 'arena.json').read_text())
  assert record['settings']['budget'] == 'images:5'
  systems = record['systems']
  assert set(systems) == {'unet', 'pix2pix', 'copy_source', 'mean_target'}
  facts = systems['pix2pix']['facts']
  assert (facts['images'], facts['scope'], facts['paired']) == (4, 'all', True)
  # The critic is trained and not used.
  assert facts['trained'] > facts['used'] > 0
  assert systems['unet']['facts']['trained'] == systems['unet']['facts']['used']
  assert facts['operations'] > 0
  assert set(systems['unet']['seeds']) == {'0', '1'}
  page = (folder / 'arena.md').read_text()
  assert '| pix2pix |' in page
  assert 'all networks are updated at once' in page
  html = (folder / 'arena.html').read_text()
  assert html.count('<img') == len(systems['unet']['routes'])
  other = json.loads((tmp_path / 'arena/images-2/arena.json').read_text())
  assert other['systems']['pix2pix']['facts']['images'] == 2

  trained = sorted((tmp_path / 'arena').rglob('metrics.jsonl'))
  assert len(trained) == 6
  times = [path.stat().st_mtime_ns for path in trained]
  code, again, err = run(*command)
  assert code == 0, err
  assert [path.stat().st_mtime_ns for path in trained] == times
  assert '| pix2pix |' in again

  # The results of a run that was evaluated before its end are not taken.
  path = folder / '0' / 'unet' / 'evaluation' / 'subjects.json'
  early = json.loads(path.read_text())
  assert early['settings']['steps'] == [2]
  early['settings']['steps'] = [1]
  path.write_text(json.dumps(early))
  code, _, err = run(*command)
  assert code == 0, err
  assert json.loads(path.read_text())['settings']['steps'] == [2]


@pytest.fixture
def arena(tmp_path, store_path, configs):
  """Calls the arena for the U-Net; and the files of its one, untrained run."""
  workdir = tmp_path / 'arena' / 'images-8' / '0' / 'unet'
  (training,) = trainings(
    'unet',
    SliceStore.open(store_path),
    workdir,
    Budget.parse('images:8'),
    stages=tmp_path / 'stages',
    seed=0,
    configs=str(configs),
  )

  def call(*flags):
    return run(
      'arena',
      f'--store={store_path}',
      f'--run={tmp_path / "arena"}',
      f'--configs={configs}',
      '--systems=unet',
      '--budget=images:8',
      *flags,
    )

  def trained(changes, **record):
    """Writes what a finished run of another config would have."""
    config = json.loads(json.dumps(training.resolved)) | changes
    (workdir / 'checkpoints' / '4').mkdir(parents=True)
    (workdir / 'config.json').write_text(
      json.dumps({'config': config, **record})
    )

  return call, trained


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'steps': 7}, 'was trained with steps 7, which is 4 now; name another'),
    ({'model': 'small_l2'}, "with model 'small_l2', which is 'small' now"),
    ({'learning_rate': 0.5}, 'with learning_rate 0.5, which is 0.001 now'),
    (
      {'augment': {'mirror': 0.5, 'warp': 0.0}},
      'with augment.mirror 0.5, which is 0.0 now',
    ),
  ],
)
def test_a_run_of_another_config_is_not_taken(arena, changes, message):
  call, trained = arena
  trained(changes)
  code, _, err = call()
  assert code
  assert message in err


def test_a_run_on_other_slices_is_not_taken(arena, store_path):
  call, trained = arena
  trained({}, store_fingerprint='0123')
  code, _, err = call()
  assert code
  assert f'unet: was trained on other slices than {store_path} has now' in err


def test_a_damaged_config_is_named(arena, tmp_path):
  call, trained = arena
  trained({})
  path = tmp_path / 'arena/images-8/0/unet/config.json'
  path.write_text('{"config": {')
  code, _, err = call()
  assert code
  assert f'{path}: is not the config of a run' in err


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--budget=hours:3', "--budget='hours:3': expected images:NUMBER"),
    ('--budget=', '--budget: is empty; name one'),
    ('--systems=gan', '--systems: unknown gan; expected some of synermedgen'),
    ('--budget=images:1', 'needs 2 images for its first step, and 1 are left'),
    ('--split=tset', '--split'),
  ],
)
def test_a_wrong_flag_is_named(tmp_path, store_path, configs, flag, message):
  code, _, err = run(
    'arena',
    f'--store={store_path}',
    f'--run={tmp_path / "arena"}',
    f'--configs={configs}',
    '--systems=unet',
    flag,
  )
  assert code
  assert message in err


def test_announcing_trains_nothing(tmp_path, store_path, configs):
  code, out, err = run(
    'arena',
    f'--store={store_path}',
    f'--run={tmp_path / "arena"}',
    f'--configs={configs}',
    '--systems=unet,pix2pix',
    '--budget=images:20',
    '--announce',
  )
  assert code == 0, err
  head, unet, *_ = out.splitlines()
  assert head.split() == [
    *('system', 'folder', 'runs', 'steps', 'pairs', 'TFLOP', 'hours')
  ]
  assert unet.split()[2:5] == ['1', '10', '20']
  assert not (tmp_path / 'arena').exists()
