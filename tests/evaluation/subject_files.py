"""Hand-made evaluations, as subjects.json has them."""

import json

from synermedgen_jax.evaluation.subjects import FILE, VERSION

BRAIN = ('brain.a', 'brain.b')
BRATS = ('brats.c', 'brats.d', 'brats.e')
SETTINGS = {
  'store': 'abcdef012345',
  'split': 'test',
  'slices': 6,
  'questions': 5,
  'seed': 0,
  'neighbours': 3,
  'steps': [900],
}


def score(ssim):
  return {'ssim': ssim, 'psnr': 20.0, 'mae': 0.1}


def entry(ssim):
  baselines = {'copy_source': 0.25, 'mean_target': 0.5, 'ceiling': 0.75}
  return score(ssim) | {
    'baselines': {name: score(value) for name, value in baselines.items()}
  }


def record(*, brain=(0.5, 0.7), brats=(0.2, 0.4, 0.6), right=(1, 0, 1, 1, 0)):
  """One run: a brain route, a BraTS route, five questions of CTS."""
  subjects = (*BRAIN, *BRATS)
  return {
    'version': VERSION,
    'settings': dict(SETTINGS),
    'subjects': {s: s.partition('.')[0] for s in subjects},
    'synthesis': {
      'brain_mr_to_ct': {
        s: entry(v) for s, v in zip(BRAIN, brain, strict=True)
      },
      'brats_t1_to_t2': {
        s: entry(v) for s, v in zip(BRATS, brats, strict=True)
      },
    },
    'understanding': {
      'cts': {
        'chance': 0.25,
        'answers': [
          {
            'question': i,
            'subject': s,
            'route': 'brain_mr_to_ct',
            'right': r,
            'asked': 1,
          }
          for i, (s, r) in enumerate(zip(subjects, right, strict=True))
        ],
      }
    },
  }


def write(root, arm, seed=0, **values):
  """A run's file under ROOT/seedK/ARM; `values` as for `record`."""
  return write_record(root, arm, record(**values), seed)


def write_record(root, arm, content, seed=0):
  path = root / f'seed{seed}' / arm / FILE
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content))
  return path
