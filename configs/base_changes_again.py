"""The base goes on with changes: the rate of base_changes once more.

  python -m synermedgen_jax.main --config=configs/base_changes_again.py:small \\
      --config.init_from=RUN/base_changes --workdir=RUN/base_changes_again

Other questions, drawn from another seed.
small: 12 minutes on two shared CPU cores. Result to expect on validation
scenes: change 0.71, style 0.80 (all four panels), view 0.78.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parent / 'base_changes.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.seed += 1
  config.steps = 1600
  return config
