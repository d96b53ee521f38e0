"""A small store of asymmetric heads, and outputs of another program for it."""

import numpy as np
from scipy import ndimage

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.evaluation.output_files import output_name
from synermedgen_jax.slices.grids import from_slices
from synermedgen_jax.slices.store import Case, SliceStore, StoreWriter
from synermedgen_jax.slices.volumes import Volume, write_volume
from synermedgen_jax.slices.windows import Window

ROUTE = 'brain_mr_to_ct'
CASE = 'brain.b1'
SHAPE = (6, 24, 24)
USABLE = range(1, 5)
WINDOWS = {Modality.CT: Window(-1000, 1000), Modality.MR: Window(0, 800)}
AFFINE = np.array(
  [
    [-2.0, 0, 0, 20],
    [0, -2.0, 0, 30],
    [0, 0, 3.0, -10],
    [0, 0, 0, 1],
  ]
)
_SPLITS = {'brain.b0': 'train', CASE: 'test', 'brain.b2': 'test'}
# Half axes of the head in pixels, centred on rows 2 to 20, columns 5 to 19.
_CENTRE, _RADII = (11.0, 12.0), (9.5, 7.5)


def _head(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
  z, y, x = np.indices(shape)
  inside = np.hypot((y - _CENTRE[0]) / _RADII[0], (x - _CENTRE[1]) / _RADII[1])
  rng = np.random.default_rng(seed)
  texture = ndimage.gaussian_filter(rng.normal(size=shape), (1, 2, 2))
  texture *= 0.2 / texture.std()
  slope = 0.03 * (y - _CENTRE[0]) + 0.02 * (x - _CENTRE[1]) + 0.05 * z
  values = np.clip(texture + slope, -0.9, 0.9)
  return np.where(inside <= 1, values, -1).astype(np.float32)


def write_store(path, depth: int = SHAPE[0]) -> SliceStore:
  """A training and two test subjects with CT and MR, `depth` slices each."""
  shape = (depth, *SHAPE[1:])
  writer = StoreWriter(str(path), {'canvas': list(SHAPE[1:])})
  for number, case_id in enumerate(_SPLITS):
    case = Case(
      id=case_id,
      dataset='brain',
      subject=case_id.partition('.')[2],
      region=Region.BRAIN,
      modalities=WINDOWS,
      sources=dict.fromkeys(WINDOWS, ''),
      shape=shape,
      affine=tuple(map(tuple, AFFINE.tolist())),
      plane='axial',
      usable=range(1, depth - 1),
    )
    head = _head(number, shape)
    # The source is darker and blurred; black stays black.
    body = head > -1
    source = np.where(body, ndimage.gaussian_filter(head, (0, 1, 1)) / 2, -1)
    volumes = {Modality.CT: head, Modality.MR: source.astype(np.float32)}
    writer.write_case(case, volumes, body)
  writer.finish(_SPLITS)
  return SliceStore.open(str(path))


def truths(store):
  """Case -> the CT in [-1, 1]."""
  return {
    c.id: store.read_volume(c.id, Modality.CT) for c in store.split('test')
  }


def hounsfield(slices):
  return WINDOWS[Modality.CT].denormalise(slices)


def write_volumes(folder, volumes, affine=AFFINE):
  """Writes volumes in HU with the exported names: case -> slices."""
  for case, slices in volumes.items():
    path = folder / f'{output_name(ROUTE, case)}.nii.gz'
    write_volume(path, Volume(from_slices(slices), affine))


def slice_paths(folder, volumes, suffix, route=ROUTE):
  """Yields (path, image) of the usable slices with the exported names."""
  folder.mkdir(parents=True, exist_ok=True)
  for case, slices in volumes.items():
    for index in USABLE:
      yield folder / f'{output_name(route, case, index)}{suffix}', slices[index]


def levels(image):
  """[-1, 1] as 8 bits."""
  return np.round((image + 1) / 2 * 255).astype(np.uint8)
