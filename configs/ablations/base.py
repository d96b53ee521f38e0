"""Ablation: the base alone. What can it do that was never trained on slices?

  python -m synermedgen_jax.evaluate --config=configs/ablations/base.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --workdir=RUNS/SEED/base

No step is made; the config says how slices are shown and synthesised.

launch/ablations.sh runs it. Time and result: docs/ablations.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parents[1] / 'stage2.py')


def get_config(model: str = 'small') -> ConfigDict:
  return runpy.run_path(_PARENT)['get_config'](model)
