"""The medical vocabulary: modalities, body regions and routes.

A *route* is a directed synthesis task, source modality -> target modality, in
one cohort. `ROUTES` holds the 22 routes of SynerMedGen (arXiv 2605.08724): both
directions of brain CBCT-CT, pelvis CBCT-CT, brain MR-CT, pelvis MR-CT and
whole-body PET-CT, and the 12 ordered pairs of the four BraTS contrasts.
`OUTSIDE_ROUTES` holds routes of datasets that the paper does not use.

A project registers others with `register_modality`, `register_region` and
`register_route`, in a module that `config.modules` names.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from synermedgen_jax.core.errors import UserError

Named = TypeVar('Named', bound='_Name')


class _Iterable(type):
  """Makes a class iterable over its registered members, oldest first."""

  def __iter__(cls: type[Named]) -> Iterator[Named]:
    return iter(cls.members.values())


class _Name(str, metaclass=_Iterable):
  """A registered name: a string, and one object per name.

  `Modality('ct')` returns the registered modality or raises UserError.
  """

  members: ClassVar[dict[str, Any]]
  label: str

  def __new__(cls, name: str):
    try:
      return cls.members[name]
    except KeyError:
      raise UserError(
        f'Unknown {cls.__name__.lower()} {name!r}: expected one of '
        f'{", ".join(cls.members)}.'
      ) from None

  @property
  def value(self) -> str:
    """The name as a plain string, as in files and on flags."""
    return str(self)

  def __repr__(self) -> str:
    return f'{type(self).__name__}({str(self)!r})'

  def __reduce__(self):
    return type(self), (str(self),)

  def __deepcopy__(self, memo):
    return self

  @classmethod
  def _register(cls, name: str, **fields: Any):
    if name in cls.members or not name.isidentifier() or name != name.lower():
      raise UserError(
        f'{cls.__name__} {name!r}: expected a new name of lower-case letters, '
        'digits and _.'
      )
    member = str.__new__(cls, name)
    for field, value in fields.items():
      setattr(member, field, value)
    cls.members[name] = member
    return member


class Modality(_Name):
  """An imaging modality; the string is its name in files and on flags.

  Attributes:
    label: name in prompts and reports, and the expected answer of MI.
    unit: physical unit of a voxel; `a.u.` for MR, whose scale is arbitrary.
    family: modalities of one family are easily confused, so MI deliberately
      shows them together; '' = no family.
  """

  members: ClassVar[dict[str, Modality]] = {}
  unit: str
  family: str

  CT: ClassVar[Modality]
  CBCT: ClassVar[Modality]
  PET: ClassVar[Modality]
  T1: ClassVar[Modality]
  T1CE: ClassVar[Modality]
  T2: ClassVar[Modality]
  FLAIR: ClassVar[Modality]
  MR: ClassVar[Modality]
  BSSFP: ClassVar[Modality]
  LGE: ClassVar[Modality]

  @classmethod
  def parse(cls, name: str) -> Modality:
    """Returns the modality `name`, ignoring case.

    Raises:
      UserError: the name is unknown; the message lists the known ones.
    """
    lower = name.lower()
    return cls(lower if lower in cls.members else name)


class Region(_Name):
  """A body region; `label` is its name in prompts and reports."""

  members: ClassVar[dict[str, Region]] = {}

  BRAIN: ClassVar[Region]
  PELVIS: ClassVar[Region]
  WHOLE_BODY: ClassVar[Region]
  HEAD_NECK: ClassVar[Region]
  THORAX: ClassVar[Region]
  ABDOMEN: ClassVar[Region]
  HEART: ClassVar[Region]

  @classmethod
  def parse(cls, name: str) -> Region:
    """Returns the region `name`, ignoring case, with - or _.

    Raises:
      UserError: the name is unknown; the message lists the known ones.
    """
    return cls(name.lower().replace('-', '_'))


@dataclasses.dataclass(frozen=True, order=True)
class Route:
  """One directed synthesis task."""

  cohort: str  # prefix of the route's name: the region, or 'brats'
  region: Region
  source: Modality
  target: Modality

  @property
  def name(self) -> str:
    return f'{self.cohort}_{self.source}_to_{self.target}'

  @property
  def reverse(self) -> Route:
    return dataclasses.replace(self, source=self.target, target=self.source)


ROUTES_BY_NAME: dict[str, Route] = {}
_ROUTES_BY_KEY: dict[tuple[Region, Modality, Modality], Route] = {}


def register_modality(
  name: str, label: str, *, unit: str = 'a.u.', family: str = ''
) -> Modality:
  """Registers a modality.

  Args:
    name: name in files and on flags, e.g. 'swi'.
    label: name in questions, answers and reports, e.g. 'SWI (MRI)'.
    unit: physical unit of a voxel. Volumes in 'a.u.' are windowed by their own
      percentiles; `prepare --windows` sets one window for all volumes.
    family: 'ct', 'mr' or a new family; see `Modality`.

  Raises:
    UserError: the name or the label is taken, or the name has characters
      other than lower-case letters, digits and _.
  """
  if label in {modality.label for modality in Modality}:
    raise UserError(f'Modality {name!r}: the label {label!r} is taken.')
  return Modality._register(name, label=label, unit=unit, family=family)


def register_region(name: str, label: str = '') -> Region:
  """Registers a body region.

  Args:
    name: name in files and on flags, e.g. 'knee'.
    label: name in questions and reports; by default `name` with - for _.

  Raises:
    UserError: the name is taken, or has characters other than lower-case
      letters, digits and _.
  """
  return Region._register(name, label=label or name.replace('_', '-'))


def register_route(
  region: Region, source: Modality, target: Modality, *, cohort: str = ''
) -> tuple[Route, Route]:
  """Registers a route and its reverse.

  Args:
    region: body region of both routes.
    source, target: the two modalities.
    cohort: prefix of the routes' names; by default the region's name.

  Returns:
    source -> target, and target -> source.

  Raises:
    UserError: the region already has one of the routes, or a name is taken.
  """
  return _add_routes(
    *_both_ways(cohort or region.value, region, source, target)
  )


def _both_ways(
  cohort: str, region: Region, a: Modality, b: Modality
) -> tuple[Route, Route]:
  route = Route(cohort, region, a, b)
  return route, route.reverse


def _key(route: Route) -> tuple[Region, Modality, Modality]:
  return route.region, route.source, route.target


def _add_routes(*routes: Route) -> tuple[Route, ...]:
  for route in routes:
    if route.name in ROUTES_BY_NAME or _key(route) in _ROUTES_BY_KEY:
      raise UserError(f'Route {route.name} is already registered.')
  for route in routes:
    ROUTES_BY_NAME[route.name] = _ROUTES_BY_KEY[_key(route)] = route
  return routes


Modality.CT = register_modality('ct', 'CT', unit='HU', family='ct')
Modality.CBCT = register_modality('cbct', 'CBCT', unit='HU', family='ct')
Modality.PET = register_modality('pet', 'PET', unit='SUV')
Modality.T1 = register_modality('t1', 'T1 (MRI)', family='mr')
Modality.T1CE = register_modality('t1ce', 'T1CE (MRI)', family='mr')
Modality.T2 = register_modality('t2', 'T2 (MRI)', family='mr')
Modality.FLAIR = register_modality('flair', 'FLAIR (MRI)', family='mr')
Modality.MR = register_modality('mr', 'MRI', family='mr')
Modality.BSSFP = register_modality('bssfp', 'bSSFP (MRI)', family='mr')
Modality.LGE = register_modality('lge', 'LGE (MRI)', family='mr')

Region.BRAIN = register_region('brain')
Region.PELVIS = register_region('pelvis')
Region.WHOLE_BODY = register_region('whole_body')
Region.HEAD_NECK = register_region('head_neck')
Region.THORAX = register_region('thorax')
Region.ABDOMEN = register_region('abdomen')
Region.HEART = register_region('heart')

BRATS_CONTRASTS = (Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR)

ROUTES: tuple[Route, ...] = _add_routes(
  *_both_ways('brain', Region.BRAIN, Modality.CBCT, Modality.CT),
  *_both_ways('pelvis', Region.PELVIS, Modality.CBCT, Modality.CT),
  *_both_ways('brain', Region.BRAIN, Modality.MR, Modality.CT),
  *_both_ways('pelvis', Region.PELVIS, Modality.MR, Modality.CT),
  *_both_ways('whole_body', Region.WHOLE_BODY, Modality.PET, Modality.CT),
  *(
    Route('brats', Region.BRAIN, source, target)
    for source, target in itertools.permutations(BRATS_CONTRASTS, 2)
  ),
)

# Regions of SynthRAD2025 and contrasts of MyoPS.
OUTSIDE_ROUTES: tuple[Route, ...] = _add_routes(
  *(
    route
    for region in (Region.HEAD_NECK, Region.THORAX, Region.ABDOMEN)
    for source in (Modality.CBCT, Modality.MR)
    for route in _both_ways(region.value, region, source, Modality.CT)
  ),
  *(
    Route('heart', Region.HEART, source, target)
    for source, target in itertools.permutations(
      (Modality.BSSFP, Modality.LGE, Modality.T2), 2
    )
  ),
)


def all_routes() -> tuple[Route, ...]:
  """All routes: the paper's 22 first, then in order of registration."""
  return tuple(ROUTES_BY_NAME.values())


def confusable_groups() -> tuple[frozenset[Modality], ...]:
  """Modalities of each family with at least two members (`Modality.family`)."""
  families: dict[str, set[Modality]] = {}
  for modality in Modality:
    if modality.family:
      families.setdefault(modality.family, set()).add(modality)
  return tuple(frozenset(f) for f in families.values() if len(f) > 1)


def find_route(region: Region, source: Modality, target: Modality) -> Route:
  """Returns the route of a region from `source` to `target`.

  Raises:
    UserError: the route is not registered; the message lists the routes of
      the region.
  """
  try:
    return _ROUTES_BY_KEY[region, source, target]
  except KeyError:
    known = ', '.join(
      f'{r.source}->{r.target}' for r in all_routes() if r.region == region
    )
    raise UserError(
      f'No route {source}->{target} in region {region}: '
      f'expected one of {known or "none"}.'
    ) from None


def routes_between(
  region: Region, modalities: set[Modality] | frozenset[Modality]
) -> tuple[Route, ...]:
  """Returns the routes that a case of `region` with `modalities` can serve."""
  return tuple(
    r
    for r in all_routes()
    if r.region == region and r.source in modalities and r.target in modalities
  )
