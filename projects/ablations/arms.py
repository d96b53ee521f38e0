"""The arms of the ablation study, and what the paper reports of them.

An arm is named as its workdir, RUNS/SEED/NAME; `run.sh` says which of
`configs/` trains it. The paper is SynerMedGen (ICML 2026, arXiv 2605.08724);
its own table of ablations is not at hand, only the figures below.
"""

from __future__ import annotations

from synermedgen_jax.evaluation.lines import Arm

REFERENCE = 'stage2'


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
