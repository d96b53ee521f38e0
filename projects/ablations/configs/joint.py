"""Ablation: both losses in one step, instead of two stages.

configs/small/joint.py, with the operations of Stage I + II. Trains everything
but the autoencoder.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import joint


def get_config() -> ConfigDict:
  return joint.get_config()
