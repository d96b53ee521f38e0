"""All commands on crops of real volumes, from files to a volume and a page."""

import json
from pathlib import Path

import nano
import nibabel
import numpy as np
import pytest
from commands import run

DATA = Path(__file__).parent / 'data'
SUBJECTS = (
  ('STS_035', 'sts', 'whole_body', 'train', ('ct', 'pet', 'mr')),
  ('STS_042', 'sts', 'whole_body', 'test', ('ct', 'pet', 'mr')),
  ('patient26', 'openms', 'brain', 'train', ('t1', 't1ce', 't2', 'flair')),
)


# Slices of 32 x 64 pixels, shown to the model at a quarter of that.
IMAGE = {'vit_size': (8, 16), 'vae_size': (8, 16)}


def write_table(path):
  lines = ['subject,dataset,region,split,modality,path']
  for subject, dataset, region, split, modalities in SUBJECTS:
    for modality in modalities:
      file = DATA / dataset / subject / f'{modality}.nii.gz'
      lines.append(f'{subject},{dataset},{region},{split},{modality},{file}')
  path.write_text('\n'.join(lines) + '\n')


@pytest.fixture
def trained(tmp_path, nano_preset, quick_compiles):
  """All three stages, two steps each, on a store of the crops."""
  write_table(tmp_path / 'table.csv')
  code, _, err = run(
    'prepare',
    '--dataset=csv',
    f'--root={tmp_path / "table.csv"}',
    '--reference=ct,t1',
    '--canvas=32x64',
    f'--store={tmp_path / "store"}',
    '--workers=1',
  )
  assert code == 0, err
  start = ''
  for stage in ('autoencoder', 'stage1', 'stage2'):
    workdir = tmp_path / stage
    config = nano.config(
      stage, tmp_path / 'store', init_from=start, val_every=0, image=IMAGE
    )
    nano.train(config, workdir)
    start = str(workdir)
  return workdir


def test_real_volumes_pass_every_stage(trained, tmp_path):
  done = run('evaluate', f'--workdir={trained}', '--slices=2', '--questions=8')
  assert done[0] == 0, done[2]
  metrics = json.loads((trained / 'evaluation' / 'metrics.json').read_text())
  assert metrics['subjects'] == ['sts.STS_042']
  routes = {'whole_body_pet_to_ct', 'whole_body_ct_to_pet'}
  assert routes <= set(metrics['synthesis'])
  for route in routes:
    score = metrics['synthesis'][route]
    assert score['count'] == 1
    assert np.isfinite([score['ssim'], score['psnr'], score['mae']]).all()
  assert metrics['understanding']['tia']['count'] == 8

  source = DATA / 'sts' / 'STS_042' / 'pet.nii.gz'
  output = tmp_path / 'ct.nii.gz'
  done = run(
    'predict',
    f'--workdir={trained}',
    f'--input={source}',
    '--source=pet',
    '--target=ct',
    '--region=whole_body',
    f'--output={output}',
  )
  assert done[0] == 0, done[2]
  written, given = nibabel.load(output), nibabel.load(source)
  assert written.shape == given.shape
  np.testing.assert_allclose(written.affine, given.affine, atol=1e-4)
  values = written.get_fdata()
  assert -1024 <= values.min() < values.max() <= 3000

  done = run('report', f'--workdir={trained}')
  assert done[0] == 0, done[2]
  assert 'whole_body_pet_to_ct' in done[1]
  assert (trained / 'report' / 'index.html').stat().st_size > 10_000
