"""Ablation: Stage II from the base, without Stage I.

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2_only.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_only

It has the compute of Stage I + II (`ablation_steps.py`), so that a benefit of
Stage I is not one of longer training. The learning rate decays over all steps.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  return stage2.get_config()
