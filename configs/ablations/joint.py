"""Ablation: both losses in one step, instead of two stages.

  python -m synermedgen_jax.main --config=configs/ablations/joint.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/joint

configs/joint.py as it is, at the compute of Stage I + II
(benchmarks/ablation_steps.py). Trains everything but the autoencoder.

launch/ablations.sh runs it. Time and result: docs/ablations.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parents[1] / 'joint.py')


def get_config(model: str = 'small') -> ConfigDict:
  return runpy.run_path(_PARENT)['get_config'](model)
