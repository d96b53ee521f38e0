"""Ablation: Stage I without TIA.

As many steps as Stage I; the other two tasks keep their proportions.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.tasks.tia = 0.0
  config.capacity.vit = 40  # of `small`: two questions of five images a row
  return config
