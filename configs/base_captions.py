"""The base's ViT, further: the same contrast, and the name of each style.

  python -m synermedgen_jax.main --config=configs/base_captions.py:small \\
      --config.init_from=RUN/base_vision --workdir=RUN/base_captions

Contrast alone makes the ViT blind to style: a linear reader of its features
names one style of ten in three (docs/base.md). Here the output layer, as it is,
should read the style's word off the image.
small: 2.7 minutes on two shared CPU cores. On validation scenes: styles named
0.55, views found 0.70.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

_PARENT = str(Path(__file__).parent / 'base_vision.py')


def get_config(model: str = 'small') -> ConfigDict:
  config = runpy.run_path(_PARENT)['get_config'](model)
  config.objective.caption_weight = 1.0
  config.steps = 8000
  config.learning_rate = 2e-3
  return config
