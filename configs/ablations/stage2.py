"""Ablations: Stage II, `und` frozen; the second half of most arms.

  python -m synermedgen_jax.main --config=configs/ablations/stage2.py \\
      --config.store=STORE --config.init_from=RUNS/SEED/stage1 \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2

configs/stage2.py as it is. From RUNS/SEED/stage1 it is the reference, Stage I
+ II; from another Stage I, that one's arm.

launch/ablations.sh runs it. Time and result: docs/ablations.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parents[1] / 'stage2.py')


def get_config(model: str = 'small') -> ConfigDict:
  return runpy.run_path(_PARENT)['get_config'](model)
