"""ResViT, with the recipe of its released program, in two stages.

  python -m synermedgen_jax.main \\
      --config=configs/baselines/resvit.py:published_cnn --config.store=STORE \\
      --config.routes="('pelvis_mr_to_ct',)" --config.learning_rate=2e-4 \\
      --config.steps=100000 --workdir=RUN/res_cnn
  python -m synermedgen_jax.main --config=configs/baselines/resvit.py \\
      --config.store=STORE --config.routes="('pelvis_mr_to_ct',)" \\
      --config.init_from=RUN/res_cnn --workdir=RUN/resvit

The first stage trains the CNN for 100 epochs of a thousand pairs, the second
one all of it for 50; the second half of the steps decays the rate.

Hardware: one GPU. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import system_config


def get_config(model: str = 'published') -> ConfigDict:
  config = system_config()
  config.stage = 'resvit'
  config.model = model
  config.rows = 1
  config.steps = 50_000
  config.learning_rate = 1e-3
  config.decay = 'linear'
  config.b1, config.b2 = 0.5, 0.999
  config.augment.mirror = 0.5
  return config
