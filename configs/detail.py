"""The detail path, on a frozen model (docs/detail.md).

  python -m synermedgen_jax.main --config=configs/detail.py \\
      --config.init_from=RUN/stage2 --config.store=STORE --workdir=RUN/detail

RUN/stage2 is a run of `stage2.py`, or an import of BAGEL's weights; the word
after the colon is as there. Pictures are equal to those of RUN/stage2 until the
first update.

Hardware: as `stage2.py`. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config(model: str = 'bagel_7b') -> ConfigDict:
  config = default_config()
  config.stage = 'ucg'
  config.model = model
  config.detail = 32

  config.tasks = {'synthesis': 1.0, 'editing': 0.0}
  # Four pairs fill a row: a slice is 32 x 32 latent and 28 x 28 ViT tokens.
  config.capacity = {'und': 3456, 'gen': 8 * 1024, 'vit': 4 * 784, 'images': 8}

  # Multipliers of config.learning_rate.
  config.trainable = ((r'detail/.*', 1.0), (r'.*', 0.0))
  config.objective = {'flow_weight': 1.0, 'train_shift': 1.0}
  # The path starts from random weights, which 2e-5 would hardly move.
  config.learning_rate = 1e-3
  return config
