"""BBDM, with the recipe of its released program.

  python -m synermedgen_jax.main --config=configs/baselines/bbdm.py \\
      --config.store=STORE --config.routes="('pelvis_mr_to_ct',)" \\
      --config.init_from=RUN/bagel --workdir=RUN/bbdm

The autoencoder of `init_from` is frozen. In pixels: the model published_pixels
without `init_from`. 400,000 micro-batches of 8, four of which make a step.

Hardware: one GPU. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'published') -> ConfigDict:
  config = system_config()
  config.stage = 'bbdm'
  config.model = model
  config.rows = 32
  config.steps = 100_000
  config.learning_rate = 1e-4
  config.b1, config.b2 = 0.9, 0.999
  config.ema = 0.9994
  return config
