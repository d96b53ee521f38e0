"""Ablation: both losses in one step, instead of two stages.

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/joint.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/joint

configs/small/joint.py, at the compute of Stage I + II (`ablation_steps.py`).
Trains everything but the autoencoder.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import joint


def get_config() -> ConfigDict:
  return joint.get_config()
