"""The benchmarks run, at sizes whose figures mean nothing."""

import json
import re

import pytest
from commands import printed


@pytest.mark.slow
def test_a_step_of_every_stage_is_timed():
  lines = printed(
    'benchmarks.train_step', '--model=tiny', '--steps=1', '--rows=4'
  )
  stages = ('autoencoder', 'stage1', 'stage2', 'joint')
  for line, stage in zip(lines[-4:], stages, strict=True):
    name, *numbers = line.replace('%', '').split()
    assert name == stage
    assert all(float(number.replace(',', '')) >= 0 for number in numbers)


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
def test_attention_is_timed_at_every_length():
  lines = printed(
    'benchmarks.attention',
    '--lengths=128,256',
    '--heads=2,1',
    '--dim=16',
    '--repeats=1',
  )
  text = '\n'.join(lines)
  assert re.search(r'\b128\b', text)
  assert re.search(r'\b256\b', text)


@pytest.mark.slow
def test_saves_are_timed():
  lines = printed('benchmarks.checkpointing', '--saves=1', '--steps=0')
  assert any(re.search(r'\d %|\d%', line) for line in lines)
