"""The base learns to draw: a view again, in the style that is asked for.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/pictures.py:small \\
      --config.init_from=RUN/changes_more --workdir=RUN/pictures

As configs/stage2.py, on drawn scenes: the `gen` expert and its projections
train, what compares and answers stays as it is. Most sources show every
material, so that a target can be drawn from them. Conditions are left out at
times, so that guidance works. Weight decay keeps the weights small enough for
Stage II to move them.
small: 38 minutes on one fast CPU core. Result to expect on validation scenes:
flow loss 0.208.
"""

from ml_collections import ConfigDict

from configs import stage2
from synermedgen_jax.config.defaults import default_config


def get_config(model: str = 'small') -> ConfigDict:
  config = stage2.get_config(model)
  config.modules = ('projects.small_base.tasks',)
  config.tasks = {'redraw': 0.85, 'copy': 0.15}
  config.route_weights = ()
  config.augment = default_config().augment
  config.dropout = {'text': 0.05, 'vae': 0.05, 'vit': 0.05}
  config.steps = 20000
  config.learning_rate = 5e-3
  config.weight_decay = 0.1
  config.warmup = 50
  config.checkpoint_every = 2000
  config.val_every = 1000
  return config
