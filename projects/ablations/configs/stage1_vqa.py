"""Ablation: ordinary medical VQA instead of the three tasks.

  python -m projects.ablations.phantom_vqa --phantoms=PHANTOMS --store=STORE \\
      --output=VQA
  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage1_vqa.py \\
      --config.store=STORE --config.init_from=weights/small \\
      --config.bagel_files.vlm=VQA/train/vlm.jsonl \\
      --config.bagel_files.val_vlm=VQA/val/vlm.jsonl \\
      --config.seed=SEED --workdir=RUNS/SEED/stage1_vqa
  python -m synermedgen_jax.evaluate --workdir=RUNS/SEED/stage1_vqa \\
      --parts=understanding,synthesis
  python -m synermedgen_jax.main \\
      --config=projects/ablations/configs/stage2.py \\
      --config.store=STORE --config.init_from=RUNS/SEED/stage1_vqa \\
      --config.seed=SEED --workdir=RUNS/SEED/stage2_vqa

Is it the alignment of the tasks with generation that helps, or any question
about medical images? The questions are about single slices: is there a lesion,
which side, which organ, how large? As many steps as Stage I, at the same
compute.

`run.sh` runs it. Time and result: README.md of the project.
"""

from ml_collections import ConfigDict

from configs.small import stage1


def get_config() -> ConfigDict:
  config = stage1.get_config()
  config.tasks = {'vlm': 1.0}
  return config
