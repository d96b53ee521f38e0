"""Stand-ins for cases of a slice store, and strategies that draw them."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from synermedgen_jax.core.modalities import (
  Modality,
  Region,
  Route,
  all_routes,
  routes_between,
)
from synermedgen_jax.slices.lesions import SliceLesions
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import PROMPTS


@dataclasses.dataclass(frozen=True)
class FakeCase:
  """A case with the attributes that tasks read. No text may contain its id."""

  region: Region
  modalities: dict[Modality, None]
  slices: tuple[int, int]
  id: str = 'site9/subj-0047'
  dataset: str = 'site9'
  subject: str = 'subj-0047'
  split: str = 'train'
  plane: str = 'axial'
  lesions: dict[int, SliceLesions] | None = None

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
  modalities = dict.fromkeys((*route.sources, route.target))
  return FakeCase(route.region, modalities, (start, stop), **fields)


def build(task, pair, rng, **pool):
  """An example of a task's module about a pair, its case alone in the pool."""
  rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
  return task.build(pair, Pool([pair.case], **pool), rng)


def texts(example) -> list[str]:
  """The words of every text span."""
  return [span.text for span in example.spans if span.kind == 'text']


seeds = st.integers(0, 2**32 - 1)
routes = st.sampled_from(all_routes())
wordings = st.sampled_from(list(PROMPTS.values()))


@st.composite
def pairs(draw, least_slices: int = 4):
  """A pair whose slice is usable."""
  route = draw(routes)
  start = draw(st.integers(0, 200))
  stop = start + draw(st.integers(least_slices, 60))
  case = case_of(route, start, stop)
  return Pair(case, route, draw(st.integers(start, stop - 1)))
