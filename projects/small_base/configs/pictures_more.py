"""The base continues to learn drawing, at less than half the rate.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/pictures_more.py \\
      --config.init_from=RUN/pictures --workdir=RUN/pictures_more

The scenes are drawn from another seed. The result becomes the shipped weights.
A base that draws better gives Stage II a better start (README.md).
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
