"""pix2pix, with the recipe of its released program.

  python -m synermedgen_jax.main --config=configs/baselines/pix2pix.py \\
      --config.store=STORE --config.routes="('pelvis_mr_to_ct',)" \\
      --workdir=RUN/pix2pix

200 epochs of a thousand pairs, one pair per step; the second half of the steps
decays the rate.

Hardware: one GPU. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'published') -> ConfigDict:
  config = system_config()
  config.stage = 'pix2pix'
  config.model = model
  config.rows = 1
  config.steps = 200_000
  config.learning_rate = 2e-4
  config.decay = 'linear'
  config.b1, config.b2 = 0.5, 0.999
  config.augment.mirror = 0.5
  return config
