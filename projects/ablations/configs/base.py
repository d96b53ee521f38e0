"""Ablation: the base alone. What can it do that was never trained on slices?

  python -m synermedgen_jax.evaluate \\
      --config=projects/ablations/configs/base.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --workdir=RUNS/SEED/base

No step is made; the config says how slices are shown and synthesised.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  return stage2.get_config()
