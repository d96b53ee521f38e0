"""Ablations: Stage II, `und` frozen; what follows in most arms.

configs/small/stage2.py. The regimes of `plan.py` change dropout, subjects,
routes and sampling.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import stage2


def get_config() -> ConfigDict:
  return stage2.get_config()
