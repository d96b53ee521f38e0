"""Ablation: Stage II with `und` trained along. Which of the paper's two ways?

  python -m synermedgen_jax.main \\
      --config=configs/ablations/stage2_und_trained.py \\
      --config.store=STORE --config.init_from=RUNS/SEED/stage1 \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_und_trained

The paper's figure freezes ViT and `und` in Stage II, its text fine-tunes `und`
further. Here ViT, connector and `und` train with the multiplier 1. A step costs
more, so there are fewer (benchmarks/ablation_steps.py).

launch/ablations.sh runs it. Time and result: docs/ablations.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parents[1] / 'stage2.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.trainable = tuple(
    (names, 1.0 if 'connector' in names or 'layers/und' in names else scale)
    for names, scale in config.trainable
  )
  return config
