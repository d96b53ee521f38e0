"""The plan of the ablations: arms, regimes, claims and how they are decided.

It was written before the runs. `run.py` carries it out, `results.py` decides
the claims.

An **arm** states what happens before Stage II. A **regime** states how Stage II
trains and samples. A **cell** is an arm in a regime.

**Rule.** The difference of two arms is paired by subject and averaged over
seeds; its 95 % interval is a bootstrap over subjects. With the claim's sign:

* borne out: the interval is above 0, and so is the difference of every seed;
* refuted: the interval is below the smallest difference of interest, and so is
  the difference of every seed. An effect of that size is excluded;
* not decided otherwise, and with fewer than three seeds.

A difference that is above 0 and below the smallest one of interest is refuted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from synermedgen_jax.core.modalities import ROUTES

# Each modality of a route that is left out is a source and a target of others
# in the training of Stage II.
HELD_OUT = (
  'brain_cbct_to_ct',
  'pelvis_mr_to_ct',
  'brats_t1_to_flair',
  'brats_flair_to_t1ce',
  'brats_t1ce_to_t2',
  'brats_t2_to_t1',
)
TRAINED = tuple(r.name for r in ROUTES if r.name not in HELD_OUT)


@dataclasses.dataclass(frozen=True)
class Arm:
  """What a model learns before Stage II.

  Attributes:
    title: name in tables.
    first: config of Stage I; '' = none, Stage II starts from the base.
    second: what follows: 'stage2' is that of the regime, 'joint' both losses
      at once, '' nothing, so Stage I alone is measured.
    steps: 'equal' = as many steps of Stage II as in every arm; 'operations' =
      those that need the operations of Stage I and II together.
  """

  title: str
  first: str = ''
  second: Literal['stage2', 'joint', ''] = 'stage2'
  steps: Literal['equal', 'operations'] = 'equal'


ARMS: Mapping[str, Arm] = {
  'full': Arm('Stage I + II', 'stage1'),
  'only': Arm('Stage II alone, equal steps'),
  'only_operations': Arm(
    'Stage II alone, equal operations', steps='operations'
  ),
  'no_cts': Arm('without CTS', 'stage1_no_cts'),
  'no_mi': Arm('without MI', 'stage1_no_mi'),
  'no_tia': Arm('without TIA', 'stage1_no_tia'),
  'random': Arm('CTS with random negatives', 'stage1_random'),
  'vqa': Arm('ordinary VQA instead', 'stage1_vqa'),
  'joint': Arm('joint', second='joint', steps='operations'),
  'base': Arm('base, zero-shot', second=''),
  'stage1': Arm('Stage I, zero-shot', 'stage1', second=''),
  'stage1_vqa': Arm('ordinary VQA, zero-shot', 'stage1_vqa', second=''),
}
ZERO_SHOT = ('base', 'stage1', 'stage1_vqa')


@dataclasses.dataclass(frozen=True)
class Regime:
  """How Stage II trains and samples.

  Attributes:
    title: name in tables.
    arms: names of the arms that it is tried on.
    about: what the regime asks, one sentence.
    train: keys of the config of Stage II -> values.
    sampling: keys of `config.sampling` -> values.
    trained_as: the regime whose trainings are sampled in another way; '' = its
      own.
    routes: names of the routes that are scored; empty = all 22.
    model: preset of both stages.
    stage2: config of Stage II.
  """

  title: str
  arms: Sequence[str]
  about: str
  train: Mapping[str, object] = dataclasses.field(default_factory=dict)
  sampling: Mapping[str, object] = dataclasses.field(default_factory=dict)
  trained_as: str = ''
  routes: Sequence[str] = ()
  model: str = 'desk'
  stage2: str = 'stage2'


# BAGEL's released fine-tuning.
_DROPOUT = {'dropout.text': 0.1, 'dropout.vae': 0.3, 'dropout.vit': 0.3}
_WITHOUT = {'dropout.text': 0.0, 'dropout.vae': 0.0, 'dropout.vit': 0.0}
_PAIR = ('full', 'only')
_TASKS = ('full', 'only', 'no_cts', 'no_mi', 'no_tia')
REGIMES: Mapping[str, Regime] = {
  'dropout': Regime(
    'condition dropout',
    (*_TASKS, 'only_operations', 'random', 'vqa', 'joint', *ZERO_SHOT),
    'Conditions are dropped in training as in the fine-tuning of BAGEL.',
    _DROPOUT,
  ),
  'guided': Regime(
    'condition dropout, guidance',
    _TASKS,
    'The same models, sampled with text guidance in ten points.',
    # On validation subjects, one run after 600 steps: SSIM 0.53, and 0.42 with
    # the scales of BAGEL, 4 and 2.
    sampling={'points': 10, 'guidance.text': 1.5},
    trained_as='dropout',
  ),
  'words_vit': Regime(
    'words and ViT tokens alone',
    _TASKS,
    'The model never gets latents of the source, in training or sampling.',
    {'dropout.text': 0.0, 'dropout.vae': 1.0, 'dropout.vit': 0.0},
    {'withheld': ('vae',)},
  ),
  'held_out': Regime(
    'held-out routes',
    ('full', 'only', 'no_mi', 'no_tia'),
    'Six routes are left out of Stage II, and only they are scored. Stage I '
    'has all 22.',
    {**_DROPOUT, 'routes': TRAINED},
    routes=HELD_OUT,
  ),
  'pairs_2': Regime(
    '2 % of the subjects',
    _PAIR,
    'Stage II has one training subject of each cohort, Stage I all.',
    {**_DROPOUT, 'subjects': 0.02},
  ),
  'pairs_10': Regime(
    '10 % of the subjects',
    _PAIR,
    'Stage II has three training subjects of each cohort, Stage I all.',
    {**_DROPOUT, 'subjects': 0.1},
  ),
  'und_trained': Regime(
    'und trained in Stage II',
    _PAIR,
    'Stage II trains ViT, connector and und too, as in the text of the paper.',
    _DROPOUT,
    stage2='stage2_und_trained',
  ),
  'plain': Regime(
    'no dropout',
    _PAIR,
    'The recipe of the demo: all conditions are always there.',
    _WITHOUT,
  ),
  'coarse': Regime(
    'four ViT tokens',
    _PAIR,
    'The model of the demo, whose ViT has 32-pixel tokens.',
    _DROPOUT,
    model='small',
  ),
}


def every_arm(regime: str) -> tuple[str, ...]:
  """The arms that can be tried in a regime.

  Joint training has no Stage I that could see what its regime leaves out.
  """
  fewer = {'routes', 'subjects'} & REGIMES[regime].train.keys()
  return tuple(
    name for name, arm in ARMS.items() if not fewer or arm.second != 'joint'
  )


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim of the paper as a difference of two arms in one number.

  Attributes:
    text: the claim.
    better: the arm that the claim favours.
    worse: the arm, or the baseline, that it is compared with.
    regimes: where it is asked; the first one decides.
    line: the number (`evaluation.lines`).
    sign: 1 if the claim says that the number of `better` is larger, else -1.
    least: smallest difference of interest, in the unit of the line.
  """

  text: str
  better: str
  worse: str
  regimes: Sequence[str]
  line: str = 'ssim_22'
  sign: int = 1
  least: float = 1.0


_ALL_PAIRS = tuple(name for name, r in REGIMES.items() if 'only' in r.arms)
_ALL_TASKS = ('dropout', 'guided', 'words_vit')
CLAIMS: Sequence[Claim] = (
  Claim(
    'Understanding derived from the pairs improves synthesis (equal steps of '
    'Stage II).',
    'full',
    'only',
    _ALL_PAIRS,
  ),
  Claim(
    'It does so at equal operations.', 'full', 'only_operations', ('dropout',)
  ),
  Claim('Ordinary VQA does not do as well.', 'full', 'vqa', ('dropout',)),
  Claim(
    'Without CTS, anatomy drifts: the most similar true slice is further away.',
    'full',
    'no_cts',
    _ALL_TASKS,
    'drift/nearest_offset',
    -1,
    0.1,
  ),
  Claim(
    'Without CTS, anatomy drifts in plane.',
    'full',
    'no_cts',
    _ALL_TASKS,
    'drift/in_plane',
    -1,
    0.5,
  ),
  Claim(
    'Neighbouring negatives prevent drift better than random ones.',
    'full',
    'random',
    ('dropout',),
    'drift/nearest_offset',
    -1,
    0.1,
  ),
  Claim(
    'Without MI, the target modality is out of control.',
    'full',
    'no_mi',
    (*_ALL_TASKS, 'held_out'),
    'control/classified',
    1,
    5.0,
  ),
  Claim(
    'Without TIA, directions are reversed.',
    'full',
    'no_tia',
    (*_ALL_TASKS, 'held_out'),
    'direction/reversed',
    -1,
    5.0,
  ),
  Claim(
    'Without TIA, the instruction has less effect.',
    'full',
    'no_tia',
    (*_ALL_TASKS, 'held_out'),
    'direction/turn',
    1,
    5.0,
  ),
  Claim(
    'Stage I alone synthesises: better than ordinary VQA alone.',
    'stage1',
    'stage1_vqa',
    ('dropout',),
  ),
  Claim(
    'Stage I alone synthesises: better than the unchanged source.',
    'stage1',
    'copy_source',
    ('dropout',),
  ),
  Claim(
    'Two stages are better than joint training.', 'full', 'joint', ('dropout',)
  ),
)
