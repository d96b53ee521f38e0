"""Pairs of slices, and the pool from which tasks draw slices and wordings."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.tasks.prompts import PAPER, Prompts

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case


@dataclasses.dataclass(frozen=True)
class Pair:
  """One slice of a case in the two modalities of a route.

  Attributes:
    case: holds both modalities, on one grid.
    route: source -> target.
    index: the slice, one of `case.usable`.
  """

  case: Case
  route: Route
  index: int


@dataclasses.dataclass(frozen=True)
class Pool:
  """Cases and wordings from which a task draws, beside its pair.

  Attributes:
    cases: the cases of the pairs.
    prompts: the wordings.
    neighbours: K, largest distance of a CTS negative from the true slice, in
      slices.
    slab: neighbouring slices that are synthesised together.
  """

  cases: Sequence[Case]
  prompts: Prompts = PAPER
  neighbours: int = 3
  slab: int = 1

  @functools.cached_property
  def by_modality(self) -> Mapping[Modality, Sequence[Case]]:
    """The cases that hold a modality."""
    by_modality = defaultdict(list)
    for case in self.cases:
      for modality in case.modalities:
        by_modality[modality].append(case)
    return dict(by_modality)


def pairs(cases: Sequence[Case], *, routes: Sequence[str] = ()) -> list[Pair]:
  """Every (case, route, usable slice).

  Args:
    cases: from a slice store.
    routes: names of the routes to keep; empty = all.
  """
  return [
    Pair(case, route, index)
    for case in cases
    for route in case.routes
    if not routes or route.name in routes
    for index in case.usable
  ]
