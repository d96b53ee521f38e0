"""Workdirs with results as training and `evaluate` write them."""

import json

import numpy as np

from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation import wins
from synermedgen_jax.evaluation.routes import METHODS, RouteScore, aggregate
from synermedgen_jax.evaluation.subjects import synthesis_by_subject
from synermedgen_jax.evaluation.understanding import score
from synermedgen_jax.tasks import prompts

NASTY = '<b>&"$bad$'
# Columns to the patient's left, rows to posterior, as `slice_grid` has them.
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
SHAPE = (6, 10, 12)  # z, h, w


def write_stage(folder, stage, init_from='', rows=None, **config):
  folder.mkdir(parents=True, exist_ok=True)
  config = {
    'stage': stage,
    'init_from': str(init_from),
    'model': 'tiny',
  } | config
  record = {'config': config, 'versions': {'jax': '0.10.2'}}
  (folder / 'config.json').write_text(json.dumps(record))
  rows = (
    [{'step': 5, 'loss': 2.0}, {'step': 10, 'loss': 1.0}]
    if rows is None
    else rows
  )
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(lines)
  return folder


def route_rows(names, subjects=('1', '2'), ceiling=True):
  """Scores of all methods; the model's SSIM falls by 0.05 per subject."""
  values = dict(zip(METHODS, (0.6, 0.5, 0.4, 0.9), strict=True))
  if not ceiling:
    del values['ceiling']
  return [
    RouteScore(
      name,
      f's.{subject}.brain',
      f's.{subject}',
      method,
      full_frame,
      {
        'ssim': value - 0.05 * number * (method == 'model'),
        'psnr': 20.0,
        'mae': 30.0,
      },
    )
    for name in names
    for number, subject in enumerate(subjects)
    for method, value in values.items()
    for full_frame in (False, True)
  ]


def route_scores(names, ceiling=True):
  return aggregate(route_rows(names, ceiling=ceiling))


def write_evaluation(
  workdir, names=(), records=(), panels=None, subjects=('1', '2'), **extra
):
  folder = workdir / 'evaluation'
  (folder / 'panels').mkdir(parents=True)
  metrics = {'split': 'test', 'store': 'runs/store', 'subjects': ['s.1.brain']}
  metrics['definition'] = {'synthesis': {'ssim': {'mask': 'the body mask'}}}
  if records:
    metrics |= score(records)
  if names:
    rows = route_rows(names, subjects)
    metrics |= aggregate(rows)
    metrics['sampling'] = {'points': 50, 'shift': 3.0}
    metrics['definition']['win'] = wins.DEFINITION
    write_subjects(folder / 'subjects.json', rows)
  (folder / 'metrics.json').write_text(json.dumps(metrics | extra))
  for name in names if panels is None else panels:
    write_panel(folder / 'panels' / f'{name}.npz')
  if records:
    write_questions(folder)
  return folder


def write_subjects(path, rows):
  record = {
    'version': 1,
    'settings': {'split': 'test', 'slices': 0, 'store': 'a'},
    'subjects': {row.subject: row.subject.split('.')[0] for row in rows},
    'synthesis': synthesis_by_subject(rows),
  }
  path.write_text(json.dumps(record))


def write_panel(path, **changes):
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (3, 1, 12, 12)).astype(np.float32)
  arrays = dict(zip(('source', 'synthesis', 'truth'), images, strict=True))
  arrays |= {
    'mask': np.ones((1, 12, 12), bool),
    'indices': np.array([4]),
    'source_window': np.float32([0, 900]),
    'target_window': np.float32([-1000, 1000]),
    'plane': np.array('axial'),
    'subject': np.array('1'),
    'case': np.array('s.1.brain'),
  }
  np.savez(path, **arrays | changes)


def write_questions(folder, **changes):
  asked = {
    'task': 'cts',
    'question': 'Which slice?',
    'answer': 'A',
    'prediction': NASTY,
    'route': 'brain_mr_to_ct',
    'images': [0, 1, 2, 3, 4],
    'letters': ['', *prompts.LETTERS],
  }
  (folder / 'understanding.json').write_text(json.dumps([asked | changes]))
  np.savez(
    folder / 'understanding.npz', images=np.zeros((5, 12, 12), np.float32)
  )


def write_volumes(folder, route, kinds=('worst', 'median', 'best'), **changes):
  """Volumes whose values encode the position.

  The bytes of the truth are 20 per column, those of the synthesis 1 per row
  more. The windows make one byte one unit of the target.
  """
  z, h, w = np.indices(SHAPE)
  sources = len(route_named(route).sources)
  truth = (20 * w).astype(np.uint8)
  for number, kind in enumerate(kinds):
    arrays = {
      'sources': np.stack(
        [(10 * z + i).astype(np.uint8) for i in range(sources)]
      ),
      'synthesis': (20 * w + h).astype(np.uint8),
      'truth': truth,
      'mask': np.ones(SHAPE, bool),
      'affine': AFFINE,
      'subject': np.array(f's.{number + 1}'),
      'ssim': np.array(0.5 + 0.1 * number),
      'windows': np.array([[0.0, 510.0]] * sources + [[0.0, 255.0]] * 2),
    }
    path = folder / 'volumes' / route / f'{kind}.npz'
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays | changes)
