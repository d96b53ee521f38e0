"""Seeded digital phantoms: small volumes with known physics, as NIfTI files.

The embedded default of the demo. A subject's tissue fractions (`anatomy`) are
imaged by simple forward models: CT and cone-beam CT, spin-echo and
inversion-recovery MR, FDG PET. The files are then read as any other volumes.
Unlike BraTS, the heads of the `brats` cohort keep their skull and scalp.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gzip
import json
import math
import os
import pathlib

import nibabel as nib
import numpy as np
import tqdm
from scipy import ndimage, signal

from synermedgen_jax.core.modalities import BRATS_CONTRASTS, Modality
from synermedgen_jax.slices import anatomy

VERSION = 1
MARKER = 'phantoms.json'
_BEGUN = 'phantoms.begun.json'

Fractions = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tissue:
  """What a scanner sees of a tissue.

  Attributes:
    hu: CT number. ICRU reports 44 and 46 through Schneider et al., Phys Med
      Biol 45:459 (2000), rounded; gas-bearing and sick tissue: typical values.
    t1, t2: relaxation times in ms at 1.5 T. Grey and white matter T1 and CSF:
      Rooney et al., Magn Reson Med 57:308 (2007); brain T2, muscle, blood,
      heart, cartilage: Stanisz et al., Magn Reson Med 54:507 (2005); abdomen,
      pelvis, fat, marrow: de Bazelaire et al., Radiology 230:652 (2004).
      Rounded; sick tissue and mucosa: typical values. Fat's T2 is the longer
      one seen in echo trains, and blood's the shorter one of flowing blood.
    pd: proton density, water = 1; typical values.
    gd: contrast agent in mM some minutes after injection; typical values. The
      blood-brain barrier keeps it out of healthy brain.
    suv: FDG uptake; Zincirkeser et al., J Nucl Med Technol 35:45 (2007), and
      Wang et al., Clin Nucl Med 32:1 (2007), rounded.
  """

  hu: float
  t1: float
  t2: float
  pd: float
  gd: float
  suv: float


TISSUES = {
  'air': Tissue(-1000, 1000, 1, 0.0, 0.0, 0.0),
  'skin': Tissue(40, 900, 40, 0.55, 0.1, 0.7),
  'fat': Tissue(-98, 343, 120, 0.80, 0.0, 0.35),
  'muscle': Tissue(52, 1008, 44, 0.80, 0.03, 0.8),
  'cortical': Tissue(1250, 400, 1, 0.10, 0.0, 0.5),
  'marrow': Tissue(220, 549, 90, 0.60, 0.03, 1.4),
  'disc': Tissue(90, 1024, 40, 0.75, 0.0, 0.8),
  'csf': Tissue(8, 4300, 1800, 1.00, 0.0, 0.5),
  'grey': Tissue(39, 1188, 95, 0.82, 0.0, 8.0),
  'white': Tissue(29, 656, 72, 0.70, 0.0, 3.2),
  'dura': Tissue(60, 900, 45, 0.75, 0.35, 1.2),
  'vessel': Tissue(48, 1441, 45, 0.85, 1.2, 1.7),
  'mucosa': Tissue(40, 1100, 100, 0.85, 0.7, 1.3),
  'choroid': Tissue(60, 1200, 160, 0.90, 0.8, 1.5),
  'necrosis': Tissue(16, 2200, 350, 0.95, 0.0, 1.0),
  'rim': Tissue(46, 1300, 115, 0.87, 0.8, 9.0),
  'oedema': Tissue(20, 1300, 180, 0.85, 0.0, 2.5),
  'lung': Tissue(-800, 1200, 35, 0.18, 0.1, 0.5),
  'liver': Tissue(60, 586, 46, 0.80, 0.1, 2.3),
  'spleen': Tissue(52, 1057, 79, 0.82, 0.1, 1.8),
  'kidney': Tissue(34, 966, 87, 0.84, 0.3, 2.8),
  'heart': Tissue(45, 1030, 45, 0.82, 0.2, 4.0),
  'bowel': Tissue(34, 1000, 70, 0.82, 0.2, 1.5),
  'gas': Tissue(-950, 1000, 1, 0.0, 0.0, 0.2),
  'urine': Tissue(6, 3800, 900, 1.00, 0.0, 16.0),
  'gland': Tissue(42, 1317, 100, 0.85, 0.2, 1.8),
  'uterus': Tissue(45, 1309, 117, 0.85, 0.3, 1.9),
  'tumour': Tissue(44, 1250, 80, 0.86, 0.4, 8.0),
}
RELAXIVITY = 4.1e-3  # gadopentetate, 1/(ms mM); Rohrer, Invest Radiol 2005.


@dataclasses.dataclass(frozen=True)
class Sequence:
  """An MR sequence: times in ms; with `ti`, inversion recovery."""

  tr: float
  te: float
  ti: float | None = None
  contrast: bool = False

  def signal(self, tissue: Tissue) -> float:
    """The spin-echo signal of `tissue`, fully relaxed water at TE 0 being 1."""
    gd = tissue.gd if self.contrast else 0.0
    t1 = 1 / (1 / tissue.t1 + RELAXIVITY * gd)
    if self.ti is None:
      recovery = 1 - math.exp(-self.tr / t1)
    else:
      recovery = 1 - 2 * math.exp(-self.ti / t1) + math.exp(-self.tr / t1)
    return tissue.pd * abs(recovery) * math.exp(-self.te / tissue.t2)


@dataclasses.dataclass(frozen=True)
class Cohort:
  """What is imaged, on which grid, and how its files are written.

  Attributes:
    modalities: the volumes of a subject.
    grid: of the anatomy, and of all volumes but PET.
    axes: orientation of the stored array.
    mr: the sequence of each MR contrast.
    field_of_view: CBCT's radius in mm.
  """

  modalities: tuple[Modality, ...]
  grid: anatomy.Grid
  axes: str
  mr: dict[Modality, Sequence]
  field_of_view: float = 0.0


_T1 = Sequence(tr=500, te=10)
_CT_COHORT = (Modality.MR, Modality.CT, Modality.CBCT)
_HEAD_GRID = anatomy.Grid((72, 80, 24), (2.7, 2.7, 4.5), (0, -2, 8))
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
    anatomy.Grid((84, 64, 24), (5.0, 5.0, 6.5), (0, -5, 8)),
    'RAS',
    {Modality.MR: Sequence(tr=4000, te=95)},
    field_of_view=190,
  ),
  'whole_body': Cohort(
    (Modality.PET, Modality.CT),
    anatomy.Grid((76, 60, 40), (6.0, 6.0, 20.0), (0, 0, 85)),
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


def render_fractions(
  cohort: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Paints one subject of `cohort`; fractions of each tissue per voxel."""
  grid = COHORTS[cohort].grid
  if cohort in ('brain', 'brats'):
    canvas = anatomy.Canvas(rng, grid, bend=3.5)
    # Every BraTS subject has a tumour; a planning CT shows one less often.
    count = rng.integers(1, 4) if cohort == 'brats' else rng.integers(0, 3)
    anatomy.paint_head(canvas, int(count))
  elif cohort == 'pelvis':
    canvas = anatomy.Canvas(rng, grid, bend=8.0)
    anatomy.paint_pelvis(canvas)
  else:
    canvas = anatomy.Canvas(rng, grid, bend=8.0)
    anatomy.paint_body(canvas)
  return canvas.fractions()


def _mix(fractions: Fractions, value) -> np.ndarray:
  """The mean over a voxel's tissues of `value(tissue)`."""
  return sum(np.float32(value(TISSUES[t])) * f for t, f in fractions.items())


def _noise(rng: np.random.Generator, shape, scale: float) -> np.ndarray:
  return np.float32(scale) * rng.standard_normal(shape, np.float32)


def image_ct(
  fractions: Fractions, rng: np.random.Generator, grid: anatomy.Grid
) -> np.ndarray:
  """CT in HU: attenuation, faint parenchymal texture, quantum noise."""
  hu = _mix(fractions, lambda tissue: tissue.hu)
  body = 1 - fractions['air']
  hu += 6 * body * anatomy.smooth_field(rng, grid, 3 * grid.spacing[0])
  grain = ndimage.gaussian_filter(_noise(rng, hu.shape, 24), (0.6, 0.6, 0))
  return np.maximum(hu + grain * (0.25 + 0.75 * body), -1024)


def image_cbct(
  ct: np.ndarray,
  rng: np.random.Generator,
  grid: anatomy.Grid,
  field_of_view: float,
) -> np.ndarray:
  """Cone-beam CT from `ct` (HU): the same patient, a worse scanner.

  Scatter lowers the HU towards the body's middle (cupping); few noisy
  views leave streaks from dense voxels, a view's streak being a line through
  them; detector drift leaves rings. Outside a circle there is no data.
  """
  body = np.clip((ct + 1000) / 1000, 0, 1)
  dx, dy, _ = grid.spacing
  depth = ndimage.gaussian_filter(body, (45 / dx, 45 / dy, 1))
  cup = rng.uniform(150, 300) * body * (depth - 0.65)
  x, y = np.meshgrid(*grid.axes()[:2], indexing='ij')
  radius = np.hypot(x - grid.centre[0], y - grid.centre[1])
  drift = rng.standard_normal(int(radius.max() / dx) + 2)
  rings = np.interp(radius / dx, np.arange(len(drift)), drift)
  dense = np.clip(ct - 350, 0, 1200)
  streaks = signal.fftconvolve(
    dense, _star(rng, grid.shape)[..., None], mode='same', axes=(0, 1)
  )
  # Photons are few behind long paths, so the noise follows the depth.
  grain = _noise(rng, ct.shape, 50) * (0.3 + depth)
  grain = ndimage.gaussian_filter(grain, (0.5, 0.5, 0))
  # Scattered photons also flatten contrast: bone reads low, air high.
  hu = (ct + 1000) * rng.uniform(0.82, 0.9) - 940 - cup
  hu = ndimage.gaussian_filter(hu, (0.45, 0.45, 0)) + grain
  rings = 12 * rings * np.exp(-radius / 60)
  hu += rng.uniform(0.5, 1.0) * streaks + rings[..., None]
  hu = np.maximum(hu, -1000)
  hu[radius > field_of_view] = -1000
  return hu


def _star(rng: np.random.Generator, shape, views: int = 9) -> np.ndarray:
  """The in-plane kernel of sparse views: thin rays minus their mean, 1/r."""
  half = min(shape[:2]) // 2
  x, y = np.mgrid[-half : half + 1, -half : half + 1]
  radius = np.hypot(x, y) + 1e-6
  angle = np.arctan2(y, x) * views + rng.uniform(0, np.pi)
  rays = np.cos(2 * angle) / radius
  rays[radius < 2] = 0
  return (0.12 * rays).astype(np.float32)


def image_mr(
  fractions: Fractions,
  sequence: Sequence,
  rng: np.random.Generator,
  grid: anatomy.Grid,
) -> np.ndarray:
  """MR in arbitrary units: contrast, coil shading, Rician noise, gain."""
  image = _mix(fractions, sequence.signal)
  reach = float(np.max(np.multiply(grid.shape, grid.spacing)))
  image = image * np.exp(0.1 * anatomy.smooth_field(rng, grid, reach / 2))
  image *= 1 + 0.03 * anatomy.smooth_field(rng, grid, 2 * grid.spacing[0])
  sigma = 0.02 * float(np.percentile(image, 98))
  real = image + _noise(rng, image.shape, sigma)
  image = np.hypot(real, _noise(rng, image.shape, sigma))
  return image * np.float32(rng.uniform(600, 2400))


def fdg_uptake(fractions: Fractions, rng: np.random.Generator) -> np.ndarray:
  """One subject's true SUV; metabolism varies, in heart and tumour most."""
  spread = {'heart': 0.6, 'tumour': 0.4, 'urine': 0.4, 'bowel': 0.3}
  gains = {t: rng.lognormal(0, spread.get(t, 0.12)) for t in sorted(fractions)}
  return sum(
    np.float32(TISSUES[t].suv * gains[t]) * f for t, f in fractions.items()
  )


def image_pet(
  uptake: np.ndarray,
  rng: np.random.Generator,
  grid: anatomy.Grid,
  fwhm: float = 6.0,
) -> np.ndarray:
  """PET in SUV of `uptake` (SUV): point spread, counts, reconstruction filter.

  Args:
    uptake: true values on `grid`.
    rng: for the counts.
    grid: of the anatomy.
    fwhm: of the scanner's point spread function, in mm.
  """
  sigma = np.asarray([fwhm / 2.355 / s for s in grid.spacing])
  expected = ndimage.gaussian_filter(uptake, sigma)
  counts = 60.0  # per voxel at SUV 1: a deviation of 13 % before the filter
  noisy = rng.poisson(counts * expected).astype(np.float32) / counts
  return ndimage.gaussian_filter(noisy, 0.7 * sigma)


def _affine(grid: anatomy.Grid, axes: str, origin: np.ndarray) -> np.ndarray:
  """Voxel to RAS+ millimetres for an array stored along `axes`."""
  affine = np.diag([*grid.spacing, 1.0])
  affine[:3, 3] = np.asarray([a[0] for a in grid.axes()]) + origin
  codes = nib.orientations.axcodes2ornt(tuple(axes))
  return affine @ nib.orientations.inv_ornt_aff(codes, grid.shape)


def render_phantom(
  cohort: str, seed: int, subject: int
) -> dict[Modality, nib.Nifti1Image]:
  """Renders every volume of one subject; the same arguments, the same voxels.

  Args:
    cohort: a key of `COHORTS`.
    seed: of the whole set.
    subject: number within the cohort.

  Returns:
    Images as a reader finds them: HU, SUV or a.u. once scaled by `get_fdata`.
  """
  # Through bytes, for nibabel applies a header's slope only to what it reads.
  return {
    modality: nib.Nifti1Image.from_bytes(data)
    for modality, data in _render_files(cohort, seed, subject).items()
  }


def _render_files(
  cohort: str, seed: int, subject: int
) -> dict[Modality, bytes]:
  """The NIfTI file of each of a subject's volumes."""
  spec = COHORTS[cohort]
  index = list(COHORTS).index(cohort)
  rng = np.random.default_rng([seed, index, subject])
  fractions = render_fractions(cohort, rng)
  origin = np.round(rng.uniform(-20, 20, 3), 1)
  ct = image_ct(fractions, rng, spec.grid)
  files = {}
  for modality in spec.modalities:
    grid = spec.grid
    if modality == Modality.CT:
      values = ct
    elif modality == Modality.CBCT:
      values = image_cbct(ct, rng, grid, spec.field_of_view)
    elif modality == Modality.PET:
      uptake = fdg_uptake(fractions, rng)
      values, grid = _coarsen(image_pet(uptake, rng, grid), grid)
    else:
      values = image_mr(fractions, spec.mr[modality], rng, grid)
    affine = _affine(grid, spec.axes, origin)
    files[modality] = _encode(values, affine, modality)
  return files


def _coarsen(
  values: np.ndarray, grid: anatomy.Grid, factor: float = 1.25
) -> tuple[np.ndarray, anatomy.Grid]:
  """Resamples in plane to voxels `factor` larger, about the same centre."""
  dx, dy, dz = grid.spacing
  nx, ny, nz = grid.shape
  shape = (round(nx / factor), round(ny / factor), nz)
  coarse = anatomy.Grid(shape, (dx * factor, dy * factor, dz), grid.centre)
  offset = [
    (new[0] - old[0]) / s
    for new, old, s in zip(
      coarse.axes(), grid.axes(), grid.spacing, strict=True
    )
  ]
  values = ndimage.affine_transform(
    values, (factor, factor, 1.0), offset, shape, order=1, mode='nearest'
  )
  return values, coarse


# On disk: number type, slope and intercept. CT keeps DICOM's usual intercept,
# the BraTS contrasts a fractional slope; a reader must honour both.
_STORAGE = {
  Modality.CT: (np.int16, 1.0, -1024.0),
  Modality.CBCT: (np.int16, 1.0, 0.0),
  Modality.PET: (np.float32, 1.0, 0.0),
  Modality.MR: (np.int16, 1.0, 0.0),
}
_FRACTIONAL = (np.int16, 0.25, 0.0)


def _encode(
  values: np.ndarray, affine: np.ndarray, modality: Modality
) -> bytes:
  """`values` (RAS+ array) as a file oriented like `affine`, both forms set."""
  dtype, slope, intercept = _STORAGE.get(modality, _FRACTIONAL)
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
  progress: bool = True,
  workers: int = 2,
) -> None:
  """Writes `root`/<cohort>/<subject>/<modality>.nii.gz for every cohort.

  The marker `phantoms.json` appears last: a set that has it is whole, and a
  second call returns at once; an interrupted one starts again.

  Args:
    root: a new or empty directory, or one that this function began.
    subjects: per cohort.
    seed: of the whole set.
    progress: whether to show a bar.
    workers: threads; NumPy and zlib leave the interpreter lock.

  Raises:
    ValueError: `root` holds something else.
  """
  root = pathlib.Path(root)
  wanted = {'seed': seed, 'subjects': subjects, 'version': VERSION}
  if not _begin(root, wanted):
    return
  jobs = [(c, seed, s) for c in COHORTS for s in range(subjects)]
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    done = pool.map(lambda job: _write_subject(root, *job), jobs)
    bar = tqdm.tqdm(
      done, 'phantoms', len(jobs), unit='subject', disable=not progress
    )
    for _ in bar:
      pass
  os.replace(root / _BEGUN, root / MARKER)


def _begin(root: pathlib.Path, wanted: dict[str, int]) -> bool:
  """Claims `root` for the set `wanted`; False when it is whole already."""
  for name in (MARKER, _BEGUN):
    if (root / name).exists():
      found = json.loads((root / name).read_text())
      if found != wanted:
        raise ValueError(
          f'{root} holds phantoms of {found}, not of {wanted}: '
          'choose another directory or delete it.'
        )
      return name == _BEGUN
  if root.exists() and any(root.iterdir()):
    raise ValueError(
      f'{root} is not empty and holds no {MARKER}: choose another directory.'
    )
  root.mkdir(parents=True, exist_ok=True)
  _write_bytes(root / _BEGUN, json.dumps(wanted).encode())
  return True


def _write_subject(
  root: pathlib.Path, cohort: str, seed: int, subject: int
) -> None:
  folder = root / cohort / f'{cohort}_{subject:03d}'
  folder.mkdir(parents=True, exist_ok=True)
  for modality, data in _render_files(cohort, seed, subject).items():
    # No time stamp: the same arguments give the same bytes.
    data = gzip.compress(data, compresslevel=1, mtime=0)
    _write_bytes(folder / f'{modality}.nii.gz', data)


def _write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Writes a file that is either absent or whole."""
  partial = path.with_name(f'{path.name}.partial')
  partial.write_bytes(data)
  os.replace(partial, path)
