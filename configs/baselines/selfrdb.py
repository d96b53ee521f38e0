"""SelfRDB, with the recipe of its released program.

  python -m synermedgen_jax.main --config=configs/baselines/selfrdb.py \\
      --config.store=STORE --config.routes="('pelvis_mr_to_ct',)" \\
      --workdir=RUN/selfrdb

50 epochs of a thousand batches of four pairs. The critic has a lower rate.

Hardware: one GPU. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'published') -> ConfigDict:
  config = system_config()
  config.stage = 'selfrdb'
  config.model = model
  config.rows = 4
  config.steps = 50_000
  config.learning_rate = 1.6e-4
  config.trainable = ((r'critic.*', 0.625), (r'.*', 1.0))
  config.decay = 'cosine'
  config.b1, config.b2 = 0.5, 0.9
  return config
