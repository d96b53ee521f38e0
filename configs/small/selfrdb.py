"""SelfRDB of the arena, one network for all routes of a store.

  python -m synermedgen_jax.main --config=configs/small/selfrdb.py \\
      --config.store=STORE --workdir=RUN/selfrdb
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'small') -> ConfigDict:
  config = system_config()
  config.stage = 'selfrdb'
  config.model = model
  config.size = (64, 64)
  config.rows = 16
  config.augment = {'mirror': 0.5, 'warp': 0.6}
  config.scope = 'all'
  config.steps = 1500
  config.learning_rate = 5e-4
  config.decay = 'cosine'
  config.b1, config.b2 = 0.5, 0.9
  config.val_every = 0
  config.checkpoint_every = 500
  return config
