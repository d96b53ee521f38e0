"""Ablations: Stage II, `und` frozen; the second half of most arms.

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2.py \\
      --config.store=STORE --config.init_from=RUNS/SEED/stage1 \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2

configs/small/stage2.py. From RUNS/SEED/stage1 it is the reference, Stage I +
II; from another Stage I it is the arm of that one.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  return stage2.get_config()
