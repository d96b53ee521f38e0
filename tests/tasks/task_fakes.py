"""Stand-ins for cases of a slice store, and strategies that draw them."""

import dataclasses

from hypothesis import strategies as st

from synermedgen_jax.core.modalities import (
  ALL_ROUTES,
  Modality,
  Region,
  Route,
  routes_between,
)


@dataclasses.dataclass(frozen=True)
class FakeCase:
  """What tasks read of a case. Its id must never reach a text."""

  region: Region
  modalities: dict[Modality, None]
  slices: tuple[int, int]
  id: str = 'site9/subj-0047'
  dataset: str = 'site9'
  subject: str = 'subj-0047'
  split: str = 'train'

  @property
  def shape(self) -> tuple[int, int, int]:
    return (self.slices[1] + 5, 64, 64)

  @property
  def usable(self) -> range:
    return range(*self.slices)

  @property
  def routes(self) -> tuple[Route, ...]:
    return routes_between(self.region, set(self.modalities))


def case_of(route: Route, start: int = 10, stop: int = 30, **fields):
  """A case that serves `route`."""
  modalities = dict.fromkeys((route.source, route.target))
  return FakeCase(route.region, modalities, (start, stop), **fields)


def texts(example) -> list[str]:
  """The words of every text span."""
  return [span.text for span in example.spans if span.kind == 'text']


seeds = st.integers(0, 2**32 - 1)
routes = st.sampled_from(ALL_ROUTES)


@st.composite
def pairs(draw, least_slices: int = 4):
  """(case, route, index) with the index among the usable slices."""
  route = draw(routes)
  start = draw(st.integers(0, 200))
  stop = start + draw(st.integers(least_slices, 60))
  case = case_of(route, start, stop)
  return case, route, draw(st.integers(start, stop - 1))
