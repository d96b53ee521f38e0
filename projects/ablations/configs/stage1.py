"""Ablations: Stage I with all three tasks.

configs/small/stage1.py. The `gen` expert of the base is unchanged.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  return stage1.get_config()
