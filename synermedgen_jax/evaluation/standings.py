"""The standings of several systems: scores, intervals, ranks, routes led."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.evaluation.bootstrap import Resamples
from synermedgen_jax.evaluation.metrics import BUILT_IN
from synermedgen_jax.evaluation.subjects import Subjects

_ROWS = ('copy_source', 'mean_target')


class StandingsError(UserError):
  """Systems that cannot stand in one table; one line that names them."""


@dataclasses.dataclass(frozen=True)
class Standing:
  """One system in the table.

  Attributes:
    scores: metric -> mean over routes; each route is the mean over its
      subjects, each subject the mean over seeds.
    interval: 95 % interval of the mean SSIM, over subjects; NaN without one
      (`Resamples.interval`).
    difference: mean SSIM less that of the reference, and its paired 95 %
      interval; None for the reference.
    rank: 1 = the highest mean SSIM.
    leads: number of routes on which it has the highest mean SSIM.
    routes: route -> metric -> mean over subjects.
    seeds: seed -> mean SSIM.
    ceiling: mean SSIM of the truth through the system's autoencoder, codes or
      resizing; None if it was not measured on every route.
  """

  scores: Mapping[str, float]
  interval: tuple[float, float]
  difference: tuple[float, float, float] | None
  rank: int
  leads: int
  routes: Mapping[str, Mapping[str, float]]
  seeds: Mapping[str, float]
  ceiling: float | None


def standings(
  runs: Mapping[str, Mapping[str, Subjects]],
  *,
  reference: str,
  resamples: int = 2000,
  seed: int = 0,
) -> dict[str, Standing]:
  """Ranks systems, a copy of the source and the mean target among them.

  Args:
    runs: system -> seed -> evaluation; all of the same routes and subjects.
    reference: the system that differences are taken from.
    resamples: number of bootstrap resamples of subjects.
    seed: random seed of the resampling.

  Raises:
    StandingsError: systems were evaluated on other slices, routes or subjects.
  """
  _check(runs)
  first = next(iter(runs[reference].values()))
  routes, people = sorted(first.synthesis), sorted(first.subjects)
  resampled = Resamples.draw(
    [first.subjects[name] for name in people], resamples, seed
  )
  # All systems have the same subjects.
  measured = np.isfinite(_table(first, routes, people)).any((0, 2))
  tables = {
    system: {
      name: _table(evaluation, routes, people)
      for name, evaluation in by_seed.items()
    }
    for system, by_seed in runs.items()
  }
  for row in _ROWS:
    table = _table(first, routes, people, baseline=row)
    if np.isfinite(table).any((1, 2)).all():  # every route has the row
      tables[row] = {'': table}
  mean = {s: np.mean(list(t.values()), axis=0) for s, t in tables.items()}
  drawn = {s: _over_routes(t[..., 0], resampled) for s, t in mean.items()}
  by_route = {s: np.nanmean(table, axis=1) for s, table in mean.items()}
  ssim = {s: table[:, 0].mean() for s, table in by_route.items()}
  order = sorted(ssim, key=ssim.get, reverse=True)
  best = np.max([table[:, 0] for table in by_route.values()], axis=0)
  return {
    system: Standing(
      scores=dict(
        zip(BUILT_IN, by_route[system].mean(0).tolist(), strict=True)
      ),
      interval=resampled.interval(drawn[system], measured),
      difference=None
      if system == reference
      else (
        float(ssim[system] - ssim[reference]),
        *resampled.interval(drawn[system] - drawn[reference], measured),
      ),
      rank=order.index(system) + 1,
      leads=int((by_route[system][:, 0] >= best).sum()),
      routes={
        route: _named(by_route[system][i]) for i, route in enumerate(routes)
      },
      seeds={
        name: float(np.nanmean(table[..., 0], axis=1).mean())
        for name, table in tables[system].items()
        if name
      },
      ceiling=_ceiling(runs.get(system), routes, people),
    )
    for system in order
  }


def _named(values: Float[np.ndarray, ' metrics']) -> dict[str, float]:
  return dict(zip(BUILT_IN, values.tolist(), strict=True))


def _check(runs: Mapping[str, Mapping[str, Subjects]]) -> None:
  """Refuses systems that were not evaluated on the same slices."""
  every = [e for by_seed in runs.values() for e in by_seed.values()]
  first = every[0]
  for other in every[1:]:
    for key in ('store', 'split', 'slices'):
      if other.settings[key] != first.settings[key]:
        raise StandingsError(
          f'{other.path}: {key} is {other.settings[key]!r}, but '
          f'{first.settings[key]!r} in {first.path}; evaluate both alike.'
        )
    if _scored(other) != _scored(first):
      raise StandingsError(
        f'{other.path}: has other routes or subjects than {first.path}; '
        'evaluate both on the same ones.'
      )


def _scored(evaluation: Subjects) -> dict[str, list[str]]:
  return {r: sorted(entries) for r, entries in evaluation.synthesis.items()}


def _table(
  evaluation: Subjects,
  routes: Sequence[str],
  people: Sequence[str],
  *,
  baseline: str = '',
) -> Float[np.ndarray, 'routes people metrics']:
  """Scores of an evaluation; NaN where a subject lacks the route."""
  table = np.full((len(routes), len(people), len(BUILT_IN)), np.nan)
  for i, route in enumerate(routes):
    for person, entry in evaluation.synthesis[route].items():
      values = entry['baselines'].get(baseline) if baseline else entry
      if values is None:  # no training subject has the route
        continue
      table[i, people.index(person)] = [values[name] for name in BUILT_IN]
  return table


def _ceiling(
  by_seed: Mapping[str, Subjects] | None,
  routes: Sequence[str],
  people: Sequence[str],
) -> float | None:
  """The mean ceiling of a system; None for the trivial baselines."""
  if by_seed is None:
    return None
  ssim = [
    _table(evaluation, routes, people, baseline='ceiling')[..., 0]
    for evaluation in by_seed.values()
  ]
  if not all(np.isfinite(table).any(1).all() for table in ssim):
    return None
  return float(np.mean([np.nanmean(table, axis=1) for table in ssim]))


def _over_routes(
  ssim: Float[np.ndarray, 'routes people'], drawn: Resamples
) -> Float[np.ndarray, ' resamples']:
  """Mean over routes of the means over resampled subjects."""
  has = np.isfinite(ssim)
  sums = drawn.weights @ np.where(has, ssim, 0.0).T
  counts = drawn.weights @ has.T.astype(float)
  return np.nanmean(
    np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), 1
  )
