"""The base draws on, from noise alone: what it starts Stage II with.

  python -m synermedgen_jax.main --config=configs/base_pictures_more.py:small \\
      --config.init_from=RUN/base --workdir=RUN/base_pictures_more

As configs/base_pictures.py, with timesteps near noise, as Stage II of `small`
has them, more copies, and a rate that falls. What compares and answers stays as
it is.
small: 16 minutes on one CPU core. Result to expect on validation scenes: flow
loss 0.30.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parent / 'base_pictures.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.tasks = {'redraw': 0.7, 'copy': 0.3}
  config.objective.train_shift = 16.0
  config.steps = 3000
  config.decay = 'cosine'
  return config
