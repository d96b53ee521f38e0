"""SynDiff, with the recipe of its released program.

  python -m synermedgen_jax.main --config=configs/baselines/syndiff.py \\
      --config.store=STORE --workdir=RUN/syndiff \\
      --config.routes="('pelvis_mr_to_ct', 'pelvis_ct_to_mr')"

Learns both directions of a pair from unpaired slices: 500 epochs of a thousand
slices. Critics have a lower rate.

Hardware: one GPU. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'published') -> ConfigDict:
  config = system_config()
  config.stage = 'syndiff'
  config.model = model
  config.scope = 'pair'
  config.rows = 1
  config.steps = 500_000
  config.learning_rate = 1.6e-4
  config.trainable = ((r'critic.*', 0.625), (r'.*', 1.0))
  config.decay = 'cosine'
  config.b1, config.b2 = 0.5, 0.9
  config.ema = 0.999
  return config
