"""A run with a record, and an evaluation written by hand."""

import functools
import json

import nano

from synermedgen_jax.checkpoint import model as saved_model

DEFINITION = {
  'range': 'clipped to the window',
  'mask': 'the body mask',
  'full_frame': 'all voxels',
  'dimension': '2-D, one map per slice',
  'unit': '1; higher is better',
}


@functools.cache
def _params():
  return nano.initial_params()


def write_run(workdir, store, monkeypatch, **values):
  """A workdir at step 7 that was trained on a store; its record.

  The parameters are random and read from no checkpoint.
  """
  params = _params()
  monkeypatch.setattr(saved_model, 'newest_step', lambda _: 7)
  monkeypatch.setattr(
    saved_model, 'load_model', lambda _, which: (nano.MODEL, params)
  )
  config = {
    'stage': 'ucg',
    'tokenizer': 'project',
    'image': nano.IMAGE,
    'compute': {'dtype': 'float32'},
    'modules': [],
    'store': str(store.path) if store else '',
    'init_from': '/home/somebody/stage1',
    **values,
  }
  record = {
    'config': config,
    'store_fingerprint': store.fingerprint if store else None,
    **(store.slices.to_json() if store else {}),
    'routes': ['brain_mr_to_ct'],
    'versions': {'jax': '0.10.2', 'python': '3.12.1'},
    'commit': 'abc',
  }
  workdir.mkdir(exist_ok=True)
  (workdir / 'config.json').write_text(json.dumps(record))
  return record


def write_evaluation(workdir, *, steps=(7,), sampling=None):
  """Results of one route, one score of volumes and one task."""
  scores = {'ssim': 0.8, 'psnr': 20.5, 'mae': 91.25}
  baseline = {'ssim': 0.25, 'psnr': 10, 'mae': 300}
  baselines = {
    'copy_source': {**baseline, 'full_frame': baseline},
    'mean_target': {**baseline, 'ssim': 0.5, 'full_frame': baseline},
  }
  route = {
    **scores,
    'count': 3,
    'unit': 'HU',
    'win': True,
    'difference': [0.3, 0.2, 0.375],
    'full_frame': scores,
    'baselines': baselines,
  }
  metrics = {
    'split': 'test',
    'subjects': ['a.1', 'a.2', 'a.3'],
    'slices': 6,
    'sampling': sampling or {'points': 2},
    'synthesis': {'brain_mr_to_ct': route},
    'summary': {
      'routes': 1,
      'wins': 1,
      'mean_ssim': 0.8,
      'mean_ssim_baselines': {'copy_source': 0.25},
      'better_baseline': 'mean_target',
    },
    'left_out': {},
    'synthrad2023': {'brain_mr_to_ct': {'mae': 319.5, 'count': 3}},
    'understanding': {'tia': {'accuracy': 0.9, 'chance': 0.25, 'count': 40}},
    'definition': {
      'synthesis': {
        'ssim': DEFINITION,
        'psnr': {'unit': 'dB'},
        'mae': {'unit': 'that of the target'},
      },
      'baselines': {'copy_source': 'the unchanged source'},
      'win': {'difference': 'SSIM less that of the better baseline'},
      'synthrad2023': {'range': 'HU', 'unit': 'HU; lower is better'},
      'understanding': {'tia': {'task': 'choose', 'chance': 'one of four'}},
    },
  }
  people = {
    'version': 1,
    'settings': {
      'split': 'test',
      'slices': 6,
      'steps': list(steps),
      'store': 'f00',
    },
    'subjects': {'a.1': 'a', 'a.2': 'a', 'a.3': 'a'},
  }
  folder = workdir / 'evaluation'
  folder.mkdir()
  (folder / 'metrics.json').write_text(json.dumps(metrics))
  (folder / 'subjects.json').write_text(json.dumps(people))
