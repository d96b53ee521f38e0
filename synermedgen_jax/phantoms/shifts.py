"""Scanners that differ from those of the training set, for holdouts.

A shift changes the property of a scanner that its name says. The subjects of
a set are the same under every shift, with the same random draws, so that
differences between shifts are paired by subject.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from synermedgen_jax.core.modalities import BRATS_CONTRASTS, Modality
from synermedgen_jax.phantoms.canvas import Grid, Triple

FIELD = 1.5  # T, of the training set
_MR = frozenset({Modality.MR, *BRATS_CONTRASTS})
# Directions to the right, anterior and superior in which a volume lies off the
# reference of its subject, which is CT or T1. Any two of them are 1 apart.
_OFF: Mapping[Modality, Triple] = {
  **dict.fromkeys((Modality.MR, Modality.PET, Modality.T1CE), (0, 1, 1)),
  **dict.fromkeys((Modality.CBCT, Modality.T2), (1, 0, 1)),
  Modality.FLAIR: (1, 1, 0),
}


@dataclasses.dataclass(frozen=True)
class Shift:
  """How the scanners of a set differ from those of the training set.

  Attributes:
    title: name in tables.
    field: strength of the MR field in T, which T1 depends on
      (`scanners.Tissue`). Sequences, T2, relaxivity and noise stay.
    mr_noise: factor of the standard deviation of MR noise.
    mr_bias: factor of the logarithm of the MR coil shading.
    mr_slices: odd number of slices whose mean signal, before noise, is that of
      an MR slice; the distance between slices stays.
    cbct_dose: factor of the photons of a CBCT. The standard deviation of its
      noise is divided by the square root; streaks and rings stay.
    cbct_scatter: factor of the cupping, of the loss of contrast and of the
      rise of air in a CBCT.
    pet_counts: factor of the counts of a PET.
    misregistered: distance in mm between any two volumes of a subject whose
      headers claim the same position. CT and T1 stay in place.
  """

  title: str
  field: float = FIELD
  mr_noise: float = 1.0
  mr_bias: float = 1.0
  mr_slices: int = 1
  cbct_dose: float = 1.0
  cbct_scatter: float = 1.0
  pet_counts: float = 1.0
  misregistered: float = 0.0

  def changes(self, modality: Modality) -> bool:
    """Whether volumes of the modality differ from those of the training set."""
    if self.misregistered and modality in _OFF:
      return True
    if modality in _MR:
      own = self.field, self.mr_noise, self.mr_bias, self.mr_slices
      return own != (FIELD, 1.0, 1.0, 1)
    if modality == Modality.CBCT:
      return (self.cbct_dose, self.cbct_scatter) != (1.0, 1.0)
    return modality == Modality.PET and self.pet_counts != 1.0

  def record(self) -> dict[str, float]:
    """Field -> value, of the fields that differ from the training set's."""
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)[1:]
      if getattr(self, field.name) != field.default
    }

  def offset(self, modality: Modality) -> Triple:
    """Where a volume lies off its reference: mm to the right, anterior, up."""
    step = self.misregistered / math.sqrt(2)
    return tuple(step * axis for axis in _OFF.get(modality, (0, 0, 0)))


NONE = 'none'
TRAINING = Shift('the scanners of the training set')
SHIFTS: Mapping[str, Shift] = {
  NONE: TRAINING,
  'mr_0p55t': Shift('MR at 0.55 T', field=0.55),
  'mr_3t': Shift('MR at 3 T', field=3.0),
  'mr_noise_2x': Shift('MR noise x 2', mr_noise=2.0),
  'mr_noise_4x': Shift('MR noise x 4', mr_noise=4.0),
  'mr_bias': Shift('MR shading x 3', mr_bias=3.0),
  'thick_slices': Shift('MR slices 3 times as thick', mr_slices=3),
  'cbct_low_dose': Shift('CBCT at a quarter of the dose', cbct_dose=0.25),
  'cbct_scatter': Shift('CBCT scatter x 1.5', cbct_scatter=1.5),
  'pet_low_counts': Shift('PET with a quarter of the counts', pet_counts=0.25),
  'shift_1mm': Shift('misregistered by 1 mm', misregistered=1.0),
  'shift_3mm': Shift('misregistered by 3 mm', misregistered=3.0),
  'shift_5mm': Shift('misregistered by 5 mm', misregistered=5.0),
}


def moved(values: np.ndarray, grid: Grid, mm: Triple) -> np.ndarray:
  """What a scanner sees of a patient who lies elsewhere, by cubic splines.

  Args:
    values: values on `grid`.
    grid: its spacing.
    mm: the way of the patient to the right, anterior and superior; what comes
      in from outside has the value at the edge.
  """
  if not any(mm):
    return values
  steps = np.divide(mm, grid.spacing)
  return ndimage.shift(values, steps, order=3, mode='nearest')


def moved_fractions(
  fractions: Mapping[str, np.ndarray], grid: Grid, mm: Triple
) -> dict[str, np.ndarray]:
  """Tissue -> fraction of every voxel of a patient who lies elsewhere.

  Splines overshoot at edges, so fractions are clipped at 0 and divided by
  their sum.
  """
  if not any(mm):
    return dict(fractions)
  places = {
    tissue: np.maximum(moved(values, grid, mm), 0)
    for tissue, values in fractions.items()
  }
  total = sum(places.values())
  return {tissue: values / total for tissue, values in places.items()}


def thicker(values: np.ndarray, slices: int) -> np.ndarray:
  """The mean of `slices` neighbouring slices in the place of each slice."""
  if slices == 1:
    return values
  return ndimage.uniform_filter1d(values, slices, axis=2, mode='nearest')
