"""The base draws on, at less than half the rate.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/pictures_more.py \\
      --config.init_from=RUN/pictures --workdir=RUN/pictures_more

Other scenes, drawn from another seed; makes the weights that ship. How well the
base draws is how well Stage II starts (README.md).
small: 37 minutes on one fast CPU core. Result to expect on validation scenes:
flow loss 0.218.
"""

from ml_collections import ConfigDict

from projects.small_base.configs import pictures


def get_config() -> ConfigDict:
  config = pictures.get_config()
  config.seed += 1
  config.learning_rate = 2e-3
  return config
