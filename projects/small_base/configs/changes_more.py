"""The base trains on changes a third time, at the rate of `changes`.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/changes_more.py \\
      --config.init_from=RUN/changes_again --workdir=RUN/changes_more

The questions are drawn from another seed. The accuracy of `change` limits that
of TIA after Stage I (README.md).
small: 25 minutes on two shared CPU cores. Result to expect in training: change
0.88, style 0.65 (all four panels), view 0.68.
"""

from ml_collections import ConfigDict

from projects.small_base.configs import changes


def get_config() -> ConfigDict:
  config = changes.get_config()
  config.seed += 2
  config.steps = 3200
  return config
