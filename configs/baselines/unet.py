"""Regression U-Net in nnU-Net's style: L1, or L2 with the model published_l2.

  python -m synermedgen_jax.main --config=configs/baselines/unet.py \\
      --config.store=STORE --config.routes="('pelvis_mr_to_ct',)" \\
      --workdir=RUN/unet

The recipe is nnU-Net's: 250,000 steps of 16 slices (nnU-Net plans the batch
size), SGD with Nesterov's momentum, no augmentation. For one network for all
routes of the store: --config.scope=all without --config.routes.

Hardware: one GPU. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'published') -> ConfigDict:
  config = system_config()
  config.stage = 'unet'
  config.model = model
  config.rows = 16
  config.steps = 250_000
  config.optimizer = 'sgd'
  config.learning_rate = 1e-2
  config.decay = 'poly'
  config.b1 = 0.99
  config.weight_decay = 3e-5
  config.clip = 12.0
  return config
