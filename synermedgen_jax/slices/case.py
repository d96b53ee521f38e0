"""One line of a store's manifest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import (
  Modality,
  Region,
  Route,
  routes_between,
)
from synermedgen_jax.slices.lesions import SliceLesions
from synermedgen_jax.slices.windows import Window

Rows = tuple[tuple[float, ...], ...]  # of a (4, 4) matrix


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the manifest: one subject's volumes on one slice grid.

  Attributes:
    id: name of the case in the store.
    dataset: name of the dataset.
    subject: name of the subject, unique within the dataset.
    region: body region, which selects the routes.
    modalities: modality -> window that is mapped to [-1, 1].
    sources: modality -> file that it was read from.
    shape: (slices, height, width).
    affine: rows of the (4, 4) matrix from (column, row, slice) to RAS+ mm.
    plane: slice plane, 'axial', 'coronal' or 'sagittal'.
    usable: slices that show the body in every modality.
    split: 'train', 'val', 'test' or 'holdout'; '' until the store is finished.
    checksums: modality -> `voxel_checksum` of the file.
    transforms: modality -> rows of the (4, 4) matrix that moved the volume onto
      the reference, RAS+ mm; only of volumes that `prepare` registered.
    patient: name of the person, if several subjects may be one person.
    lesions: slice -> its lesions, of a case with a lesion mask; slices without
      a lesion are left out. None = no mask: nothing is known about lesions.
  """

  id: str
  dataset: str
  subject: str
  region: Region
  modalities: Mapping[Modality, Window]
  sources: Mapping[Modality, str]
  shape: tuple[int, int, int]
  affine: Rows
  plane: str
  usable: range
  split: str = ''
  checksums: Mapping[Modality, str] = dataclasses.field(default_factory=dict)
  transforms: Mapping[Modality, Rows] = dataclasses.field(default_factory=dict)
  patient: str = ''
  lesions: Mapping[int, SliceLesions] | None = None

  @property
  def person(self) -> str:
    """DATASET.PATIENT, or DATASET.SUBJECT if no patient is stated.

    Scores are averaged within a person, and persons are resampled.
    """
    return f'{self.dataset}.{self.patient or self.subject}'

  @property
  def spacing(self) -> tuple[float, float, float]:
    """mm between the voxel centres along (slice, row, column)."""
    columns = np.array(self.affine)[:3, :3]
    column, row, slice_ = np.linalg.norm(columns, axis=0).tolist()
    return slice_, row, column

  @functools.cached_property
  def routes(self) -> tuple[Route, ...]:
    """Routes that this case can serve, in both directions."""
    return routes_between(self.region, frozenset(self.modalities))

  def to_json(self) -> dict[str, Any]:
    lesions = {}
    if self.lesions is not None:
      rows = sorted(self.lesions.items())
      lesions = {'lesions': {str(z): row.to_json() for z, row in rows}}
    patient = {'patient': self.patient} if self.patient else {}
    return {
      'id': self.id,
      'dataset': self.dataset,
      'subject': self.subject,
      **patient,
      'region': self.region.value,
      'split': self.split,
      'modalities': {
        modality.value: self._modality_to_json(modality)
        for modality in self.modalities
      },
      'shape': list(self.shape),
      'affine': [list(row) for row in self.affine],
      'plane': self.plane,
      'usable': [self.usable.start, self.usable.stop],
      **lesions,
    }

  def _modality_to_json(self, modality: Modality) -> dict[str, Any]:
    window = self.modalities[modality]
    row = {
      'low': window.low,
      'high': window.high,
      'unit': modality.unit,
      'source': self.sources[modality],
    }
    if modality in self.checksums:
      row['checksum'] = self.checksums[modality]
    if modality in self.transforms:
      row['transform'] = [list(r) for r in self.transforms[modality]]
    return row

  @classmethod
  def from_json(cls, row: Mapping[str, Any]) -> Case:
    """The inverse of `to_json`; raises KeyError, TypeError or ValueError."""
    stored = {Modality(name): m for name, m in row['modalities'].items()}
    return cls(
      id=row['id'],
      dataset=row['dataset'],
      subject=row['subject'],
      region=Region(row['region']),
      modalities={m: Window(v['low'], v['high']) for m, v in stored.items()},
      sources={m: v['source'] for m, v in stored.items()},
      shape=tuple(row['shape']),
      affine=tuple(map(tuple, row['affine'])),
      plane=row['plane'],
      usable=range(*row['usable']),
      split=row['split'],
      checksums={
        m: v['checksum'] for m, v in stored.items() if 'checksum' in v
      },
      transforms={
        m: tuple(map(tuple, v['transform']))
        for m, v in stored.items()
        if 'transform' in v
      },
      patient=row.get('patient', ''),
      lesions=_lesions_from_json(row.get('lesions')),
    )


def _lesions_from_json(
  rows: Mapping[str, Any] | None,
) -> dict[int, SliceLesions] | None:
  if rows is None:
    return None
  return {int(z): SliceLesions.from_json(row) for z, row in {**rows}.items()}


def voxel_checksum(data: Float[np.ndarray, 'x y z']) -> str:
  """First 16 hexadecimal digits of the SHA-256 of float32 voxels, z slowest."""
  digest = hashlib.sha256()
  for plane in np.asarray(data, '<f4').T:
    digest.update(np.ascontiguousarray(plane))
  return digest.hexdigest()[:16]
