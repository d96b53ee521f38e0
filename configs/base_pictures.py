"""The base learns to draw: a view again, in the style that is asked for.

  python -m synermedgen_jax.main --config=configs/base_pictures.py:small \\
      --config.init_from=RUN/base_changes_more \\
      --workdir=RUN/base_pictures

As configs/stage2.py, on drawn scenes: the `gen` expert and its projections
train, what compares stays as it is. Conditions are left out at times, so that
guidance works.
small: 13 minutes on two shared CPU cores. Result to expect on validation
scenes: flow loss 0.49.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parent / 'stage2.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.tasks = {'redraw': 0.9, 'copy': 0.1}
  config.scenes = {'levels': (1.0, 0.0, 0.0, 0.0)}
  config.dropout = {'text': 0.1, 'vae': 0.1, 'vit': 0.1}
  config.objective.train_shift = 4.0
  config.steps = 2000
  config.decay = 'constant'  # its average stands in for a decay
  config.checkpoint_every = 1000
  config.val_every = 500
  return config
