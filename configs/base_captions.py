"""The base's ViT, further: the same contrast, and the name of each style.

  python -m synermedgen_jax.main --config=configs/base_captions.py:small \\
      --config.init_from=RUN/base_vision --workdir=RUN/base_captions

Contrast alone makes the ViT blind to style: a linear reader of its features
names one style of ten in three (docs/base.md). Here the output layer, as it is,
should read the style's word off the image.
small: 2.7 minutes on two shared CPU cores. On validation scenes: styles named
0.55, views found 0.70.
"""

from ml_collections import ConfigDict

from synermedgen_jax.training.defaults import default_config


def get_config(model: str = 'small') -> ConfigDict:
  config = default_config()
  config.stage = 'contrast'
  config.model = model

  config.tasks = {'pairs': 1.0}
  config.scenes = {'levels': (1.0, 0.0, 0.0, 0.0)}
  config.capacity = {'und': 54, 'gen': 0, 'vit': 32, 'images': 0}
  config.rows = 12
  config.streams = 4
  config.packing_bins = 3

  config.trainable = (
    (r'(vit|connector)/.*', 1.0),
    (r'.*', 0.0),
  )
  config.objective = {'caption_weight': 1.0}
  config.steps = 1500
  config.learning_rate = 2e-3
  config.warmup = 100
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8

  config.log_every = 50
  config.val_every = 500
  config.val_batches = 8
  return config
