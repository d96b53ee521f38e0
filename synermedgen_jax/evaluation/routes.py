"""From cases to the table of routes, beside honest baselines.

Four methods are scored alike, on the same held-out cases:

* `model`: the synthesis.
* `copy_source`: the source image as it is, both windows mapped to [-1, 1].
* `mean_target`: the mean target image of the training subjects, see
  `mean_target_images`.
* `ceiling`: the truth through the autoencoder and back, the best that a
  synthesis in its latent space can do.

A model that does not beat the two trivial ones has learned nothing on a route.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import ROUTES_BY_NAME, all_routes
from synermedgen_jax.evaluation.metrics import BUILT_IN

TRIVIAL = ('copy_source', 'mean_target')
BASELINES = (*TRIVIAL, 'ceiling')
METHODS = ('model', *BASELINES)


@dataclasses.dataclass(frozen=True)
class RouteScore:
  """One method on one case of one route.

  Attributes:
    route: name of the route.
    case: id of the case.
    subject: name of the subject; one with many cases counts once.
    method: one of `METHODS`.
    full_frame: over the full frame; else within the body mask.
    values: metric -> value, as `metrics.case_metrics` returns them.
  """

  route: str
  case: str
  subject: str
  method: str
  full_frame: bool
  values: Mapping[str, float]

  def __post_init__(self):
    if self.route not in ROUTES_BY_NAME:
      raise ValueError(f'Unknown route {self.route!r}.')
    if self.method not in METHODS:
      raise ValueError(
        f'Unknown method {self.method!r}: expected one of {METHODS}.'
      )


def aggregate(rows: Iterable[RouteScore]) -> dict[str, Any]:
  """Means over subjects, per route, and a summary over routes.

  Every metric is the mean over the cases of a subject, then over subjects.
  Every method must have been scored on the cases of the model, within the
  mask and over the full frame; only `ceiling` may be missing.

  Returns:
    {'synthesis': {route: {ssim, psnr, mae, …, count, unit, win, full_frame:
    {…}, baselines: {method: {ssim, psnr, mae, …, full_frame: {…}}}}},
    'summary': {routes, wins, mean_ssim, mean_ssim_baselines: {method: …},
    better_baseline}}, with every metric of the rows. `count` is the number of
    subjects, and `win` means that the model's SSIM within the mask is above
    that of both trivial baselines.

  Raises:
    ValueError: there are no rows, or methods were scored on different cases.
  """
  by_route = collections.defaultdict(list)
  for row in rows:
    by_route[row.route].append(row)
  if not by_route:
    raise ValueError('No scores to aggregate.')
  synthesis = {
    route.name: _aggregate_route(route.name, by_route[route.name])
    for route in all_routes()
    if route.name in by_route
  }
  return {'synthesis': synthesis, 'summary': _summarise(synthesis)}


def _aggregate_route(route: str, rows: Sequence[RouteScore]) -> dict[str, Any]:
  groups = collections.defaultdict(list)
  for row in rows:
    groups[row.method, row.full_frame].append(row)
  cases = _cases(groups['model', False])
  for method in METHODS:
    for full_frame in (False, True):
      scored = _cases(groups[method, full_frame])
      if method == 'ceiling' and not any(
        groups[method, region] for region in (False, True)
      ):
        continue
      if not scored or scored != cases or len(set(cases)) < len(cases):
        region = 'the full frame' if full_frame else 'the body mask'
        raise ValueError(
          f'Route {route}: {method} over {region} has scores of cases '
          f'{scored}, the model within the body mask of {cases}; both need '
          'the same, each once.'
        )
  score = {
    method: {
      **_mean(groups[method, False]),
      'full_frame': _mean(groups[method, True]),
    }
    for method in METHODS
    if groups[method, False]
  }
  model = score.pop('model')
  return {
    **model,
    'count': len({row.subject for row in rows}),
    'unit': ROUTES_BY_NAME[route].target.unit,
    'win': all(model['ssim'] > score[name]['ssim'] for name in TRIVIAL),
    'baselines': score,
  }


def _cases(rows: Sequence[RouteScore]) -> list[str]:
  return sorted(row.case for row in rows)


def _mean(rows: Sequence[RouteScore]) -> dict[str, float]:
  names = list(rows[0].values)
  by_subject = collections.defaultdict(list)
  for row in rows:
    by_subject[row.subject].append([row.values[name] for name in names])
  means = [np.mean(values, axis=0) for values in by_subject.values()]
  return dict(zip(names, np.mean(means, axis=0).tolist(), strict=True))


def added_metrics(metrics: Mapping[str, Any]) -> list[str]:
  """The metrics of a result beside the built-in ones, in order.

  Args:
    metrics: as in metrics.json; the definitions name its metrics.
  """
  defined = metrics.get('definition', {}).get('synthesis', {})
  return [name for name in defined if name not in BUILT_IN]


def _summarise(synthesis: Mapping[str, Any]) -> dict[str, Any]:
  scores = list(synthesis.values())
  baselines = {
    name: float(np.mean([s['baselines'][name]['ssim'] for s in scores]))
    for name in BASELINES
    if all(name in s['baselines'] for s in scores)
  }
  return {
    'routes': len(scores),
    'wins': sum(s['win'] for s in scores),
    'mean_ssim': float(np.mean([s['ssim'] for s in scores])),
    'mean_ssim_baselines': baselines,
    'better_baseline': max(TRIVIAL, key=baselines.__getitem__),
  }


@dataclasses.dataclass(frozen=True)
class MeanTarget:
  """Mean images along the relative slice position.

  Attributes:
    images: [bins, h, w] in [-1, 1], from the first usable slice to the last.
  """

  images: Float[np.ndarray, 'bins h w']

  def predict(self, count: int) -> Float[np.ndarray, 'z h w']:
    """The mean images for `count` usable slices of a subject, in order."""
    return self.images[_bins(count, len(self.images))]


def mean_target_images(
  volumes: Iterable[tuple[Float[np.ndarray, '_ _ _'], range]], bins: int = 10
) -> MeanTarget:
  """The mean target image of training subjects, per relative position.

  Usable slices are spread over `bins` equal parts of the subject's range; one
  mean over all slices would be a weaker baseline, since anatomy changes along
  the axis. Parts that no subject reaches take the nearest one that has slices.

  Args:
    volumes: target volumes [z, h, w] in [-1, 1] of training subjects alone,
      each with its range of usable slices; z is each one's own.
    bins: how many parts.
  """
  sums, counts = None, np.zeros(bins, int)
  for volume, usable in volumes:
    if sums is None:
      sums = np.zeros((bins, *volume.shape[1:]))
    if volume.shape[1:] != sums.shape[1:]:
      raise ValueError(
        f'Slices must share one shape: got {volume.shape[1:]} after '
        f'{sums.shape[1:]}.'
      )
    places = _bins(len(usable), bins)
    for place, image in zip(
      places, volume[usable.start : usable.stop], strict=True
    ):
      sums[place] += image
      counts[place] += 1
  filled = np.flatnonzero(counts)
  if not filled.size:
    raise ValueError('The mean target needs at least one usable slice.')
  nearest = filled[
    np.abs(np.arange(bins)[:, None] - filled[None]).argmin(axis=1)
  ]
  images = sums[nearest] / counts[nearest, None, None]
  return MeanTarget(images.astype(np.float32))


def _bins(count: int, bins: int) -> np.ndarray:
  """The part that each of `count` slices lies in, by its middle."""
  return ((np.arange(count) + 0.5) * bins / max(count, 1)).astype(int)


def route_table(metrics: Mapping[str, Any]) -> str:
  """The routes of an aggregate as aligned text, the means last.

  Args:
    metrics: as `aggregate` returns it; metrics of a project have columns if
      `definition` is there too, as in metrics.json.
  """
  added = added_metrics(metrics)
  head = ('route', 'n', 'SSIM', 'copy', 'mean', 'ceiling', 'PSNR', 'MAE')
  lines = [(*head, *added, '')]
  lines += [_table_row(*i, added) for i in metrics['synthesis'].items()]
  summary = metrics['summary']
  baselines = summary['mean_ssim_baselines']
  lines.append(
    (
      'mean',
      '',
      f'{summary["mean_ssim"]:.3f}',
      *(_number(baselines.get(name)) for name in BASELINES),
      *[''] * (2 + len(added)),
      f'{summary["wins"]} of {summary["routes"]} won',
    )
  )
  return align(lines)


def _table_row(
  route: str, score: Mapping[str, Any], added: Sequence[str]
) -> tuple[str, ...]:
  """One route's cells, within the mask; SSIM of each method."""
  baselines = score['baselines']
  return (
    route,
    str(score['count']),
    f'{score["ssim"]:.3f}',
    *(_number(baselines.get(name, {}).get('ssim')) for name in BASELINES),
    f'{score["psnr"]:.1f}',
    f'{score["mae"]:.3g} {score["unit"]}',
    *(f'{score[name]:.4g}' for name in added),
    'win' if score['win'] else '',
  )


def _number(value: float | None) -> str:
  return '-' if value is None else f'{value:.3f}'


def align(rows: Sequence[Sequence[str]]) -> str:
  """Rows of cells as text: the first and last column left, others right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  last = len(widths) - 1
  lines = []
  for row in rows:
    cells = (
      cell.ljust(width) if i in (0, last) else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    lines.append('  '.join(cells).rstrip())
  return '\n'.join(lines)
