"""Ablation: Stage I without TIA. What does the alignment with instructions add?

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage1_no_tia.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage1_no_tia
  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2.py \\
      --config.store=STORE --config.init_from=RUNS/SEED/stage1_no_tia \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_no_tia

It has the compute of Stage I; the other two tasks keep their proportions. A row
of `small` has room for the images of two questions, so a step needs slightly
more operations.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.tasks.tia = 0.0
  config.capacity.vit = 40  # two questions of five images fit in a row
  return config
