"""Ablation: Stage I without CTS.

As many steps as Stage I; the other two tasks keep their proportions.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.tasks.cts = 0.0
  return config
