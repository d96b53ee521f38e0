"""A small slice store in which every pixel identifies its slice."""

import numpy as np

from synermedgen_jax.core.modalities import ROUTES, Modality, Region
from synermedgen_jax.slices.store import Case, SliceStore, StoreWriter
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.tasks.example import SliceRef

CANVAS, DEPTH, USABLE = 16, 8, range(1, 7)
_LEVELS = 65535
_MODALITIES = tuple(m for m in Modality if m in {r.source for r in ROUTES})
_BRATS = (Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR)

_CASES = [
  ('train', Region.BRAIN, (Modality.CT, Modality.MR)),
  ('train', Region.PELVIS, (Modality.CBCT, Modality.CT)),
  ('train', Region.BRAIN, _BRATS),
  ('val', Region.BRAIN, (Modality.CT, Modality.MR)),
  ('val', Region.BRAIN, _BRATS),
  ('test', Region.BRAIN, (Modality.CT, Modality.MR)),
  ('test', Region.PELVIS, (Modality.CBCT, Modality.CT)),
  ('holdout', Region.BRAIN, _BRATS),
]


def _case(number: int) -> Case:
  split, region, modalities = _CASES[number]
  return Case(
    id=f'case{number}',
    dataset='fake',
    subject=f'subject{number}',
    region=region,
    split=split,
    modalities={m: Window(0.0, 1.0) for m in modalities},
    sources={m: f'{m}.nii.gz' for m in modalities},
    shape=(DEPTH, CANVAS, CANVAS),
    affine=tuple(map(tuple, np.eye(4).tolist())),
    plane='axial',
    usable=USABLE,
  )


def _volume(number: int, modality: Modality) -> np.ndarray:
  first = (number * len(_MODALITIES) + _MODALITIES.index(modality)) * DEPTH
  levels = first + np.arange(DEPTH)
  slices = np.ones((1, CANVAS, CANVAS)) * levels[:, None, None]
  return (slices * 2 / _LEVELS - 1).astype(np.float32)


def slice_of(pixel) -> SliceRef:
  """The slice that a pixel belongs to."""
  mark = round((float(pixel) + 1) / 2 * _LEVELS)
  volume, index = divmod(mark, DEPTH)
  number, modality = divmod(volume, len(_MODALITIES))
  return SliceRef(f'case{number}', _MODALITIES[modality], index)


def write_store(path, *, finish: bool = True, without: str = '') -> None:
  """Eight cases, three of them to train on; without a case or a split."""
  writer = StoreWriter(str(path), {'canvas': CANVAS})
  cases = [_case(number) for number in range(len(_CASES))]
  for number, case in enumerate(cases):
    volumes = {m: _volume(number, m) for m in case.modalities}
    writer.write_case(case, volumes, np.ones(case.shape, bool))
  if finish:
    kept = [c for c in cases if without not in (c.id, c.split)]
    writer.finish({c.id: c.split for c in kept})


def cases_of(store: SliceStore, split: str) -> set[str]:
  return {case.id for case in store.split(split)}
