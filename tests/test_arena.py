"""The arena on the nano store, with systems of two steps."""

import json

import pytest
from commands import run

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


@pytest.mark.parametrize(
  ('whole', 'message'),
  [
    (True, 'was trained with steps 7, which is 4 now; name another --run'),
    (False, 'config.json: cannot be read as the config of a run; delete '),
  ],
)
def test_a_run_of_another_budget_is_not_trained_on(
  tmp_path, store_path, configs, whole, message
):
  workdir = tmp_path / 'arena' / 'images-8' / '0' / 'unet'
  workdir.mkdir(parents=True)
  trained = {'store': str(store_path), 'seed': 0, 'steps': 7}
  text = json.dumps({'config': trained})
  (workdir / 'config.json').write_text(text if whole else text[:20])
  code, _, err = run(
    'arena',
    f'--store={store_path}',
    f'--run={tmp_path / "arena"}',
    f'--configs={configs}',
    '--systems=unet',
    '--budget=images:8',
  )
  assert code
  assert message in err


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--budget=hours:3', "--budget='hours:3': expected images:NUMBER"),
    ('--budget=', '--budget: is empty; name one'),
    ('--systems=gan', '--systems: unknown gan; expected some of synermedgen'),
    ('--budget=images:1', 'needs 2 images for its first step, and 1 are left'),
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
