"""The medical vocabulary: modalities, body regions and routes.

A *route* is a directed synthesis task, source modality -> target modality, in
one cohort. `ROUTES` holds the 22 routes of SynerMedGen (arXiv 2605.08724): both
directions of brain CBCT-CT, pelvis CBCT-CT, brain MR-CT, pelvis MR-CT and
whole-body PET-CT, and the 12 ordered pairs of the four BraTS contrasts.
`OUTSIDE_ROUTES` holds routes of datasets that the paper does not use.

Registered routes have one source. A route with several sources exists where the
route of each of them to the target is registered in one region and cohort:
`brats_t1+t2+flair_to_t1ce`. `route_named` finds both kinds by name.

A project registers others with `register_modality`, `register_region` and
`register_route`, in a module that `config.modules` names.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Iterable, Sequence
from typing import ClassVar

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.names import Name


class Modality(Name):
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


class Region(Name):
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


@dataclasses.dataclass(frozen=True)
class Route:
  """One directed synthesis task.

  Attributes:
    cohort: prefix of the name: the region, or such as 'brats'.
    region: body region.
    sources: the modalities to start from, each once, in the order of their
      registration, so that a set of sources has one name.
    target: the modality to synthesise.

  Raises:
    UserError: there is no source, or the sources are not in their order, or the
      target is one of them.
  """

  cohort: str
  region: Region
  sources: tuple[Modality, ...]
  target: Modality

  def __post_init__(self):
    ordered = _ordered(self.sources)
    if not ordered or ordered != self.sources or self.target in ordered:
      raise UserError(
        f'Route {self.name}: expected one source or more, each once and in the '
        f'order of {", ".join(Modality)}, and another target.'
      )

  @property
  def name(self) -> str:
    return f'{self.cohort}_{"+".join(self.sources)}_to_{self.target}'

  @property
  def source(self) -> Modality:
    """The only source.

    Raises:
      UserError: there are several.
    """
    if len(self.sources) > 1:
      raise UserError(
        f'Route {self.name} has {len(self.sources)} sources where one is '
        'expected; name a route with one source.'
      )
    return self.sources[0]

  @property
  def reverse(self) -> Route:
    """Target -> source; raises UserError if there are several sources."""
    return dataclasses.replace(self, sources=(self.target,), target=self.source)

  def joined_by(self, sources: Iterable[Modality]) -> Route:
    """The route with further sources.

    Raises:
      UserError: one of them is the target.
    """
    return dataclasses.replace(
      self, sources=_ordered({*self.sources, *sources})
    )

  def served_by(self, region: Region, modalities: Iterable[Modality]) -> bool:
    """Whether a case of a region with these modalities has the route."""
    needed = {*self.sources, self.target}
    return self.region == region and needed <= set(modalities)


def _ordered(modalities: Iterable[Modality]) -> tuple[Modality, ...]:
  """Distinct modalities in the order of their registration."""
  given = set(modalities)
  return tuple(m for m in Modality if m in given)


_ROUTES_BY_NAME: dict[str, Route] = {}
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
  return Modality.register(name, label=label, unit=unit, family=family)


def register_region(name: str, label: str = '') -> Region:
  """Registers a body region.

  Args:
    name: name in files and on flags, e.g. 'knee'.
    label: name in questions and reports; by default `name` with - for _.

  Raises:
    UserError: the name is taken, or has characters other than lower-case
      letters, digits and _.
  """
  return Region.register(name, label=label or name.replace('_', '-'))


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
  route = Route(cohort, region, (a,), b)
  return route, route.reverse


def _key(route: Route) -> tuple[Region, Modality, Modality]:
  return route.region, route.source, route.target


def _add_routes(*routes: Route) -> tuple[Route, ...]:
  for route in routes:
    if route.name in _ROUTES_BY_NAME or _key(route) in _ROUTES_BY_KEY:
      raise UserError(f'Route {route.name} is already registered.')
  for route in routes:
    _ROUTES_BY_NAME[route.name] = _ROUTES_BY_KEY[_key(route)] = route
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
    Route('brats', Region.BRAIN, (source,), target)
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
    Route('heart', Region.HEART, (source,), target)
    for source, target in itertools.permutations(
      (Modality.BSSFP, Modality.LGE, Modality.T2), 2
    )
  ),
)


def all_routes() -> tuple[Route, ...]:
  """All routes with one source: the paper's 22, then as registered."""
  return tuple(_ROUTES_BY_NAME.values())


def routes_with(count: int) -> tuple[Route, ...]:
  """All routes with `count` sources, in the order of `in_order`."""
  groups: dict[tuple[str, Region, Modality], list[Modality]] = {}
  for r in all_routes():
    groups.setdefault((r.cohort, r.region, r.target), []).append(r.source)
  return in_order(
    Route(cohort, region, _ordered(sources), target)
    for (cohort, region, target), known in groups.items()
    for sources in itertools.combinations(known, count)
  )


def in_order(routes: Iterable[Route]) -> tuple[Route, ...]:
  """Distinct routes in the order of tables: by the number of sources.

  Routes with equally many sources have the order in which the routes of their
  sources were registered.
  """
  places = {r: place for place, r in enumerate(all_routes())}

  def rank(route: Route) -> tuple[int, list[int]]:
    singles = (
      dataclasses.replace(route, sources=(source,)) for source in route.sources
    )
    return len(route.sources), [places[single] for single in singles]

  return tuple(sorted(set(routes), key=rank))


def confusable_groups() -> tuple[frozenset[Modality], ...]:
  """Modalities of each family with at least two members (`Modality.family`)."""
  families: dict[str, set[Modality]] = {}
  for modality in Modality:
    if modality.family:
      families.setdefault(modality.family, set()).add(modality)
  return tuple(frozenset(f) for f in families.values() if len(f) > 1)


def route_named(name: str) -> Route:
  """The route of that name, with one source or with several.

  The sources of `brats_t1+t2+flair_to_t1ce` are in the order of their
  registration; the same set in another order is refused, since names of files
  and keys of results are compared as texts.

  Raises:
    UserError: there is no such route.
  """
  start, _, target = name.rpartition('_to_')
  first, *others = start.split('+')
  if not others:
    return _registered(name, name)
  single = _registered(f'{first}_to_{target}', name)
  singles = [
    _registered(f'{single.cohort}_{source}_to_{target}', name)
    for source in others
  ]
  route = _joined([single, *singles])
  if route.name != name:
    raise UserError(
      f'Route {name!r}: its sources are in another order; write {route.name}.'
    )
  return route


def routes_named(names: Iterable[str]) -> tuple[Route, ...]:
  """The routes of these names in the order of `in_order`.

  Raises:
    UserError: a name is unknown, as in `route_named`.
  """
  return in_order(map(route_named, names))


def _registered(name: str, asked: str) -> Route:
  """The registered route `name`, which the route `asked` is made of."""
  try:
    return _ROUTES_BY_NAME[name]
  except KeyError:
    needed = '' if name == asked else f', which needs {name}'
    near = difflib.get_close_matches(name, _ROUTES_BY_NAME, 4, cutoff=0.0)
    raise UserError(
      f'Unknown route {asked!r}{needed}: the nearest are {", ".join(near)}; '
      'several sources of one target are named as in brats_t1+t2_to_flair, and '
      'routes of a project need its module on --modules or in config.modules.'
    ) from None


def _joined(singles: Sequence[Route]) -> Route:
  """The route from the sources of several routes to their one target.

  Raises:
    UserError: a source is repeated, or regions or cohorts differ.
  """
  first = singles[0]
  sources = [route.source for route in singles]
  if len(set(sources)) < len(sources):
    raise UserError(f'Sources {"+".join(sources)}: one of them is named twice.')
  for other in singles:
    if (other.region, other.cohort) != (first.region, first.cohort):
      raise UserError(
        f'Routes {first.name} and {other.name} are of two cohorts; the sources '
        'of one target have one cohort.'
      )
  return first.joined_by(sources)


def find_route(
  region: Region, sources: Sequence[Modality], target: Modality
) -> Route:
  """Returns the route of a region from `sources`, in any order, to `target`.

  Raises:
    UserError: a source is repeated, or the route of one of them is not
      registered; the message lists the routes of the region.
  """
  singles = []
  for source in sources:
    route = _ROUTES_BY_KEY.get((region, source, target))
    if route is None:
      known = ', '.join(
        f'{r.source}->{r.target}' for r in all_routes() if r.region == region
      )
      raise UserError(
        f'No route {source}->{target} in region {region}: '
        f'expected one of {known or "none"}.'
      )
    singles.append(route)
  return _joined(singles)


def routes_between(
  region: Region, modalities: Iterable[Modality]
) -> tuple[Route, ...]:
  """Routes with one source that a case of `region` with `modalities` has."""
  held = set(modalities)
  return tuple(r for r in all_routes() if r.served_by(region, held))
