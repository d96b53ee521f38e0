"""Seeded digital phantoms: small volumes with known physics, as NIfTI files.

They are the data of the demo. A subject's anatomy is painted as tissue
fractions, and every scanner of its cohort images them. `prepare` reads the
files like any other volumes. `lesion.nii.gz` marks the voxels of the anatomy
that are more than half lesion. Unlike in BraTS, the heads of the `brats` cohort
have skull and scalp.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gzip
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import BRATS_CONTRASTS, ROUTES, Modality
from synermedgen_jax.core.progress import each
from synermedgen_jax.phantoms import scanners
from synermedgen_jax.phantoms.anatomy_head import paint_head
from synermedgen_jax.phantoms.anatomy_trunk import paint_body, paint_pelvis
from synermedgen_jax.phantoms.canvas import Canvas, Grid
from synermedgen_jax.phantoms.scanners import Fractions, Sequence
from synermedgen_jax.phantoms.shifts import (
  SHIFTS,
  TRAINING,
  moved,
  moved_fractions,
)
from synermedgen_jax.phantoms.truth import LESION
from synermedgen_jax.slices.datasets import (
  CaseFiles,
  DatasetError,
  folder_cases,
)

# Changes when the volumes change; sets without lesion masks have the same.
VERSION = 1
MARKER = 'phantoms.json'
_BEGUN = 'phantoms.begun.json'
_HOLDOUT = 1  # last word of the seed of a holdout's subjects
# Files of masks, beside the volumes: of lesions, and of a holdout's body.
_LESION, _BODY = 'lesion', 'mask'


@dataclasses.dataclass(frozen=True)
class Cohort:
  """Modalities, grid and file layout of a group of subjects.

  Attributes:
    modalities: modalities of every subject.
    grid: grid of the anatomy and of all volumes except PET.
    axes: orientation of the stored array, e.g. 'RAS'.
    mr: sequence of each MR contrast.
    field_of_view: radius of the CBCT's field of view in mm.
  """

  modalities: tuple[Modality, ...]
  grid: Grid
  axes: str
  mr: dict[Modality, Sequence]
  field_of_view: float = 0.0


_T1 = Sequence(tr=500, te=10)
_CT_COHORT = (Modality.MR, Modality.CT, Modality.CBCT)
_HEAD_GRID = Grid((72, 80, 24), (2.7, 2.7, 4.5), (0, -2, 8))
COHORTS = {
  'brain': Cohort(
    _CT_COHORT,
    _HEAD_GRID,
    'RAS',
    {Modality.MR: Sequence(tr=2000, te=5, ti=800)},
    field_of_view=100,
  ),
  'pelvis': Cohort(
    _CT_COHORT,
    Grid((84, 64, 24), (5.0, 5.0, 6.5), (0, -5, 8)),
    'RAS',
    {Modality.MR: Sequence(tr=4000, te=95)},
    field_of_view=190,
  ),
  'whole_body': Cohort(
    (Modality.PET, Modality.CT),
    Grid((76, 60, 40), (6.0, 6.0, 20.0), (0, 0, 85)),
    'RAS',
    {},
  ),
  'brats': Cohort(
    BRATS_CONTRASTS,
    _HEAD_GRID,
    'LPS',
    {
      Modality.T1: _T1,
      Modality.T1CE: dataclasses.replace(_T1, contrast=True),
      Modality.T2: Sequence(tr=4500, te=100),
      Modality.FLAIR: Sequence(tr=9000, te=110, ti=2500),
    },
  ),
}


def render_fractions(cohort: str, rng: np.random.Generator) -> Fractions:
  """Paints one subject of `cohort`; returns tissue -> fraction per voxel."""
  grid = COHORTS[cohort].grid
  if cohort in ('brain', 'brats'):
    canvas = Canvas(rng, grid, bend=3.5)
    # Every BraTS subject has a tumour; in planning CTs they are less frequent.
    count = rng.integers(1, 4) if cohort == 'brats' else rng.integers(0, 3)
    paint_head(canvas, int(count))
  elif cohort == 'pelvis':
    canvas = Canvas(rng, grid, bend=8.0)
    paint_pelvis(canvas)
  else:
    canvas = Canvas(rng, grid, bend=8.0)
    paint_body(canvas)
  return canvas.fractions()


def _affine(grid: Grid, axes: str, origin: np.ndarray) -> np.ndarray:
  """Voxel to RAS+ millimetres for an array stored along `axes`."""
  affine = np.diag([*grid.spacing, 1.0])
  affine[:3, 3] = np.asarray([a[0] for a in grid.axes()]) + origin
  codes = nib.orientations.axcodes2ornt(tuple(axes))
  return affine @ nib.orientations.inv_ornt_aff(codes, grid.shape)


def _paint(
  cohort: str, seed: int, subject: int, *stream: int
) -> tuple[Fractions, np.ndarray, np.random.Generator]:
  """A subject's tissue fractions, its origin in mm, and its generator."""
  index = list(COHORTS).index(cohort)
  rng = np.random.default_rng([seed, index, subject, *stream])
  fractions = render_fractions(cohort, rng)
  return fractions, np.round(rng.uniform(-20, 20, 3), 1), rng


def render_anatomy(
  cohort: str, seed: int, subject: int
) -> tuple[Fractions, Float[np.ndarray, '4 4']]:
  """Paints a subject's anatomy again, the ground truth of its volumes.

  Args:
    cohort, seed, subject: as in `render_phantom`.

  Returns:
    Tissue -> float32 fraction of every voxel, with axes right, anterior,
    superior; and the affine from indices to RAS+ mm in the frame of the
    subject's files.
  """
  fractions, origin, _ = _paint(cohort, seed, subject)
  return fractions, _affine(COHORTS[cohort].grid, 'RAS', origin)


def render_phantom(
  cohort: str, seed: int, subject: int, shift: str = ''
) -> dict[Modality, nib.Nifti1Image]:
  """Renders every volume of one subject; deterministic.

  Args:
    cohort: a key of `COHORTS`.
    seed: random seed of the set of phantoms.
    subject: number within the cohort.
    shift: a key of `SHIFTS`, for a subject of a holdout, who is in no set
      without a shift; '' = a subject of a training set.

  Returns:
    Modality -> image, whose `get_fdata` returns HU, SUV or a.u.
  """
  # Encoded first: nibabel applies a header's slope only to files that it reads.
  return {
    Modality(name): nib.Nifti1Image.from_bytes(data)
    for name, data in _render_files(cohort, seed, subject, shift).items()
    if name not in (_LESION, _BODY)
  }


def _render_files(
  cohort: str, seed: int, subject: int, name: str
) -> dict[str, bytes]:
  """The NIfTI files of a subject's volumes and masks, by name."""
  spec = COHORTS[cohort]
  shift = SHIFTS[name] if name else TRAINING
  fractions, origin, rng = _paint(
    cohort, seed, subject, *((_HOLDOUT,) if name else ())
  )
  ct = scanners.image_ct(fractions, rng, spec.grid)
  files = {}
  for modality in spec.modalities:
    grid, mm = spec.grid, shift.offset(modality)
    if modality == Modality.CT:
      values = ct
    elif modality == Modality.CBCT:
      values = scanners.image_cbct(
        moved(ct, grid, mm), rng, grid, spec.field_of_view, shift
      )
    elif modality == Modality.PET:
      seen = moved_fractions(fractions, grid, mm)
      uptake = scanners.fdg_uptake(seen, rng)
      values, grid = scanners.coarsen(
        scanners.image_pet(uptake, rng, grid, shift=shift), grid
      )
    else:
      seen = moved_fractions(fractions, grid, mm)
      values = scanners.image_mr(seen, spec.mr[modality], rng, grid, shift)
    affine = _affine(grid, spec.axes, origin)
    files[modality.value] = _encode(values, affine, modality.value)
  affine = _affine(spec.grid, spec.axes, origin)
  files[_LESION] = _encode(_lesion(fractions), affine, _LESION)
  if name:
    # Noise and shading would change a mask that is found in the image.
    files[_BODY] = _encode(_body(fractions), affine, _BODY)
  return files


def _lesion(fractions: Fractions) -> Bool[np.ndarray, 'x y z']:
  """Voxels that are more than half lesion."""
  return sum(fractions.get(t, 0.0 * fractions['air']) for t in LESION) > 0.5


def _body(fractions: Fractions) -> Bool[np.ndarray, 'x y z']:
  """Voxels that are more than half tissue, and holes of their slices."""
  solid = np.moveaxis(fractions['air'] < 0.5, 2, 0)
  return np.stack([ndimage.binary_fill_holes(s) for s in solid], axis=2)


# Number type, slope and intercept on disk. CT has DICOM's usual intercept and
# the BraTS contrasts a fractional slope, so the phantoms test readers of both.
_STORAGE = {
  Modality.CT: (np.int16, 1.0, -1024.0),
  Modality.CBCT: (np.int16, 1.0, 0.0),
  Modality.PET: (np.float32, 1.0, 0.0),
  Modality.MR: (np.int16, 1.0, 0.0),
  _LESION: (np.uint8, 1.0, 0.0),
  _BODY: (np.uint8, 1.0, 0.0),
}
_FRACTIONAL = (np.int16, 0.25, 0.0)


def _encode(values: np.ndarray, affine: np.ndarray, name: str) -> bytes:
  """Encodes RAS+ `values` as NIfTI in the orientation of `affine`."""
  dtype, slope, intercept = _STORAGE.get(name, _FRACTIONAL)
  if dtype is np.int16:
    values = np.round((values - intercept) / slope)
  turn = nib.io_orientation(affine)
  values = nib.orientations.apply_orientation(values, turn)
  image = nib.Nifti1Image(np.ascontiguousarray(values, dtype), affine)
  image.header.set_slope_inter(slope, intercept)
  image.header.set_xyzt_units('mm')
  image.set_qform(affine, code=1)
  image.set_sform(affine, code=1)
  return image.to_bytes()


def write_phantoms(
  root: str | os.PathLike[str],
  *,
  subjects: int,
  seed: int = 0,
  shift: str = '',
  progress: bool = True,
  workers: int = 2,
) -> None:
  """Writes `root`/<cohort>/<subject>/<modality>.nii.gz for every cohort.

  Each subject also has a lesion mask, lesion.nii.gz. The marker `phantoms.json`
  is written last. If it exists, the set is complete and the call returns at
  once. An interrupted set is written again.

  Args:
    root: a new or empty directory, or one that this function started to fill.
    subjects: number of subjects per cohort.
    seed: random seed of the set.
    shift: as in `render_phantom`.
    progress: whether to show a progress bar.
    workers: number of threads; NumPy and zlib release the interpreter lock.

  Raises:
    UserError: `root` contains other files or another set, or the seed has more
      than 32 bits: those of a holdout's subjects have.
  """
  if not 0 <= seed < 2**32:
    raise UserError(f'--seed={seed}: expected a number from 0 to {2**32 - 1}.')
  root = pathlib.Path(root)
  wanted = {'seed': seed, 'subjects': subjects, 'version': VERSION}
  if shift:
    wanted['shift'] = {'name': shift, **SHIFTS[shift].record()}
  if not _begin(root, wanted):
    return
  jobs = [(c, seed, s, shift) for c in COHORTS for s in range(subjects)]
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    done = pool.map(lambda job: _write_subject(root, *job), jobs)
    for _ in each(done, 'phantoms', len(jobs), 'subject', shown=progress):
      pass
  os.replace(root / _BEGUN, root / MARKER)


def _begin(root: pathlib.Path, wanted: Mapping[str, Any]) -> bool:
  """Claims `root` for the set `wanted`; False if the set is complete."""
  for name in (MARKER, _BEGUN):
    if (root / name).exists():
      stored = json.loads((root / name).read_text('utf-8'))
      if stored != wanted:
        raise UserError(
          f'{root} holds phantoms with {stored}, not with {wanted}: '
          'choose another directory or delete it.'
        )
      return name == _BEGUN
  if root.exists() and any(root.iterdir()):
    raise UserError(
      f'{root} is not empty and holds no {MARKER}: choose another directory.'
    )
  root.mkdir(parents=True, exist_ok=True)
  files.write_bytes(root / _BEGUN, json.dumps(wanted).encode())
  return True


def _write_subject(
  root: pathlib.Path, cohort: str, seed: int, subject: int, shift: str
) -> None:
  folder = root / cohort / f'{cohort}_{subject:03d}'
  folder.mkdir(parents=True, exist_ok=True)
  for name, data in _render_files(cohort, seed, subject, shift).items():
    # No time stamp: the same arguments give the same bytes.
    data = gzip.compress(data, compresslevel=1, mtime=0)
    files.write_bytes(folder / f'{name}.nii.gz', data)


def phantom_cases(root: pathlib.Path) -> list[CaseFiles]:
  """Lists the cases of the phantoms under `root`; a cohort is a dataset.

  Raises:
    DatasetError: the set is missing or incomplete.
  """
  if not (root / MARKER).is_file():
    raise DatasetError(f'{root}: holds no complete set of phantoms.')
  regions = {route.cohort: route.region for route in ROUTES}
  return [
    case
    for cohort in COHORTS
    for case in folder_cases(
      root / cohort, dataset=cohort, region=regions[cohort]
    )
  ]
