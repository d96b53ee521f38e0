"""Ablation: Stage II from the base, without Stage I.

  python -m synermedgen_jax.main --config=configs/ablations/stage2_only.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_only

At equal compute: Stage II's steps and as many more as Stage I's operations
allow (benchmarks/ablation_steps.py), so that what Stage I adds is not only
longer training. The learning rate decays over all of them. The words of the
modalities start where Stage I has them start.

launch/ablations.sh runs it. Time and result: docs/ablations.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from synermedgen_jax.training.defaults import WORDS_OF_SCENES

_PARENT = str(Path(__file__).parents[1] / 'stage2.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  if model == 'small':
    config.new_words = WORDS_OF_SCENES
  return config
