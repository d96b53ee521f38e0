"""CycleGAN, with the recipe of its released program.

  python -m synermedgen_jax.main --config=configs/baselines/cyclegan.py \\
      --config.store=STORE --workdir=RUN/cyclegan \\
      --config.routes="('pelvis_mr_to_ct', 'pelvis_ct_to_mr')"

Learns both directions of a pair from unpaired slices: 200 epochs of a thousand
slices, one of each modality per step; the second half of the steps decays the
rate.

Hardware: one GPU. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'published') -> ConfigDict:
  config = system_config()
  config.stage = 'cyclegan'
  config.model = model
  config.scope = 'pair'
  config.rows = 1
  config.steps = 200_000
  config.learning_rate = 2e-4
  config.decay = 'linear'
  config.b1, config.b2 = 0.5, 0.999
  config.augment.mirror = 0.5
  return config
