"""The benchmarks run, and their figures are consistent.

The sizes are so small that the figures themselves mean nothing.
"""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import ROOT, printed
from scipy import ndimage

from benchmarks import gpu_tables

PATH = os.environ['PATH']


@pytest.mark.parametrize(
  'path', sorted((ROOT / 'benchmarks').rglob('*.py')), ids=lambda p: p.stem
)
def test_what_a_benchmark_imports_exists(path):
  """Without running it: its flags would stay defined in this process."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module.startswith('synermed'):
      module = importlib.import_module(node.module)
      for name in (alias.name for alias in node.names):
        if not hasattr(module, name):
          importlib.import_module(f'{node.module}.{name}')


def test_alterations_of_aligned_pairs_are_counted(tmp_path):
  rng = np.random.default_rng(0)
  ct = np.pad(rng.uniform(-200, 900, (14, 12, 10)), 5, constant_values=-1000)
  ct = ndimage.gaussian_filter(ct, 1)
  for name, data in (('ct', ct), ('mr', np.maximum(ct + 900, 0))):
    image = nib.Nifti1Image(data.astype(np.float32), np.diag([4, 4, 4, 1]))
    nib.save(image, tmp_path / f'{name}.nii')
  (tmp_path / 'table.csv').write_text(
    'subject,modality,path\np,ct,ct.nii\np,mr,mr.nii\n'
  )
  lines = printed(
    'benchmarks.alignment', f'--root={tmp_path}/table.csv', '--mm=24'
  )
  assert 'as it is          0 of    1' in lines
  assert 'moved 24 mm       3 of    3' in lines
  assert lines[-2].startswith('altered: ')
  assert lines[-2].endswith(' of 12 reported')
  assert float(lines[-1].split()[0]) > 0


@pytest.mark.slow
def test_a_step_of_every_stage_is_timed():
  lines = printed(
    'benchmarks.train_step', '--model=tiny', '--steps=1', '--rows=4'
  )
  (product,) = re.findall(r'reaches ([\d,]+) GFLOP/s', lines[0])
  product = float(product.replace(',', ''))
  stages = ('autoencoder', 'stage1', 'stage2', 'joint')
  for line, stage in zip(lines[-4:], stages, strict=True):
    name, *numbers = line.replace('%', '').replace(',', '').split()
    compiling, step_ms, tokens, gflop, rate, share = map(float, numbers)
    assert name == stage
    assert compiling > 0
    assert tokens > 0
    assert rate == pytest.approx(1e3 * gflop / step_ms, rel=0.1, abs=0.1)
    assert share == pytest.approx(100 * rate / product, rel=0.1, abs=1)


@pytest.mark.slow
def test_records_of_a_step_and_of_sampling(tmp_path):
  path = tmp_path / 'records.jsonl'
  printed(
    'benchmarks.train_step',
    '--model=tiny',
    '--stages=stage2',
    '--steps=1',
    '--rows=2',
    '--latents=given',
    '--remat=dots',
    '--peak=1',
    f'--output={path}',
  )
  printed('benchmarks.sampling', '--points=2', '--batch=2', f'--output={path}')
  step, sampled = map(json.loads, path.read_text().splitlines())
  assert step['latents'] == 'given'
  assert step['shapes']['rows'] == 2
  assert 0 < step['mfu'] < 1
  assert sampled['shapes'] == {
    'batch': 2,
    'points': 2,
    'contexts': 3,
    'target_tokens': 64,
  }
  for record in (step, sampled):
    assert record['seconds'] > 0
    assert record['tokens_per_second'] > 0
    assert record['peak_gb'] > 0


@pytest.mark.slow
def test_attention_is_timed_and_compared_at_every_length(tmp_path):
  output = tmp_path / 'attention.jsonl'
  printed(
    'benchmarks.attention',
    '--lengths=128,256',
    '--heads=2,1',
    '--dim=16',
    '--dtype=float32',
    '--repeats=1',
    '--errors',
    f'--output={output}',
  )
  records = [json.loads(line) for line in output.read_text().splitlines()]
  timed = [(r['shapes']['tokens'], r['implementation']) for r in records]
  names = list(dict.fromkeys(name for _, name in timed))
  assert names[0] == 'xla'
  assert timed == [(length, name) for length in (128, 256) for name in names]
  for record in records:
    assert 'error' not in record
    assert record['forward_seconds'] > 0
    assert record['seconds'] > 0
    # The output and the gradients of query, key and value.
    assert len(record['errors']) == 4
    assert max(record['errors']) < 1e-5
  assert records[0]['visible_pairs'] < records[-1]['visible_pairs']
  assert records[0]['to_dense'] == 1


@pytest.mark.slow
def test_attention_without_the_dense_one_has_no_ratio_to_it(tmp_path):
  output = tmp_path / 'attention.jsonl'
  printed(
    'benchmarks.attention',
    '--lengths=128',
    '--only=xla_blocks',
    f'--output={output}',
  )
  (record,) = map(json.loads, output.read_text().splitlines())
  assert record['implementation'] == 'xla_blocks'
  assert record['seconds'] > 0
  assert 'to_dense' not in record


@pytest.mark.slow
def test_saves_and_the_idle_loop_are_timed():
  save, loop = printed('benchmarks.checkpointing', '--saves=1', '--steps=100')
  numbers = re.fullmatch(
    r'a save of ([\d.]+) MB: (\d+) ms, of which the loop is blocked (\d+) ms, '
    r'([\d.]+)%',
    save,
  ).groups()
  size, taken, blocked, share = map(float, numbers)
  # 1.5 M parameters of `tiny` in float32, and moments of those that train.
  assert 6 < size < 18
  assert 0 < blocked <= taken
  assert share == pytest.approx(100 * blocked / taken, abs=2)
  (idle,) = re.findall(r'^the loop around an idle step: ([\d.]+) ms', loop)
  assert float(idle) > 0


@pytest.mark.slow
def test_memory_of_volumes_is_measured():
  head, _, *rows = printed(
    'benchmarks.volume_memory',
    '--canvas=64',
    '--detail=0',
    '--slices=4,8',
    '--batch_size=6',
  )
  assert head.split()[1] == 'slices'
  cells = [[c.strip() for c in row.split('|')[1:-1]] for row in rows]
  run = [['4', '3'], ['8', '3'], ['4', '1'], ['8', '1']]
  assert [row[:2] for row in cells] == run
  # Two volumes of 64 x 64 float32 are 1/32 MiB a slice.
  assert [row[4] for row in cells] == ['0.1', '0.2'] * 2
  assert [bool(row[5]) for row in cells] == [False, True] * 2
  for row in cells:
    peak, seconds = (float(row[i].replace(',', '')) for i in (2, 6))
    assert 100 < peak < 10_000
    assert seconds > 0


@pytest.mark.slow
def test_the_gpu_check_in_small_on_a_cpu(tmp_path):
  """As on a GPU, with tiny shapes; PyTorch's parts where it is installed."""
  done = subprocess.run(
    ['bash', 'launch/gpu_check.sh', '--small', f'--output={tmp_path}'],
    cwd=ROOT,
    env={**os.environ, 'PATH': f'{Path(sys.executable).parent}:{PATH}'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  records = json.loads((tmp_path / 'cpu.json').read_text())
  ours = [r['benchmark'] for r in records if 'jax' in r]
  assert ours == ['peak', 'step', 'sampling', 'step']
  assert {r['benchmark'] for r in records} == {*ours, 'attention'}
  assert len(records[-1]['profile']) > 5
  for title in (
    'Attention, forward',
    'Training step',
    'Sampling',
    'Operations',
  ):
    assert title in done.stdout


@pytest.mark.slow
def test_both_sides_of_a_comparison_run_in_turn(tmp_path):
  pytest.importorskip('torch')
  output = tmp_path / 'runs.jsonl'
  lines = printed(
    'benchmarks.against_torch',
    '--cases=tiny/stage2',
    '--rounds=2',
    '--steps=1',
    f'--output={output}',
  )
  runs = [json.loads(line) for line in output.read_text().splitlines()]
  assert [r['implementation'] for r in runs] == ['jax', 'torch'] * 2
  assert runs[0]['shapes']['tokens'] == runs[1]['shapes']['tokens']
  name, ours, theirs, faster, *_ = lines[-1].split()
  assert name == 'tiny/stage2'
  assert min(map(float, (ours, theirs, faster.rstrip('x')))) > 0


def test_tables_compare_with_the_faster_of_the_rivals():
  shapes = {'tokens': 4096}
  common = {'benchmark': 'attention', 'shapes': shapes}
  flex = {**common, 'torch': '2.11', 'implementation': 'torch_flex'}
  table = gpu_tables.attention(
    [
      {**common, 'implementation': 'pallas', 'seconds': 0.002, 'tflops': 400},
      {**flex, 'seconds': 0.004, 'errors': [1e-3]},
      {**flex, 'seconds': 0.003},
      {**common, 'implementation': 'cudnn', 'error': 'ValueError: no mask'},
    ]
  )
  head, _, *rows = [line.split('|')[1:-1] for line in table.splitlines()]
  cells = [[cell.strip() for cell in row] for row in rows]
  assert [c.strip() for c in head][5] == 'x torch'
  assert cells[0][:6] == ['4,096', 'pallas', '', '2.000', '400.0', '1.50']
  assert [row[5] for row in cells[1:]] == ['', '', '']
  assert cells[3][7] == 'ValueError: no mask'
  assert len({len(line) for line in table.splitlines()}) == 1


def test_steps_are_compared_with_the_rival_without_recomputation():
  ours = {
    'benchmark': 'step',
    'model': 'base_1b',
    'stage': 'stage1',
    'implementation': 'jax',
    'remat': 'dots',
    'seconds': 0.2,
    'tokens_per_second': 40_000.0,
    'mfu': 0.5,
    'peak_gb': 60.0,
  }
  rival = {**ours, 'torch': '2.11', 'implementation': 'torch'}
  rival |= {'remat': 'none', 'seconds': 0.3}
  rival.pop('mfu')
  slow = {**rival, 'remat': 'full', 'seconds': 9.0}
  rows = gpu_tables.steps([ours, slow, rival]).splitlines()[2:]
  cells = [[cell.strip() for cell in row.split('|')[1:-1]] for row in rows]
  assert cells[0][2:] == [
    'jax',
    'dots',
    '200.0',
    '40,000',
    '50.0',
    '60.0',
    '1.50',
  ]
  assert cells[1][-1] == cells[2][-1] == ''
