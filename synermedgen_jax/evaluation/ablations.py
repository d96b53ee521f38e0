"""The arms of the ablation study, the numbers compared, what the paper says.

An arm is named as its workdir, RUNS/SEED/NAME; `launch/ablations.sh` says which
of `configs/ablations/` trains it. Of the paper (SynerMedGen, ICML 2026, arXiv
2605.08724) the figures below are at hand; its own table of ablations is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from synermedgen_jax.core.modalities import ROUTES

REFERENCE = 'stage2'


@dataclasses.dataclass(frozen=True)
class Line:
  """One number that arms are compared by, as a percentage.

  Attributes:
    name: short, in results.
    title: for tables and plots.
    routes: whose SSIM is averaged; empty for a task.
    task: whose accuracy it is; '' for routes.
    definition: what the number is.
  """

  name: str
  title: str
  routes: tuple[str, ...] = ()
  task: str = ''
  definition: str = ''


_ALL = tuple(route.name for route in ROUTES)
_BRATS = tuple(route.name for route in ROUTES if route.cohort == 'brats')
_OTHERS = tuple(name for name in _ALL if name not in _BRATS)
_SSIM = (
  'SSIM x 100 within the body mask (2-D, Gaussian window of sigma 1.5, both '
  "images clipped to the target's window): mean over the slices of a subject, "
  'then over subjects, then over the '
)
LINES = (
  Line('ssim_22', 'SSIM, 22 routes', _ALL, '', f'{_SSIM}22 routes.'),
  Line(
    'ssim_10',
    'SSIM, 10 CT/CBCT/PET/MR routes',
    _OTHERS,
    '',
    f'{_SSIM}10 routes between CT, CBCT, PET and MR.',
  ),
  Line(
    'ssim_12',
    'SSIM, 12 BraTS routes',
    _BRATS,
    '',
    f'{_SSIM}12 routes between T1, T1CE, T2 and FLAIR.',
  ),
  Line(
    'cts',
    'CTS, accuracy',
    task='cts',
    definition='Share of questions of conditional target selection whose '
    'answer begins with the right letter, x 100; the wrong slices are '
    'neighbours of the right one, for every arm alike.',
  ),
  Line(
    'mi',
    'MI, accuracy',
    task='mi',
    definition='Share of panels given the right modality, x 100.',
  ),
  Line(
    'tia',
    'TIA, accuracy',
    task='tia',
    definition='Share of questions of transformation instruction alignment '
    'whose answer begins with the right letter, x 100.',
  ),
)


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train.

  Attributes:
    title: for tables and plots.
    paper: what the paper reports, by name of the line, x 100.
  """

  title: str
  paper: Mapping[str, float] = dataclasses.field(default_factory=dict)


ARMS = {
  'base': Arm('Base alone, zero-shot'),
  'stage1_vqa': Arm(
    'Ordinary VQA alone, zero-shot', {'ssim_10': 34.2, 'ssim_12': 43.7}
  ),
  'stage1': Arm(
    'Stage I alone, zero-shot',
    {'ssim_10': 66.8, 'ssim_12': 81.7, 'cts': 83.2, 'mi': 84.5, 'tia': 90.1},
  ),
  'stage2': Arm('Stage I + II', {'ssim_10': 83.28, 'ssim_12': 89.03}),
  'stage2_only': Arm('Stage II without Stage I'),
  'stage2_vqa': Arm('Ordinary VQA + II'),
  'stage2_no_cts': Arm('Stage I without CTS, + II'),
  'stage2_no_mi': Arm('Stage I without MI, + II'),
  'stage2_no_tia': Arm('Stage I without TIA, + II'),
  'stage2_random': Arm('CTS with random negatives, + II'),
  'joint': Arm('Joint instead of two stages'),
  'stage2_und_trained': Arm('Stage I + II, und trained in II too'),
}
