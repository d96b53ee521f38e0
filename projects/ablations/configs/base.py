"""Ablation: the base alone, without training on slices.

  python -m synermedgen_jax.evaluate \\
      --config=projects/ablations/configs/base.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --workdir=RUNS/SEED/base

Nothing is trained; the config sets image sizes and sampling.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  return stage2.get_config()
