"""Names that flags list; the tables that give them a meaning are elsewhere.

A command's --help lists them without importing the libraries behind a table.
tests/core/test_listed_names.py compares them with the tables.
"""

# `slices/grids.PLANES`.
PLANES = ('axial', 'coronal', 'sagittal')
# What fills the canvas of a slice: the field of view, or the body.
FRAMES = ('volume', 'body')
# `slices/layouts.LAYOUTS`: layouts that need a body region.
LAYOUTS = ('folder', 'flat', 'nnunet', 'bids')
# `slices/public_datasets.PUBLIC_DATASETS`, before a project registers others.
PUBLIC_DATASETS = (
  *('synthrad2023', 'synthrad2025', 'brats', 'autopet', 'myops', 'ibsi_sts'),
)
DATASETS = ('phantom', 'csv', *LAYOUTS, *PUBLIC_DATASETS)
# `evaluation/volume_scores.VOLUME_SCORES`.
VOLUME_SCORES = ('synthrad2023', 'synthrad2025', 'brasyn', 'tissue')
# `evaluation/adherence.ADHERENCE`.
ADHERENCE = ('drift', 'control', 'direction', 'use')
# Splits of subjects.
SPLITS = ('train', 'val', 'test', 'holdout')
# Boxes to which another program crops pictures.
CROPS = ('source', 'target')
# Conditions of a synthesis, `config/sampling.CONDITIONS`.
CONDITIONS = ('text', 'vae', 'vit')
# Norms that guidance may not exceed, `config/sampling.Guidance.renorm`.
RENORMS = ('global', 'channel', 'text_channel')
# `phantoms/shifts.SHIFTS`: scanners of a phantom holdout.
SHIFTS = (
  *('none', 'mr_0p55t', 'mr_3t', 'mr_noise_2x', 'mr_noise_4x', 'mr_bias'),
  *('thick_slices', 'cbct_low_dose', 'cbct_scatter', 'pet_low_counts'),
  *('shift_1mm', 'shift_3mm', 'shift_5mm'),
)
