"""Pairs of slices, and the pool from which tasks draw slices and wordings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from synermedgen_jax.core.modalities import (
  Modality,
  Route,
  all_routes,
  in_order,
  routes_named,
)
from synermedgen_jax.tasks.prompts import PAPER, Prompts

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case


@dataclasses.dataclass(frozen=True)
class Pair:
  """One slice of a case in the modalities of a route.

  Attributes:
    case: holds all of them, on one grid.
    route: sources -> target.
    index: the slice, one of `case.usable`.
  """

  case: Case
  route: Route
  index: int


@dataclasses.dataclass(frozen=True)
class Pool:
  """Cases, routes and wordings from which a task draws, beside its pair.

  Attributes:
    cases: the cases of the pairs.
    prompts: the wordings.
    neighbours: K, largest distance of a CTS negative from the true slice, in
      slices.
    slab: neighbouring slices that are synthesised together.
    routes: names of the routes of the pairs; empty = all with one source.
    max_sources: largest number of sources to which synthesis extends a pair.
  """

  cases: Sequence[Case]
  prompts: Prompts = PAPER
  neighbours: int = 3
  slab: int = 1
  routes: Sequence[str] = ()
  max_sources: int = 1

  @functools.cached_property
  def by_modality(self) -> Mapping[Modality, Sequence[Case]]:
    """The cases that hold a modality."""
    by_modality = defaultdict(list)
    for case in self.cases:
      for modality in case.modalities:
        by_modality[modality].append(case)
    return dict(by_modality)

  @functools.cached_property
  def _named(self) -> tuple[Route, ...]:
    return routes_named(self.routes)

  def routes_of(self, case: Case) -> tuple[Route, ...]:
    """The routes of a case's pairs."""
    return case_routes(case, self._named)

  @functools.cached_property
  def both_ways(self) -> tuple[Route, ...]:
    """Routes of one source of the pairs whose reverse is one of them, too."""
    own = {route for case in self.cases for route in self.routes_of(case)}
    return tuple(
      route for route in all_routes() if {route, route.reverse} <= own
    )

  def pairs(self) -> list[Pair]:
    """Every (case, route, usable slice)."""
    return [
      Pair(case, route, index)
      for case in self.cases
      for route in self.routes_of(case)
      for index in case.usable
    ]

  def draw_route(self, pair: Pair, rng: np.random.Generator) -> Route:
    """The route of a pair, with further sources that its case has.

    The number of sources is uniform from that of the pair's own to
    `max_sources`, or to what the routes of the pool allow; each set of that
    many sources with the pair's own is equally likely. Nothing is drawn where
    there is no choice.
    """
    own, further = pair.route, self._further(pair.case, pair.route)
    most = min(self.max_sources - len(own.sources), len(further))
    if most < 1:
      return own
    joined = rng.choice(
      len(further), int(rng.integers(most + 1)), replace=False
    )
    return own.joined_by(further[i] for i in joined)

  def drawn_routes(self) -> tuple[Route, ...]:
    """Every route that `draw_route` may return for the pairs."""
    drawn = set()
    # Cases with equal modalities have equal routes.
    alike = {(c.region, frozenset(c.modalities)): c for c in self.cases}
    for case in alike.values():
      for route in self.routes_of(case):
        further = self._further(case, route)
        room = max(self.max_sources - len(route.sources), 0)
        drawn |= {
          route.joined_by(joined)
          for count in range(min(room, len(further)) + 1)
          for joined in itertools.combinations(further, count)
        }
    return in_order(drawn)

  def _further(self, case: Case, route: Route) -> tuple[Modality, ...]:
    """Sources of the case that may join those of a route."""
    return tuple(
      other.source
      for other in self.routes_of(case)
      if len(other.sources) == 1
      and (other.cohort, other.target) == (route.cohort, route.target)
      and other.source not in route.sources
    )


def some_subjects(cases: Sequence[Case], share: float) -> tuple[Case, ...]:
  """The cases of a share of the persons of each dataset, at least one.

  The persons are ordered by a hash of their name, so that a larger share
  contains a smaller one, and the choice depends on nothing else.

  Args:
    cases: from a slice store.
    share: from 0 to 1.
  """
  by_dataset = defaultdict(set)
  for case in cases:
    by_dataset[case.dataset].add(case.person)
  kept = set()
  for people in by_dataset.values():
    ordered = sorted(
      people, key=lambda p: hashlib.sha256(p.encode()).hexdigest()
    )
    kept |= {*ordered[: max(math.ceil(share * len(ordered) - 1e-9), 1)]}
  return tuple(case for case in cases if case.person in kept)


def case_routes(case: Case, routes: Sequence[Route]) -> tuple[Route, ...]:
  """Those of the routes that a case has; without routes, all with one source.

  Args:
    case: a case of a slice store.
    routes: in the order of the result.
  """
  if not routes:
    return case.routes
  return tuple(r for r in routes if r.served_by(case.region, case.modalities))


def routes_in(
  cases: Iterable[Case], names: Sequence[str] = ()
) -> tuple[Route, ...]:
  """The routes of any of the cases, in the order of `in_order`.

  Args:
    cases: from a slice store.
    names: names of the routes to keep; empty = all with one source.
  """
  named = routes_named(names)
  return in_order(r for case in cases for r in case_routes(case, named))
