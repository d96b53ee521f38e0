"""The base's autoencoder: as configs/autoencoder.py, on drawn scenes alone.

  python -m synermedgen_jax.main --config=configs/base_autoencoder.py:small \\
      --workdir=RUN/base_autoencoder

small: 7 minutes on one fast CPU core. Result to expect on validation scenes: L1
0.034 (values span 2). Nothing medical goes in; docs/base.md says what comes
back of phantoms that it never saw.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parent / 'autoencoder.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.scenes = {'levels': (1.0, 0.0, 0.0, 0.0)}
  config.steps = 16000
  config.checkpoint_every = 4000
  return config
