"""The medical vocabulary: modalities, body regions, and the routes.

A *route* is a directed synthesis task, source modality -> target modality, in
one cohort. The 22 routes are those of SynerMedGen (arXiv 2605.08724): both
directions of brain CBCT-CT, pelvis CBCT-CT, brain MR-CT, pelvis MR-CT and
whole-body PET-CT, and the 12 ordered pairs of the four BraTS contrasts. Further
routes, of regions that none of these has, are there for data outside them.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools

from synermedgen_jax.core.errors import UserError


class Modality(enum.StrEnum):
  """An imaging modality; the value is its name in files and on flags."""

  CT = 'ct'
  CBCT = 'cbct'
  PET = 'pet'
  T1 = 't1'
  T1CE = 't1ce'
  T2 = 't2'
  FLAIR = 'flair'
  MR = 'mr'
  BSSFP = 'bssfp'
  LGE = 'lge'

  @property
  def label(self) -> str:
    """What a person writes, and the answer that MI asks for."""
    return _LABELS[self]

  @property
  def unit(self) -> str:
    """The physical unit of a voxel; `a.u.` where a scanner states none."""
    return _UNITS.get(self, 'a.u.')

  @classmethod
  def parse(cls, name: str) -> Modality:
    """The modality called `name`; UserError lists the known ones."""
    try:
      return cls(name.lower())
    except ValueError:
      known = ', '.join(m.value for m in cls)
      raise UserError(
        f'Unknown modality {name!r}: expected one of {known}.'
      ) from None


_LABELS = {
  Modality.CT: 'CT',
  Modality.CBCT: 'CBCT',
  Modality.PET: 'PET',
  Modality.T1: 'T1 (MRI)',
  Modality.T1CE: 'T1CE (MRI)',
  Modality.T2: 'T2 (MRI)',
  Modality.FLAIR: 'FLAIR (MRI)',
  Modality.MR: 'MRI',
  Modality.BSSFP: 'bSSFP (MRI)',
  Modality.LGE: 'LGE (MRI)',
}
_UNITS = {Modality.CT: 'HU', Modality.CBCT: 'HU', Modality.PET: 'SUV'}

# Pairs that a reader mixes up; MI puts them beside each other on purpose.
CONFUSABLE = (
  frozenset({Modality.CT, Modality.CBCT}),
  frozenset(set(Modality) - {Modality.CT, Modality.CBCT, Modality.PET}),
)


class Region(enum.StrEnum):
  """A body region."""

  BRAIN = 'brain'
  PELVIS = 'pelvis'
  WHOLE_BODY = 'whole_body'
  HEAD_NECK = 'head_neck'
  THORAX = 'thorax'
  ABDOMEN = 'abdomen'
  HEART = 'heart'

  @property
  def label(self) -> str:
    return self.value.replace('_', '-')

  @classmethod
  def parse(cls, name: str) -> Region:
    """The region called `name`; UserError lists the known ones."""
    try:
      return cls(name.lower().replace('-', '_'))
    except ValueError:
      known = ', '.join(r.value for r in cls)
      raise UserError(
        f'Unknown region {name!r}: expected one of {known}.'
      ) from None


@dataclasses.dataclass(frozen=True, order=True)
class Route:
  """One directed synthesis task."""

  cohort: str  # the prefix of its name: the region's, or brats
  region: Region
  source: Modality
  target: Modality

  @property
  def name(self) -> str:
    return f'{self.cohort}_{self.source}_to_{self.target}'

  @property
  def reverse(self) -> Route:
    return dataclasses.replace(self, source=self.target, target=self.source)


def _both_ways(region: Region, a: Modality, b: Modality) -> list[Route]:
  route = Route(region.value, region, a, b)
  return [route, route.reverse]


BRATS_CONTRASTS = (Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR)

ROUTES: tuple[Route, ...] = (
  *_both_ways(Region.BRAIN, Modality.CBCT, Modality.CT),
  *_both_ways(Region.PELVIS, Modality.CBCT, Modality.CT),
  *_both_ways(Region.BRAIN, Modality.MR, Modality.CT),
  *_both_ways(Region.PELVIS, Modality.MR, Modality.CT),
  *_both_ways(Region.WHOLE_BODY, Modality.PET, Modality.CT),
  *(
    Route('brats', Region.BRAIN, source, target)
    for source, target in itertools.permutations(BRATS_CONTRASTS, 2)
  ),
)

# SynthRAD2025's regions, and the contrasts of MyoPS.
OUTSIDE_ROUTES: tuple[Route, ...] = (
  *(
    route
    for region in (Region.HEAD_NECK, Region.THORAX, Region.ABDOMEN)
    for source in (Modality.CBCT, Modality.MR)
    for route in _both_ways(region, source, Modality.CT)
  ),
  *(
    Route('heart', Region.HEART, source, target)
    for source, target in itertools.permutations(
      (Modality.BSSFP, Modality.LGE, Modality.T2), 2
    )
  ),
)
ALL_ROUTES = (*ROUTES, *OUTSIDE_ROUTES)

ROUTES_BY_NAME = {route.name: route for route in ALL_ROUTES}
_ROUTES_BY_KEY = {(r.region, r.source, r.target): r for r in ALL_ROUTES}


def find_route(region: Region, source: Modality, target: Modality) -> Route:
  """The route of that key; UserError lists the routes of the region."""
  try:
    return _ROUTES_BY_KEY[region, source, target]
  except KeyError:
    known = ', '.join(
      f'{r.source}->{r.target}' for r in ALL_ROUTES if r.region == region
    )
    raise UserError(
      f'No route {source}->{target} in region {region}: '
      f'expected one of {known}.'
    ) from None


def routes_between(
  region: Region, modalities: set[Modality] | frozenset[Modality]
) -> tuple[Route, ...]:
  """Returns the routes that a case of `region` with `modalities` can serve."""
  return tuple(
    r
    for r in ALL_ROUTES
    if r.region == region and r.source in modalities and r.target in modalities
  )
