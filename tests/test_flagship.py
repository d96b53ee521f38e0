"""From BAGEL's files to BAGEL's files, by the commands that a user types.

The tiny model stands in for the 7B: paths and sizes differ, nothing else.
"""

import json
import shutil

import bagel_files
import commands
import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load_file
from store_fakes import CANVAS

from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.input.tokenizer import project_tokenizer

ROOT = commands.ROOT
# A slice is 4 x 4 ViT tokens and 2 x 2 latent tokens.
SIZES = (
  f'--config.image.vit_side={CANVAS}',
  f'--config.image.vae_side={CANVAS}',
  '--config.capacity.und=320',
  '--config.capacity.vit=96',
  '--config.packing_bins=2',
  '--config.steps=2',
  '--config.warmup=1',
  '--config.log_every=1',
  '--config.val_batches=1',
)
STAGE2 = ('--config.capacity.gen=16', '--config.capacity.images=4')


def done(command, *flags):
  code, out, err = commands.run(command, *flags)
  assert code == 0, err
  return out


@pytest.fixture(scope='module')
def runs(tmp_path_factory, store_path, quick_compiles):
  """RUN with stage1 and stage2; what they started from is gone."""
  run = tmp_path_factory.mktemp('bagel')
  source = bagel_files.with_tokenizer(run / 'BAGEL')
  done('import_bagel', f'--source={source}', f'--output={run}/bagel')
  shutil.rmtree(source)
  told = done(
    'main',
    f'--config={ROOT}/configs/stage1.py:init_from',
    f'--config.init_from={run}/bagel',
    f'--config.store={store_path}',
    f'--workdir={run}/stage1',
    *SIZES,
  )
  (run / 'stage1.txt').write_text(told)
  shutil.rmtree(run / 'bagel')
  done(
    'main',
    f'--config={ROOT}/configs/stage2.py:init_from',
    f'--config.init_from={run}/stage1',
    f'--config.store={store_path}',
    f'--workdir={run}/stage2',
    *SIZES,
    *STAGE2,
  )
  shutil.rmtree(run / 'stage1')
  return run


def test_a_run_says_where_everything_comes_from(runs):
  head, *lines = (runs / 'stage1.txt').read_text().splitlines()
  assert head.startswith('Stage gau on 1 cpu device(s): ')
  told = dict(line.split(None, 1) for line in lines)
  assert told['model'] == 'init_from'
  assert told['weights'] == f'{runs}/bagel, newest'
  assert told['tokenizer'].startswith(f'{runs}/bagel/tokenizer, ')
  assert told['recipe'].startswith('adamw, learning rate 2e-05 (constant after')
  assert told['batch'].startswith('1 rows of 320 tokens; images 16 (ViT)')
  assert told['attention'] == 'xla (language model), xla (ViT)'


def test_every_run_has_the_tokenizer_with_it(runs):
  trained = Trained.load(runs / 'stage2')
  assert trained.tokenizer.fingerprint == project_tokenizer().fingerprint
  assert trained.config['tokenizer'] == f'{runs}/stage1/tokenizer'
  assert (runs / 'stage2' / 'tokenizer' / 'tokenizer.json').is_file()


def test_the_recipe_is_bagels(runs):
  record = json.loads((runs / 'stage2' / 'config.json').read_text())
  config = record['config']
  assert (config['optimizer'], config['learning_rate']) == ('adamw', 2e-5)
  assert (config['eps'], config['ema'], config['decay']) == (
    1e-15,
    0.9999,
    'constant',
  )
  assert config['dropout'] == {'text': 0.1, 'vae': 0.3, 'vit': 0.3}
  assert config['sampling']['points'] == 50
  assert (config['rows'], config['streams']) == (1, 1)


def test_it_is_evaluated_with_the_sampling_that_is_asked_for(runs):
  done(
    'evaluate',
    f'--workdir={runs}/stage2',
    '--slices=1',
    '--questions=2',
    '--routes=brain_mr_to_ct',
    '--points=3',
    '--shift=2',
    '--text_scale=1.5',
    '--interval=0.2,0.9',
    '--renorm=channel',
  )
  path = runs / 'stage2' / 'evaluation' / 'metrics.json'
  metrics = json.loads(path.read_text())
  assert metrics['sampling'] == {
    'points': 3,
    'shift': 2.0,
    'guidance': {
      'text': 1.5,
      'image': 2.0,  # BAGEL's, which no flag changed
      'interval': [0.2, 0.9],
      'renorm': 'channel',
      'renorm_min': 0.0,
    },
  }
  assert np.isfinite(metrics['synthesis']['brain_mr_to_ct']['ssim'])


def test_it_translates_a_volume(runs, tmp_path):
  data = np.linspace(0, 900, CANVAS**2 * 2).reshape(CANVAS, CANVAS, 2)
  nib.save(
    nib.Nifti1Image(data.astype(np.float32), np.eye(4)), tmp_path / 'mr.nii.gz'
  )
  done(
    'translate',
    f'--workdir={runs}/stage2',
    f'--input={tmp_path}/mr.nii.gz',
    '--source=mr',
    '--target=ct',
    '--region=brain',
    f'--output={tmp_path}/ct.nii.gz',
    '--points=2',
    '--text_scale=1',
    '--image_scale=1',
  )
  found = nib.load(tmp_path / 'ct.nii.gz').get_fdata()
  assert found.shape == data.shape
  assert np.isfinite(found).all()


def test_it_is_exported_with_its_tokenizer(runs, tmp_path):
  out = tmp_path / 'export'
  done('export_bagel', f'--checkpoint={runs}/stage2', f'--output={out}')
  keys = load_file(bagel_files.TINY / 'ema.safetensors').keys()
  assert load_file(out / 'ema.safetensors').keys() == keys
  assert (out / 'tokenizer.json').is_file()
  done('import_bagel', f'--source={out}', f'--output={tmp_path}/again')
