"""Ablation: Stage I without MI. What does the naming of modalities add?

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage1_no_mi.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage1_no_mi
  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2.py \\
      --config.store=STORE --config.init_from=RUNS/SEED/stage1_no_mi \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_no_mi

It has as many steps as Stage I, at the same compute; the other two tasks keep
their proportions. They fill rows less well: with `small`, a step has 11
questions instead of 16.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.tasks.mi = 0.0
  return config
