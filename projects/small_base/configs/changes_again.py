"""The base trains on changes again, from the initial rate of `changes`.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/changes_again.py \\
      --config.init_from=RUN/changes --workdir=RUN/changes_again

The questions are drawn from another seed.
small: 12 minutes on two shared CPU cores. Result to expect on validation
scenes: change 0.71, style 0.80 (all four panels), view 0.78.
"""

from ml_collections import ConfigDict

from projects.small_base.configs import changes


def get_config() -> ConfigDict:
  config = changes.get_config()
  config.seed += 1
  config.steps = 1600
  return config
