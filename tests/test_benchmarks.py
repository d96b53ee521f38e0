"""The benchmarks run, at sizes whose figures mean nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synermedgen_jax.scenes import styles
from synermedgen_jax.slices.store import SliceStore

ROOT = Path(__file__).parents[1]


def table(script, *options):
  """The lines that a benchmark prints."""
  done = subprocess.run(
    [sys.executable, '-m', f'benchmarks.{script}', *options],
    cwd=ROOT,
    env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


@pytest.mark.slow
def test_a_step_of_every_stage_is_timed():
  lines = table('train_step', '--model=tiny', '--steps=1', '--rows=4')
  stages = ('autoencoder', 'stage1', 'stage2', 'joint')
  for line, stage in zip(lines[-4:], stages, strict=True):
    name, *numbers = line.replace('%', '').split()
    assert name == stage
    assert all(float(number.replace(',', '')) >= 0 for number in numbers)


@pytest.mark.slow
def test_records_of_a_step_and_of_sampling(tmp_path):
  path = tmp_path / 'records.jsonl'
  table(
    'train_step',
    '--model=tiny',
    '--stages=stage2',
    '--steps=1',
    '--rows=2',
    '--latents=given',
    '--remat=dots',
    '--peak=1',
    f'--output={path}',
  )
  table('sampling', '--points=2', '--batch=2', f'--output={path}')
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
def test_attention_is_timed_at_every_length():
  lines = table(
    'attention', '--lengths=128,256', '--heads=2,1', '--dim=16', '--repeats=1'
  )
  text = '\n'.join(lines)
  assert re.search(r'\b128\b', text)
  assert re.search(r'\b256\b', text)


@pytest.mark.slow
def test_saves_are_timed():
  lines = table('checkpointing', '--saves=1', '--steps=0')
  assert any(re.search(r'\d %|\d%', line) for line in lines)


@pytest.mark.slow
def test_every_modality_starts_as_a_style_of_its_own(store_path):
  heading, *rows = table(
    'first_looks', f'--store={store_path}', '--questions=1'
  )
  assert heading.split()[:-2] == list(styles.NAMES)
  shown = SliceStore.open(store_path).split('train')
  labels = {m.label for case in shown for m in case.modalities}
  assert {row.partition('  ')[0] for row in rows} == labels
  starts = [row.split()[-1] for row in rows]
  assert set(starts) <= set(styles.NAMES)
  assert len(set(starts)) == len(starts)


@pytest.mark.slow
def test_drawings_lie_below_what_the_autoencoder_can_show():
  heading, *rows = table('base_drawings', '--pictures=2')
  assert heading.split() == ['task', 'drawn', 'source', 'ceiling']
  assert [row.split()[0] for row in rows] == ['copy', 'redraw']
  drawn, source, ceiling = map(float, rows[0].split()[1:])
  assert source == 1  # a copy's source is its target
  assert 0 < drawn < ceiling < 1
