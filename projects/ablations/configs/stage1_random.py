"""Ablation: CTS with random negatives. Do neighbours teach finer anatomy?

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage1_random.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage1_random
  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2.py \\
      --config.store=STORE --config.init_from=RUNS/SEED/stage1_random \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_random

Candidates come from a window of K + 1 slices around the true one
(`tasks/cts.py`), which is longer than any volume. The evaluation asks the same
questions as for every arm, with neighbours as negatives.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.neighbours = 100_000
  return config
