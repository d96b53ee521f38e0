"""Simple scanners: tissue fractions to CT, cone-beam CT, MR and FDG PET.

A voxel has the mean signal of its tissues. Each scanner then adds blur,
shading, artefacts and noise.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import ndimage, signal

from synermedgen_jax.phantoms.canvas import Grid, smooth_field
from synermedgen_jax.phantoms.shifts import FIELD, TRAINING, Shift, thicker

Fractions = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tissue:
  """Properties of a tissue that determine its signal in each scanner.

  Values are rounded from the sources below. Values without a source, and all
  values of lesions and mucosa, are typical clinical values.

  Attributes:
    hu: CT number, from the compositions of ICRU Report 44 (1989) by the method
      of Schneider et al., Phys Med Biol 45:459 (2000). Typical values for skin,
      disc, marrow, lung and abdomen.
    t1, t2: relaxation times in ms at 1.5 T. T1 of grey and white matter and of
      CSF: Rooney et al., Magn Reson Med 57:308 (2007). Brain T2, muscle, heart,
      T1 of blood and of cartilage (`disc`): Stanisz et al., Magn Reson Med
      54:507 (2005). Abdomen, pelvis, T1 of fat and of marrow: de Bazelaire et
      al., Radiology 230:652 (2004). Typical values for the T2 of fat and marrow
      (longer in echo trains) and of blood (shorter, because flow dephases it).
    pd: proton density, water = 1; typical values.
    gd: contrast agent in mM some minutes after injection; typical values. The
      blood-brain barrier keeps it out of healthy brain.
    suv: FDG uptake normalised by body weight. Normal tissue: Zasadny and Wahl,
      Radiology 189:847 (1993); Wang et al., Mol Imaging Biol 9:83 (2007). Urine
      and heart vary most.
    exponent: T1 is proportional to this power of the field strength. Grey and
      white matter, blood and fluids (0): Rooney et al. as above, 0.2 to 7 T.
      Muscle, heart, liver, spleen, kidney and fat: Bottomley et al., Med Phys
      11:425 (1984), 1 to 100 MHz, which is 2.3 T. Other tissues: 1/3, between
      those of soft tissues. T2 has none, as in Bottomley et al.
  """

  hu: float
  t1: float
  t2: float
  pd: float
  gd: float
  suv: float
  exponent: float = 1 / 3

  def t1_at(self, field: float) -> float:
    """T1 in ms at a field strength in T."""
    return self.t1 * (field / FIELD) ** self.exponent


TISSUES = {
  'air': Tissue(-1000, 1000, 1, 0.0, 0.0, 0.0),
  'skin': Tissue(40, 900, 40, 0.55, 0.1, 0.7),
  'fat': Tissue(-98, 343, 120, 0.80, 0.0, 0.35, 0.1743),
  'muscle': Tissue(52, 1008, 44, 0.80, 0.03, 0.8, 0.4203),
  'cortical': Tissue(1250, 400, 1, 0.10, 0.0, 0.5),
  'marrow': Tissue(220, 549, 90, 0.60, 0.03, 1.4),
  'disc': Tissue(90, 1024, 40, 0.75, 0.0, 0.8),
  'csf': Tissue(8, 4300, 1800, 1.00, 0.0, 0.5, 0.0),
  'grey': Tissue(39, 1188, 95, 0.82, 0.0, 8.0, 0.376),
  'white': Tissue(29, 656, 72, 0.70, 0.0, 3.2, 0.382),
  'dura': Tissue(60, 900, 45, 0.75, 0.35, 1.2),
  'vessel': Tissue(48, 1441, 45, 0.85, 1.2, 1.7, 0.340),
  'mucosa': Tissue(40, 1100, 100, 0.85, 0.7, 1.3),
  'choroid': Tissue(60, 1200, 160, 0.90, 0.8, 1.5),
  'necrosis': Tissue(16, 2200, 350, 0.95, 0.0, 1.0, 0.0),
  'rim': Tissue(46, 1300, 115, 0.87, 0.8, 9.0),
  'oedema': Tissue(20, 1300, 180, 0.85, 0.0, 2.5),
  'lung': Tissue(-800, 1200, 35, 0.18, 0.1, 0.5),
  'liver': Tissue(60, 586, 46, 0.80, 0.1, 2.3, 0.3799),
  'spleen': Tissue(52, 1057, 79, 0.82, 0.1, 1.8, 0.3321),
  'kidney': Tissue(34, 966, 87, 0.84, 0.3, 2.8, 0.2488),
  'heart': Tissue(45, 1030, 45, 0.82, 0.2, 4.0, 0.3618),
  'bowel': Tissue(34, 1000, 70, 0.82, 0.2, 1.5),
  'gas': Tissue(-950, 1000, 1, 0.0, 0.0, 0.2),
  'urine': Tissue(6, 3800, 900, 1.00, 0.0, 16.0, 0.0),
  'gland': Tissue(42, 1317, 100, 0.85, 0.2, 1.8),
  'uterus': Tissue(45, 1309, 117, 0.85, 0.3, 1.9),
  'tumour': Tissue(44, 1250, 80, 0.86, 0.4, 8.0),
}
# Longitudinal relaxivity of gadopentetate in plasma at 1.5 T, 1/(ms mM): Rohrer
# et al., Invest Radiol 40:715 (2005).
RELAXIVITY = 4.1e-3


@dataclasses.dataclass(frozen=True)
class Sequence:
  """An MR sequence.

  Attributes:
    tr, te: repetition and echo time in ms.
    ti: inversion time in ms; None = spin echo without inversion.
    contrast: whether contrast agent is given.
  """

  tr: float
  te: float
  ti: float | None = None
  contrast: bool = False

  def signal(self, tissue: Tissue, field: float = FIELD) -> float:
    """The signal of `tissue`; fully relaxed water at TE 0 has signal 1.

    Args:
      tissue: the tissue.
      field: field strength in T.
    """
    gd = tissue.gd if self.contrast else 0.0
    t1 = 1 / (1 / tissue.t1_at(field) + RELAXIVITY * gd)
    if self.ti is None:
      recovery = 1 - math.exp(-self.tr / t1)
    else:
      recovery = 1 - 2 * math.exp(-self.ti / t1) + math.exp(-self.tr / t1)
    return tissue.pd * abs(recovery) * math.exp(-self.te / tissue.t2)


def _mix(fractions: Fractions, value) -> np.ndarray:
  """The mean over a voxel's tissues of `value(tissue)`."""
  return sum(np.float32(value(TISSUES[t])) * f for t, f in fractions.items())


def _noise(rng: np.random.Generator, shape, scale: float) -> np.ndarray:
  return np.float32(scale) * rng.standard_normal(shape, np.float32)


def image_ct(
  fractions: Fractions, rng: np.random.Generator, grid: Grid
) -> np.ndarray:
  """Simulates CT in HU: attenuation, faint texture, quantum noise."""
  hu = _mix(fractions, lambda tissue: tissue.hu)
  body = 1 - fractions['air']
  hu += 6 * body * smooth_field(rng, grid, 3 * grid.spacing[0])
  grain = ndimage.gaussian_filter(_noise(rng, hu.shape, 24), (0.6, 0.6, 0))
  return np.maximum(hu + grain * (0.25 + 0.75 * body), -1024)


def image_cbct(
  ct: np.ndarray,
  rng: np.random.Generator,
  grid: Grid,
  field_of_view: float,
  shift: Shift = TRAINING,
) -> np.ndarray:
  """Simulates a cone-beam CT (HU) of the same patient from its CT.

  Scatter lowers HU towards the middle of the body (cupping). Sparse, noisy
  views leave streaks through dense voxels, one line per view. Detector drift
  leaves rings.

  Args:
    ct: values in HU on `grid`.
    rng: draws the artefacts.
    grid: grid of the anatomy.
    field_of_view: radius in mm; voxels outside it are -1000 HU.
    shift: the scanner's dose and scatter.
  """
  body = np.clip((ct + 1000) / 1000, 0, 1)
  dx, dy, _ = grid.spacing
  depth = ndimage.gaussian_filter(body, (45 / dx, 45 / dy, 1))
  scatter = shift.cbct_scatter
  cup = rng.uniform(150, 300) * scatter * body * (depth - 0.65)
  x, y = np.meshgrid(*grid.axes()[:2], indexing='ij')
  radius = np.hypot(x - grid.centre[0], y - grid.centre[1])
  drift = rng.standard_normal(int(radius.max() / dx) + 2)
  rings = np.interp(radius / dx, np.arange(len(drift)), drift)
  dense = np.clip(ct - 350, 0, 1200)
  streaks = signal.fftconvolve(
    dense, _star(rng, grid.shape)[..., None], mode='same', axes=(0, 1)
  )
  # Fewer photons survive longer paths, so noise grows with depth.
  sigma = 50 / math.sqrt(shift.cbct_dose)
  grain = _noise(rng, ct.shape, sigma) * (0.3 + depth)
  grain = ndimage.gaussian_filter(grain, (0.5, 0.5, 0))
  # Scatter also reduces contrast: bone is too low, air too high.
  contrast = rng.uniform(0.82, 0.9)
  contrast -= (scatter - 1) * (1 - contrast)
  hu = (ct + 1000) * contrast - (1000 - 60 * scatter) - cup
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
  grid: Grid,
  shift: Shift = TRAINING,
) -> np.ndarray:
  """Simulates MR in a.u.: contrast, coil shading, Rician noise, gain."""
  image = _mix(fractions, lambda t: sequence.signal(t, shift.field))
  image = thicker(image, shift.mr_slices)
  reach = float(np.max(np.multiply(grid.shape, grid.spacing)))
  shading = 0.1 * shift.mr_bias
  image = image * np.exp(shading * smooth_field(rng, grid, reach / 2))
  image *= 1 + 0.03 * smooth_field(rng, grid, 2 * grid.spacing[0])
  sigma = 0.02 * shift.mr_noise * float(np.percentile(image, 98))
  real = image + _noise(rng, image.shape, sigma)
  image = np.hypot(real, _noise(rng, image.shape, sigma))
  return image * np.float32(rng.uniform(600, 2400))


def fdg_uptake(fractions: Fractions, rng: np.random.Generator) -> np.ndarray:
  """True SUV of one subject; heart and tumour vary most between subjects."""
  spread = {'heart': 0.6, 'tumour': 0.4, 'urine': 0.4, 'bowel': 0.3}
  gains = {t: rng.lognormal(0, spread.get(t, 0.12)) for t in sorted(fractions)}
  return sum(
    np.float32(TISSUES[t].suv * gains[t]) * f for t, f in fractions.items()
  )


def image_pet(
  uptake: np.ndarray,
  rng: np.random.Generator,
  grid: Grid,
  fwhm: float = 6.0,
  shift: Shift = TRAINING,
) -> np.ndarray:
  """Simulates PET in SUV: point spread, counts, reconstruction filter.

  Args:
    uptake: true SUV on `grid`.
    rng: draws the counts.
    grid: grid of the anatomy.
    fwhm: full width at half maximum of the point spread function, in mm.
    shift: the scanner's counts.
  """
  sigma = np.asarray([fwhm / 2.355 / s for s in grid.spacing])
  expected = ndimage.gaussian_filter(uptake, sigma)
  # Per voxel at SUV 1; 60 have a deviation of 13 % before the filter.
  counts = 60.0 * shift.pet_counts
  noisy = rng.poisson(counts * expected).astype(np.float32) / counts
  return ndimage.gaussian_filter(noisy, 0.7 * sigma)


def coarsen(
  values: np.ndarray, grid: Grid, factor: float = 1.25
) -> tuple[np.ndarray, Grid]:
  """Resamples in plane to voxels `factor` times larger, keeping the centre."""
  dx, dy, dz = grid.spacing
  nx, ny, nz = grid.shape
  shape = (round(nx / factor), round(ny / factor), nz)
  coarse = Grid(shape, (dx * factor, dy * factor, dz), grid.centre)
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
