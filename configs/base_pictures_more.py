"""The base draws on, at less than half the rate.

  python -m synermedgen_jax.main --config=configs/base_pictures_more.py:small \\
      --config.init_from=RUN/base_pictures --workdir=RUN/base_pictures_more

Other scenes, drawn from another seed; makes the weights that ship. How well the
base draws is how well Stage II starts (docs/base.md).
small: 37 minutes on one fast CPU core. Result to expect on validation scenes:
flow loss 0.218.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parent / 'base_pictures.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.seed += 1
  config.learning_rate = 2e-3
  return config
