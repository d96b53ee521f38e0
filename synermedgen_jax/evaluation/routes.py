"""Aggregates scores of cases per route, for the model and its baselines.

Four methods are scored on the same held-out cases: `model`, the synthesis by
the run's model or by one of `synthesisers`, and the baselines `copy_source`,
`mean_target` and `ceiling`.
`BASELINE_DEFINITIONS` defines the last three.

`wins` defines which routes are won.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import route_named, routes_named
from synermedgen_jax.evaluation import wins
from synermedgen_jax.evaluation.metrics import BUILT_IN, definitions
from synermedgen_jax.evaluation.wins import TRIVIAL

BASELINES = (*TRIVIAL, 'ceiling')
BASELINE_DEFINITIONS = {
  'copy_source': 'the unchanged source, its window mapped to that of the '
  'target; of several sources, the mean of the images so mapped',
  'mean_target': 'the mean target image of the training subjects that have the '
  'modalities of the route, by relative slice position in ten bins; none '
  'without such subjects',
  'ceiling': 'the truth through the autoencoder, the upper bound of a '
  'synthesis in its latent space; for a model of codes, through its codes too; '
  'none for outputs made elsewhere',
}
METHODS = ('model', *BASELINES)
# A store without training subjects has no mean target.
_OPTIONAL = ('mean_target', 'ceiling')


@dataclasses.dataclass(frozen=True)
class RouteScore:
  """One method on one case of one route.

  Attributes:
    route: name of the route.
    case: id of the case.
    subject: `Case.person`; a person with several cases counts once.
    method: one of `METHODS`.
    full_frame: True = scored over the full frame, False = in the body mask.
    values: metric -> value, see `metrics.case_metrics`.
  """

  route: str
  case: str
  subject: str
  method: str
  full_frame: bool
  values: Mapping[str, float]

  def __post_init__(self):
    route_named(self.route)  # raises where there is none
    if self.method not in METHODS:
      raise ValueError(
        f'Unknown method {self.method!r}: expected one of {METHODS}.'
      )


def with_common_metrics(
  rows: Sequence[RouteScore],
) -> tuple[list[RouteScore], dict[str, str]]:
  """Keeps the metrics that every row has, so that all means share subjects.

  Returns:
    The rows with these metrics, and metric -> a case without it, of the
    registered metrics that are left out.
  """
  lacking = {
    name: [row.case for row in rows if name not in row.values]
    for name in definitions()
  }
  left_out = {name: cases[0] for name, cases in lacking.items() if cases}
  kept = [
    dataclasses.replace(
      row, values={k: v for k, v in row.values.items() if k not in left_out}
    )
    for row in rows
  ]
  return kept, left_out


def aggregate(rows: Iterable[RouteScore]) -> dict[str, Any]:
  """Averages scores over subjects per route, and summarises the routes.

  Every metric is averaged over the cases of a subject, then over subjects. All
  methods must be scored on the same cases, both in the body mask and over the
  full frame, by the same metrics; `mean_target` and `ceiling` may be missing.

  Returns:
    {'synthesis': {route: {ssim, psnr, mae, …, count, unit, interval,
    better_baseline, difference, win, full_frame: {…}, baselines: {method:
    {ssim, psnr, mae, …, full_frame: {…}}}}}, 'summary': {routes, wins,
    mean_ssim, mean_ssim_baselines: {method: …}, better_baseline}}, with every
    metric of the rows. `count` is the number of subjects; `wins.DEFINITION`
    defines intervals, differences and wins.

  Raises:
    ValueError: `rows` is empty, or was scored on different cases or by
      different metrics.
  """
  by_route, scored = collections.defaultdict(list), set()
  for row in rows:
    by_route[row.route].append(row)
    scored.add(tuple(row.values))
  if not by_route:
    raise ValueError('No scores to aggregate.')
  if len(scored) > 1:
    raise ValueError(f'Rows have different metrics: {sorted(scored)}.')
  synthesis = {
    route.name: _aggregate_route(route.name, by_route[route.name])
    for route in routes_named(by_route)
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
      if method in _OPTIONAL and not any(
        groups[method, region] for region in (False, True)
      ):
        continue
      if not scored or scored != cases or len(set(cases)) < len(cases):
        region = 'the full frame' if full_frame else 'the body mask'
        raise ValueError(
          f'Route {route}: {method} over {region} was scored on cases '
          f'{scored}, the model over the body mask on {cases}; both need the '
          'same cases, each once.'
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
  ssim = {
    method: _ssim_by_subject(groups[method, False])
    for method in ('model', *score)
  }
  return {
    **model,
    'count': len({row.subject for row in rows}),
    'unit': route_named(route).target.unit,
    **wins.judge(ssim.pop('model'), ssim),
    'baselines': score,
  }


def _cases(rows: Sequence[RouteScore]) -> list[str]:
  return sorted(row.case for row in rows)


def _mean(rows: Sequence[RouteScore]) -> dict[str, float]:
  names = list(rows[0].values)
  means = _by_subject(rows, names).mean(axis=0)
  return dict(zip(names, means.tolist(), strict=True))


def _ssim_by_subject(rows: Sequence[RouteScore]) -> np.ndarray:
  return _by_subject(rows, ['ssim'])[:, 0]


def _by_subject(
  rows: Sequence[RouteScore], names: Sequence[str]
) -> Float[np.ndarray, 'subjects metrics']:
  """Means over the cases of each subject, in the order of their names."""
  by_subject = collections.defaultdict(list)
  for row in rows:
    by_subject[row.subject].append([row.values[name] for name in names])
  return np.array([np.mean(by_subject[s], axis=0) for s in sorted(by_subject)])


def added_metrics(metrics: Mapping[str, Any]) -> list[str]:
  """Names of the metrics that are not built in, in order.

  Args:
    metrics: content of metrics.json, which defines its metrics.
  """
  defined = metrics.get('definition', {}).get('synthesis', {})
  return [name for name in defined if name not in BUILT_IN]


def left_out_note(metrics: Mapping[str, Any]) -> str:
  """A sentence about the metrics that some case lacks; '' if none is.

  Args:
    metrics: content of metrics.json.
  """
  cases = metrics.get('left_out')
  if not cases:
    return ''
  return (
    f'Left out: {", ".join(cases)}. They need two or more adjacent slices of '
    f'every case (--slices=0), which {next(iter(cases.values()))} was not '
    'scored on.'
  )


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
    'better_baseline': max(
      (name for name in TRIVIAL if name in baselines),
      key=baselines.__getitem__,
    ),
  }


@dataclasses.dataclass(frozen=True)
class MeanTarget:
  """Mean images by relative slice position.

  Attributes:
    images: in [-1, 1]; bins run from the first usable slice to the last.
  """

  images: Float[np.ndarray, 'bins h w']

  def predict(self, count: int) -> Float[np.ndarray, 'z h w']:
    """The mean image at each of `count` usable slices, in order."""
    return self.images[_bins(count, len(self.images))]


def mean_target_images(
  volumes: Iterable[tuple[Float[np.ndarray, '_ _ _'], range]], bins: int = 10
) -> MeanTarget:
  """Averages target slices of training subjects by relative slice position.

  The usable range of each subject is divided into `bins` equal parts, since a
  mean over all slices would be a weaker baseline: anatomy changes along the
  axis. An empty bin takes the image of the nearest bin with slices.

  Args:
    volumes: pairs of a training subject's target volume (z, h, w), in [-1, 1],
      and its range of usable slices; z may differ between subjects.
    bins: number of parts.

  Raises:
    ValueError: slices differ in shape, or no slice is usable.
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
    parts = _bins(len(usable), bins)
    for part, image in zip(
      parts, volume[usable.start : usable.stop], strict=True
    ):
      sums[part] += image
      counts[part] += 1
  filled = np.flatnonzero(counts)
  if not filled.size:
    raise ValueError('The mean target needs at least one usable slice.')
  nearest = filled[
    np.abs(np.arange(bins)[:, None] - filled[None]).argmin(axis=1)
  ]
  images = sums[nearest] / counts[nearest, None, None]
  return MeanTarget(images.astype(np.float32))


def _bins(count: int, bins: int) -> np.ndarray:
  """The bin that contains the middle of each of `count` slices."""
  return ((np.arange(count) + 0.5) * bins / max(count, 1)).astype(int)


def route_table(metrics: Mapping[str, Any]) -> str:
  """Formats the routes as aligned text, with the means in the last row.

  Args:
    metrics: result of `aggregate`. Metrics that are not built in get columns
      if it has `definition`, as in metrics.json.
  """
  added = added_metrics(metrics)
  head = ('route', 'n', 'SSIM', 'copy', 'mean', 'ceiling', 'PSNR', 'MAE')
  lines = [(*head, *added, 'difference (95 %)', '')]
  lines += [_table_row(*i, added) for i in metrics['synthesis'].items()]
  summary = metrics['summary']
  baselines = summary['mean_ssim_baselines']
  lines.append(
    (
      'mean',
      '',
      f'{summary["mean_ssim"]:.3f}',
      *(_number(baselines.get(name)) for name in BASELINES),
      *[''] * (3 + len(added)),
      f'{summary["wins"]} of {summary["routes"]} won',
    )
  )
  notes = _NOTE_OF_WINS, left_out_note(metrics)
  return '\n'.join(filter(None, (align(lines), *notes)))


_NOTE_OF_WINS = (
  'difference: SSIM less that of the better one of copy and mean, with its '
  '95 % bootstrap interval over subjects; one subject has none. win: the '
  'interval is above zero.'
)


def _table_row(
  route: str, score: Mapping[str, Any], added: Sequence[str]
) -> tuple[str, ...]:
  """Cells of one route: SSIM of each method and other metrics, in the mask."""
  baselines = score['baselines']
  return (
    route,
    str(score['count']),
    f'{score["ssim"]:.3f}',
    *(_number(baselines.get(name, {}).get('ssim')) for name in BASELINES),
    f'{score["psnr"]:.1f}',
    f'{score["mae"]:.3g} {score["unit"]}',
    *(f'{score[name]:.4g}' for name in added),
    difference_text(score),
    'win' if score['win'] else '',
  )


def difference_text(score: Mapping[str, Any]) -> str:
  """The difference to the better trivial baseline, '-' with one subject.

  Args:
    score: entry of a route in metrics.json.
  """
  if score['difference'] is None:
    return '-'
  mean, low, high = score['difference']
  return f'{mean:+.3f} ({low:+.3f} to {high:+.3f})'


def _number(value: float | None) -> str:
  return '-' if value is None else f'{value:.3f}'


def align(rows: Sequence[Sequence[str]]) -> str:
  """Formats rows of cells; the first and the last column are left-aligned."""
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
