"""Ablation: Stage II from the base, without Stage I.

  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2_only.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_only

At equal compute: Stage II's steps and as many more as Stage I's operations
allow (`ablation_steps.py`), so that what Stage I adds is not only
longer training. The learning rate decays over all of them. The words of the
modalities start where Stage I has them start.

`run.sh` runs it. Time and result: docs/ablations.md.
"""

from ml_collections import ConfigDict

from configs.small import stage2
from projects.small_base.new_words import WORDS_OF_SCENES


def get_config() -> ConfigDict:
  config = stage2.get_config()
  config.new_words = WORDS_OF_SCENES
  return config
