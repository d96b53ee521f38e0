"""Ablation: Stage II from the base, without Stage I.

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2_only.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_only

At equal compute: Stage II's steps and as many more as Stage I's operations
allow (`ablation_steps.py`), so that what Stage I adds is not only
longer training. The learning rate decays over all of them.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  return stage2.get_config()
