"""Ablation: Stage I alone. Does understanding alone teach to synthesise?

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage1.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage1
  python -m synermedgen_jax.evaluate --workdir=RUNS/SEED/stage1 \\
      --parts=understanding,synthesis

configs/small/stage1.py. The `gen` expert of the base is unchanged. Stage I + II
starts from this run.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  return stage1.get_config()
