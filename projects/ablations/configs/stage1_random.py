"""Ablation: CTS with negatives from anywhere in the volume.

Candidates come from a window of K + 1 slices around the true one
(`tasks/cts.py`), which is longer than any volume. The evaluation asks the same
questions as for every arm, with neighbours as negatives.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.neighbours = 100_000
  return config
