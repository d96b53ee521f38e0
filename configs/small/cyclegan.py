"""CycleGAN of the arena: both directions of one pair, from unpaired slices.

  python -m synermedgen_jax.main --config=configs/small/cyclegan.py \\
      --config.store=STORE --workdir=RUN/cyclegan \\
      --config.routes="('pelvis_mr_to_ct', 'pelvis_ct_to_mr')"
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'small') -> ConfigDict:
  config = system_config()
  config.stage = 'cyclegan'
  config.model = model
  config.size = (64, 64)
  config.rows = 16
  config.augment = {'mirror': 0.5, 'warp': 0.6}
  config.scope = 'pair'
  config.rows = 4
  config.steps = 500
  config.learning_rate = 5e-4
  config.decay = 'linear'
  config.b1, config.b2 = 0.5, 0.999
  config.val_every = 0
  config.checkpoint_every = 500
  return config
