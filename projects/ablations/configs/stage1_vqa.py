"""Ablation: ordinary medical VQA instead of the three tasks.

Is it the alignment of the tasks with generation that helps, or any question
about medical images? The questions are about single slices: is there a lesion,
which side, which organ, how large? `phantom_vqa.py` writes them.

`cells.py` sets model, start, capacity and steps. Results: RESULTS.md.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.tasks = {'vlm': 1.0}
  return config
