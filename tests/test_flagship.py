"""docs/train_bagel.md, followed: from BAGEL's files to BAGEL's files.

The commands are those of the page. The tiny model stands in for the 7B: paths
and sizes differ, nothing else.
"""

import json
import shutil

import bagel_files
import commands
import doc_commands
import nibabel as nib
import numpy as np
import pytest
from doc_pages import ROOT
from safetensors.numpy import load_file
from store_fakes import CANVAS

from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.input.tokenizer import project_tokenizer

PAGE = ROOT / 'docs' / 'train_bagel.md'
# A slice is 4 x 4 ViT tokens and 2 x 2 latent tokens.
STAGE1 = (
  f'--config.image.vit_size={CANVAS},{CANVAS}',
  f'--config.image.vae_size={CANVAS},{CANVAS}',
  '--config.capacity.und=320',
  '--config.capacity.vit=96',
  '--config.packing_bins=2',
  '--config.steps=2',
  '--config.warmup=1',
  '--config.log_every=1',
  '--config.val_batches=1',
)
FEW = ('--slices=1', '--questions=2', '--routes=brain_mr_to_ct')
SIZES = {
  'stage1': STAGE1,
  'stage2': (*STAGE1, '--config.capacity.gen=16', '--config.capacity.images=4'),
  'evaluate': ('--points=3', *FEW),
  'predict': ('--points=2',),
}


def done(command, *flags):
  code, out, err = commands.run(command, *flags)
  assert code == 0, err
  return out


def on_one_machine(command):
  """Slurm's and the TPU's are the same train command in other hands."""
  return command.words[0] != 'sbatch' and 'tpu_pod' not in command.script


def with_paths(word, paths):
  """A word of the page with the paths of this test in it."""
  flag, equals, value = word.partition('=')
  first, slash, rest = value.partition('/')
  if flag == '--config':
    return f'{flag}={ROOT}/{value}:init_from'
  return f'{flag}{equals}{paths.get(first, first)}{slash}{rest}'


@pytest.fixture(scope='module')
def runs(tmp_path_factory, store_path, quick_compiles):
  """RUN of the page, less the files that a later command must not need."""
  run = tmp_path_factory.mktemp('bagel')
  data = np.linspace(0, 900, CANVAS**2 * 2).reshape(CANVAS, CANVAS, 2)
  nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), run / 'mr.nii')
  paths = {
    'BAGEL-7B-MoT': bagel_files.with_tokenizer(run / 'BAGEL'),
    'STORE': store_path,
    'RUN': run,
    'EXPORT': run / 'export',
    'mr.nii.gz': run / 'mr.nii',
    'ct.nii.gz': run / 'ct.nii.gz',
  }
  page = doc_commands.commands(PAGE.read_text(), PAGE.name)
  followed = []
  for command in filter(on_one_machine, page):
    assert command.block, f'{command}: to be run, so in a code block'
    name = command.module.rpartition('.')[2]
    arguments = [with_paths(word, paths) for word in command.arguments]
    stage = command.value('workdir').rpartition('/')[2]
    sizes = SIZES.get(stage if name == 'main' else name, ())
    # The file of the config comes first; the page's own flags come last.
    printed = done(name, arguments[0], *sizes, *arguments[1:])
    followed.append(stage if name == 'main' else name)
    if followed[-1] == 'stage1':
      (run / 'stage1.txt').write_text(printed)
      shutil.rmtree(run / 'BAGEL')
      (run / 'bagel').rename(run / 'away')  # Stage II does without
    if followed[-1] == 'stage2':
      (run / 'away').rename(run / 'bagel')  # the report reads its record
  assert followed == [
    *('import_bagel', 'import_bagel', 'stage1', 'stage2'),
    *('evaluate', 'predict', 'report', 'evaluate', 'export_bagel'),
  ]
  return run


def test_a_run_prints_the_origin_of_its_parts(runs):
  head, *lines, last = (runs / 'stage1.txt').read_text().splitlines()
  assert last == f'{runs}/stage1'
  assert head.startswith('Stage gau on 1 cpu device(s): ')
  origins = dict(line.split(None, 1) for line in lines)
  assert origins['model'] == 'init_from, experts mot, generation flow'
  assert origins['weights'] == f'{runs}/bagel, newest'
  assert origins['tokenizer'].startswith(f'{runs}/bagel/tokenizer, ')
  assert origins['recipe'].startswith(
    'adamw, learning rate 2e-05 (constant after'
  )
  assert origins['batch'].startswith('1 rows of 320 tokens; images 16 (ViT)')
  assert origins['attention'] == 'xla (language model), xla (ViT)'


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


def metrics_of(run):
  path = run / 'stage2' / 'evaluation' / 'metrics.json'
  return json.loads(path.read_text())


def test_evaluation_uses_the_sampling_of_the_page(runs):
  metrics = metrics_of(runs)
  assert metrics['sampling']['points'] == 10
  assert metrics['sampling']['shift'] == 3.0
  assert metrics['sampling']['guidance']['text'] == 1.0
  assert metrics['sampling']['guidance']['image'] == 1.0
  assert np.isfinite(metrics['synthesis']['brain_mr_to_ct']['ssim'])


def test_every_setting_of_sampling_can_be_asked_for(runs):
  done(
    'evaluate',
    f'--workdir={runs}/stage2',
    '--parts=synthesis',
    *(flag for flag in FEW if 'questions' not in flag),
    '--points=3',
    '--shift=2',
    '--text_scale=1.5',
    '--interval=0.2,0.9',
    '--renorm=channel',
    '--withheld=vit',
  )
  assert metrics_of(runs)['sampling'] == {
    'points': 3,
    'shift': 2.0,
    'guidance': {
      'text': 1.5,
      'image': 2.0,  # BAGEL's, which no flag changed
      'interval': [0.2, 0.9],
      'renorm': 'channel',
      'renorm_min': 0.0,
    },
    'describe_tokens': 0,
    'slab': 1,
    'draws': 1,
    'grain': 1.0,
    'withheld': ['vit'],
  }


def test_a_volume_is_translated(runs):
  values = nib.load(runs / 'ct.nii.gz').get_fdata()
  assert values.shape == (CANVAS, CANVAS, 2)
  assert np.isfinite(values).all()


def test_the_run_is_reported(runs):
  page = (runs / 'stage2' / 'report' / 'index.html').read_text()
  assert 'brain_mr_to_ct' in page


def test_the_run_is_exported_with_its_tokenizer(runs, tmp_path):
  out = runs / 'export'
  keys = load_file(bagel_files.TINY / 'ema.safetensors').keys()
  assert load_file(out / 'ema.safetensors').keys() == keys
  assert (out / 'tokenizer.json').is_file()
  done('import_bagel', f'--source={out}', f'--output={tmp_path}/again')
