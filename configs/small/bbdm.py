"""BBDM of the arena, in the latents of the small autoencoder, for all routes.

  python -m synermedgen_jax.main --config=configs/small/bbdm.py \\
      --config.store=STORE --workdir=RUN/bbdm

The model small_pixels, with --config.init_from='', works in pixels.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'small') -> ConfigDict:
  config = system_config()
  config.stage = 'bbdm'
  config.model = model
  config.size = (64, 64)
  config.rows = 16
  config.augment = {'mirror': 0.5, 'warp': 0.6}
  config.scope = 'all'
  config.init_from = 'weights/small'
  config.steps = 1500
  config.learning_rate = 5e-4
  config.warmup = 50
  config.b1, config.b2 = 0.9, 0.999
  config.ema = 0.995
  config.val_every = 0
  config.checkpoint_every = 500
  return config
