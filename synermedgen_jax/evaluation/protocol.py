"""Selects the questions and slices of an evaluation and scores syntheses.

Questions are drawn from held-out pairs of modalities. Every route is
synthesised for every held-out subject that has all of its modalities.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core.modalities import Modality, Route, routes_named
from synermedgen_jax.evaluation.metrics import case_metrics
from synermedgen_jax.evaluation.routes import (
  MeanTarget,
  RouteScore,
  mean_target_images,
)
from synermedgen_jax.evaluation.volume_checks import VolumeScoreError
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES
from synermedgen_jax.slices.store import Case, SliceStore
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.pairs import Pool, case_routes
from synermedgen_jax.tasks.registry import Task

Images = Float[np.ndarray, 'z h w']


def draw_questions(
  pool: Pool, task: Task, count: int, *, seed: int
) -> list[Example]:
  """Draws `count` questions of a task, alternating between routes.

  Args:
    pool: held-out cases, and the wordings that the model was trained with.
    task: a task that is built from pairs.
    count: number of questions; fewer if fewer pairs are eligible.
    seed: random seed of the draw.
  """
  items = task.pairs(pool)
  rng = np.random.default_rng(seed)
  by_route = defaultdict(list)
  for i in rng.permutation(len(items)):
    by_route[items[i].route].append(items[i])
  rounds = max(map(len, by_route.values()), default=0)
  drawn = [
    route_items[i]
    for i in range(rounds)
    for route_items in by_route.values()
    if i < len(route_items)
  ]
  return [task.build(pair, pool, rng) for pair in drawn[:count]]


def spread(usable: range, count: int) -> np.ndarray:
  """Indices of `count` evenly spaced usable slices; 0 = all of them."""
  if not count or count >= len(usable):
    return np.arange(usable.start, usable.stop)
  middles = (np.arange(count) + 0.5) * len(usable) / count
  return usable.start + middles.astype(int)


@dataclasses.dataclass(frozen=True)
class RoutePair:
  """A held-out case and a route to synthesise for it; nothing is read yet.

  Attributes:
    route: sources -> target.
    case: a held-out case.
    indices: indices of the scored slices in the volume.
  """

  route: Route
  case: Case
  indices: np.ndarray


@dataclasses.dataclass(frozen=True)
class RouteCase(RoutePair):
  """A pair with its volumes.

  Attributes:
    sources: the scored slices of every source, in [-1, 1].
    truth: those of the target, in [-1, 1].
    mask: body mask of the scored slices.
  """

  sources: Float[np.ndarray, 's z h w']
  truth: Images
  mask: Bool[np.ndarray, 'z h w']

  @classmethod
  def read(cls, store: SliceStore, pair: RoutePair) -> RouteCase:
    """Reads the volumes of a pair from the store."""
    *sources, truth = (
      store.read_volume(pair.case.id, modality)[pair.indices]
      for modality in (*pair.route.sources, pair.route.target)
    )
    mask = store.read_mask(pair.case.id)[pair.indices]
    return cls(
      pair.route, pair.case, pair.indices, np.stack(sources), truth, mask
    )


def route_pairs(
  cases: Sequence[Case], *, slices: int, routes: Sequence[str] = ()
) -> Iterator[RoutePair]:
  """Yields every case with every route that it has the modalities of.

  Args:
    cases: held-out cases.
    slices: slices per case, evenly spaced; 0 = all usable ones.
    routes: names of the routes to keep; empty = all with one source.
  """
  named = routes_named(routes)
  for case in cases:
    for route in case_routes(case, named):
      yield RoutePair(route, case, spread(case.usable, slices))


class MeanTargets:
  """The mean target images of training subjects, computed once per target."""

  def __init__(self, store: SliceStore):
    self._store = store
    self._train = store.split('train')
    self._means: dict[tuple, MeanTarget] = {}

  def predict(self, item: RouteCase) -> Images | None:
    """The mean images at the positions of the scored slices.

    Returns:
      None if no training subject has the route, as in a holdout store.
    """
    route = item.route
    cases = self._cases(route)
    if not cases:
      return None
    key = (route.cohort, route.target, tuple(c.id for c in cases))
    if key not in self._means:
      self._means[key] = mean_target_images(
        (self._store.read_volume(c.id, route.target), c.usable) for c in cases
      )
    usable = item.case.usable
    images = self._means[key].predict(len(usable))
    return images[item.indices - usable.start]

  def _cases(self, route: Route) -> list[Case]:
    return [
      case
      for case in self._train
      if route.served_by(case.region, case.modalities)
    ]


def score_case(
  item: RouteCase, predictions: dict[str, Images]
) -> Iterator[RouteScore]:
  """Scores each method within the body and over the full frame.

  Args:
    item: the pair to score on.
    predictions: method -> target slices in [-1, 1].
  """
  window = item.case.modalities[item.route.target]
  for method, prediction in predictions.items():
    body, frame = case_metrics(
      prediction,
      item.truth,
      item.mask,
      None,
      unit_range=(window.low, window.high),
      indices=item.indices,
    )
    for full_frame, values in ((False, body), (True, frame)):
      yield RouteScore(
        item.route.name,
        item.case.id,
        item.case.person,
        method,
        full_frame,
        values,
      )


def volume_scores(
  item: RouteCase, synthesis: Images, names: Sequence[str]
) -> dict[str, dict[str, float]]:
  """Computes scores of whole volumes, on the grid of the store.

  Args:
    item: a pair with all its usable slices.
    synthesis: the synthesised slices in [-1, 1].
    names: keys of `VOLUME_SCORES`.

  Returns:
    Score -> metric -> value, of the scores that apply to the route.

  Raises:
    VolumeScoreError: the case cannot be scored, see `check_volume_scores`.
  """
  window = item.case.modalities[item.route.target]
  prediction, truth = (
    window.denormalise(np.clip(x, -1, 1)) for x in (synthesis, item.truth)
  )
  return {
    name: VOLUME_SCORES[name].function(
      prediction, truth, item.mask, item.case.spacing
    )
    for name in names
    if VOLUME_SCORES[name].applies(item.route)
  }


def check_volume_scores(
  store: SliceStore, pairs: Sequence[RoutePair], names: Sequence[str]
) -> None:
  """Refuses scores of volumes that pairs cannot have.

  Args:
    store: the store of the pairs.
    pairs: the pairs, with all usable slices.
    names: keys of `VOLUME_SCORES`.

  Raises:
    VolumeScoreError: a score applies to no route, or a case cannot be scored.
  """
  for name in names:
    score = VOLUME_SCORES[name]
    scored = {
      (pair.case.id, pair.route.target): pair
      for pair in pairs
      if score.applies(pair.route)
    }
    if not scored:
      regions = ' or '.join(region.label for region in score.regions)
      raise VolumeScoreError(
        f'{name}: no route has one of its targets, '
        f'{", ".join(t.label for t in score.targets)}'
        f'{f" of the {regions}" if regions else ""}; choose other routes.'
      )
    for (case_id, target), pair in scored.items():
      truth = store.read_volume(case_id, target)[pair.indices]
      mask = store.read_mask(case_id)[pair.indices]
      window = pair.case.modalities[target]
      if reason := score.refusal(window.denormalise(truth), mask):
        raise VolumeScoreError(
          f'{name}: case {case_id} {reason}; choose other routes.'
        )


def panel(item: RouteCase, synthesis: Images, count: int = 3) -> dict:
  """Arrays of a few slices of a case, for the report's picture."""
  rows = spread(range(len(item.indices)), count)
  *sources, target = (
    np.float32([window.low, window.high])
    for window in (
      item.case.modalities[modality]
      for modality in (*item.route.sources, item.route.target)
    )
  )
  return {
    'source': item.sources[:, rows],
    'synthesis': synthesis[rows].astype(np.float32),
    'truth': item.truth[rows],
    'mask': item.mask[rows],
    'indices': item.indices[rows],
    'source_window': np.stack(sources),
    'target_window': target,
    'plane': np.array(item.case.plane),
    'subject': np.array(item.case.subject),
    'case': np.array(item.case.id),
  }


# A pair, its synthesised slices in [-1, 1], and the scores of all methods.
Scored = tuple[RouteCase, Images, list[RouteScore]]


def score_routes(
  store: SliceStore,
  pairs: Iterable[RoutePair],
  synthesise: Callable[[Route, Float[np.ndarray, 's z h w']], Images],
  reconstruct: Callable[[Images], Images],
) -> Iterator[Scored]:
  """Synthesises each pair and scores the model and the baselines on it.

  The volumes of one case are in memory at a time.

  Args:
    store: the store of the pairs; its training subjects give `mean_target`,
      which is left out for routes that no training subject has.
    pairs: the pairs, those of a case one after the other.
    synthesise: (route, slices of its sources) -> target slices.
    reconstruct: target slices -> the same slices after the autoencoder. It is
      called once per case and target; routes share the result.

  Yields:
    The pair, its synthesised slices, and the scores of all methods.
  """
  scored = score_outputs(
    store, pairs, lambda item: synthesise(item.route, item.sources)
  )
  for _, of_case in itertools.groupby(scored, key=lambda s: s[0].case.id):
    ceilings: dict[Modality, Images] = {}
    for item, synthesis, rows in of_case:
      target = item.route.target
      if target not in ceilings:
        ceilings[target] = reconstruct(item.truth)
      ceiling = score_case(item, {'ceiling': ceilings[target]})
      yield item, synthesis, [*rows, *ceiling]


def score_outputs(
  store: SliceStore,
  pairs: Iterable[RoutePair],
  output: Callable[[RouteCase], Images],
) -> Iterator[Scored]:
  """Scores outputs and the baselines that need no model.

  Args:
    store, pairs: as in `score_routes`.
    output: pair -> synthesised slices in [-1, 1].

  Yields:
    As `score_routes`, without `ceiling`.
  """
  means = MeanTargets(store)
  for pair in pairs:
    item = RouteCase.read(store, pair)
    synthesis = output(item)
    predictions = {
      'model': synthesis,
      'copy_source': item.sources.mean(0),
      'mean_target': means.predict(item),
    }
    predictions = {k: v for k, v in predictions.items() if v is not None}
    yield item, synthesis, list(score_case(item, predictions))
