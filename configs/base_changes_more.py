"""The base learns changes well: the rate of base_changes a third time.

  python -m synermedgen_jax.main --config=configs/base_changes_more.py:small \\
      --config.init_from=RUN/base_changes_again --workdir=RUN/base_changes_more

Other questions, drawn from another seed. How well `change` is known is how well
Stage I does TIA (docs/base.md).
small: 25 minutes on two shared CPU cores. Result to expect in training: change
0.88, style 0.65 (all four panels), view 0.68.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parent / 'base_changes.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.seed += 2
  config.steps = 3200
  return config
