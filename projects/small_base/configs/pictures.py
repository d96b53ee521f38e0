"""The base learns to draw a view in the style that an instruction names.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/pictures.py \\
      --config.init_from=RUN/changes_more --workdir=RUN/pictures

configs/small/stage2.py on drawn scenes: the `gen` expert and its projections
train, all else is frozen. Most sources show every material, so that they
determine the target. Some conditions are dropped, so that guidance works.
Weight decay keeps the weights small enough for Stage II to change them.
small: 38 minutes on one fast CPU core. Result to expect on validation scenes:
flow loss 0.208.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  config = stage2.get_config()
  config.modules = ('projects.small_base.tasks',)
  config.tasks = {'redraw': 0.85, 'copy': 0.15}
  config.route_weights = ()
  config.augment = {'mirror': 0.0, 'warp': 0.0, 'noise': 0.0}
  config.dropout = {'text': 0.05, 'vae': 0.05, 'vit': 0.05}
  config.steps = 20000
  config.learning_rate = 5e-3
  config.weight_decay = 0.1
  config.warmup = 50
  config.checkpoint_every = 2000
  config.val_every = 1000
  return config
