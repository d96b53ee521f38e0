"""Ablation: Stage I alone. Does understanding alone teach to synthesise?

  python -m synermedgen_jax.main --config=configs/ablations/stage1.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage1
  python -m synermedgen_jax.evaluate --workdir=RUNS/SEED/stage1 \\
      --parts=understanding,synthesis

configs/stage1.py as it is. The `gen` expert is the base's, untouched. The same
run is where Stage I + II goes on from.

launch/ablations.sh runs it. Time and result: docs/ablations.md.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parents[1] / 'stage1.py')


def get_config(model: str = 'small') -> ConfigDict:
  return runpy.run_path(_PARENT)['get_config'](model)
