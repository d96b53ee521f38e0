"""Calibrates intervals on validation subjects and measures what they cover.

The half-width of an interval is a factor times the deviation of several draws
(`inference/intervals.py`). The factor of a route comes from the validation
subjects alone; its coverage, width and the rest are those of other subjects.
An interval that does not cover what it claims is not offered.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from synermedgen_jax.core.progress import Bar
from synermedgen_jax.evaluation import protocol
from synermedgen_jax.evaluation.routes import align
from synermedgen_jax.inference.intervals import (
  LEVEL,
  OFFERED,
  Calibration,
  IntervalError,
  RouteInterval,
  Spread,
  draw_spread,
  ends,
  is_constant,
)
from synermedgen_jax.slices.store import Case, SliceStore

_CALIBRATING = 'val'
_MOST_VOXELS = 250_000  # of a case, 3 MB; all cases of a route are in memory
_LEAST_CORRELATION = 0.1
_REMOVED = np.arange(20) / 20

DEFINITION = {
  'draw': 'one synthesis with a seed of its own, of the noise of the flow and, '
  'with a detail path, of one texture (draws=1)',
  'deviation': 'sample deviation of the draws at a voxel, images mapped to '
  '[-1, 1]; 0.01 is added in squares',
  'interval': 'mean of the draws plus and minus factor times deviation, '
  'clipped to the window of the target',
  'voxels': 'those of the body mask of the scored slices; of a case with more '
  f'than {_MOST_VOXELS}, every n-th in the order of the array, with the least '
  'n that leaves no more',
  'factor': f'the {LEVEL:g} quantile of |truth - mean| / deviation over the '
  f'voxels of all subjects of split {_CALIBRATING} together; no other subject '
  'enters',
  'coverage': 'share of the voxels of all subjects of the measured split '
  'together whose truth is in the interval',
  'by_subject': 'that share of the voxels of each subject',
  'width': 'mean over the voxels of the high end minus the low end, in the '
  'unit of the target',
  'correlation': "Spearman's rank correlation of |truth - mean| and deviation "
  'over the voxels',
  'sparsification': 'root mean squared error, as a share of the window, of the '
  'voxels that remain after the share `removed` is removed: those of the '
  'largest deviation first (by_deviation), those of the largest error first '
  '(by_error, the best possible order), or in random order (the expected '
  'value, which is the error of all voxels)',
  'ause': 'area under the sparsification error: mean over the shares removed '
  'of by_deviation minus by_error, divided by the error of all voxels; 0 is '
  'the best possible order, lower is better',
  'offered': f'the coverage is from {OFFERED[0]:g} to {OFFERED[1]:g}, the '
  'draws differ, and the correlation is above '
  f'{_LEAST_CORRELATION:g}; `reason` states what fails',
}


@dataclasses.dataclass(frozen=True)
class Voxels:
  """The voxels of one case on which intervals are measured.

  Attributes:
    subject: `Case.person`.
    truth: acquired values in [-1, 1].
    mean, deviation: of the draws, see `intervals.Spread`.
    half_window: units of the target per 1.
  """

  subject: str
  truth: Float[np.ndarray, ' n']
  mean: Float[np.ndarray, ' n']
  deviation: Float[np.ndarray, ' n']
  half_window: float

  @classmethod
  def of(cls, item: protocol.RouteCase, spread: Spread) -> Voxels:
    """The voxels in the body mask of a case; see `DEFINITION`."""
    inside = np.flatnonzero(item.mask)
    inside = inside[:: -(-len(inside) // _MOST_VOXELS) or 1]
    window = item.case.modalities[item.route.target]
    return cls(
      item.case.person,
      item.truth.ravel()[inside],
      spread.mean.ravel()[inside],
      spread.deviation.ravel()[inside],
      (window.high - window.low) / 2,
    )

  @property
  def error(self) -> Float[np.ndarray, ' n']:
    """|truth - mean|, float64."""
    return np.abs(self.truth.astype(np.float64) - self.mean)

  def inside(self, factor: float) -> Bool[np.ndarray, ' n']:
    """Whether the truth is in the interval."""
    low, high = ends(self.mean, self.deviation, factor)
    return (low <= self.truth) & (self.truth <= high)

  def width(self, factor: float) -> Float[np.ndarray, ' n']:
    """Width of the interval in the unit of the target."""
    low, high = ends(self.mean, self.deviation, factor)
    return (high - low) * np.float32(self.half_window)


def factor_of(calibrating: Sequence[Voxels], level: float = LEVEL) -> float:
  """The factor whose intervals cover a share of the voxels.

  Args:
    calibrating: voxels of validation subjects.
    level: the share.
  """
  ratios = np.concatenate([v.error / v.deviation for v in calibrating])
  return float(np.quantile(ratios, level))


def sparsification(
  error: Float[np.ndarray, ' n'], deviation: Float[np.ndarray, ' n']
) -> tuple[dict[str, list[float]], float]:
  """Errors of the voxels that remain when the most uncertain are removed.

  Args:
    error: absolute error, with 2 as the window.
    deviation: of the draws, on any scale.

  Returns:
    The curves, and the area between the first two; see `DEFINITION`.
  """
  squares = (error.astype(np.float64) / 2) ** 2
  kept = np.maximum(np.rint(len(squares) * (1 - _REMOVED)).astype(int), 1)

  def curve(order):
    sums = np.cumsum(squares[order])
    return np.sqrt(sums[kept - 1] / kept)

  by_deviation = curve(np.argsort(deviation, kind='stable'))
  by_error = curve(np.argsort(squares, kind='stable'))
  whole = np.sqrt(squares.mean())
  area = float((by_deviation - by_error).mean() / whole) if whole else 0.0
  curves = {
    'removed': _REMOVED.tolist(),
    'by_deviation': by_deviation.tolist(),
    'by_error': by_error.tolist(),
    'random': [float(whole)] * len(_REMOVED),
  }
  return curves, area


def measure_route(
  calibrating: Sequence[Voxels], measured: Sequence[Voxels], unit: str
) -> RouteInterval:
  """Calibrates the intervals of a route and measures them.

  Args:
    calibrating: voxels of the cases of validation subjects.
    measured: those of the measured subjects, at least one case.
    unit: unit of the target.
  """
  error = np.concatenate([v.error for v in measured])
  deviation = np.concatenate([v.deviation for v in measured])
  curves, ause = sparsification(error, deviation)
  correlation = _correlation(error, deviation)
  result = RouteInterval(None, None, {}, None, unit, correlation, curves, ause)
  if not calibrating:
    return dataclasses.replace(
      result, reason='no validation subject has the route'
    )
  factor = factor_of(calibrating)
  inside = collections.defaultdict(list)
  for voxels in measured:
    inside[voxels.subject].append(voxels.inside(factor))
  inside = {s: np.concatenate(of_subject) for s, of_subject in inside.items()}
  widths = np.concatenate([v.width(factor) for v in measured])
  result = dataclasses.replace(
    result,
    factor=factor,
    coverage=float(np.concatenate([*inside.values()]).mean()),
    by_subject={s: float(x.mean()) for s, x in inside.items()},
    width=float(widths.mean(dtype=np.float64)),
  )
  return dataclasses.replace(result, reason=_reason(result))


def _correlation(
  error: Float[np.ndarray, ' n'], deviation: Float[np.ndarray, ' n']
) -> float | None:
  """Spearman's rank correlation; None if either is constant."""
  if is_constant(deviation) or not (np.ptp(error) and np.ptp(deviation)):
    return None
  return float(stats.spearmanr(error, deviation).statistic)


def _reason(interval: RouteInterval) -> str:
  """Why an interval is not offered; '' if it is."""
  low, high = OFFERED
  if interval.correlation is None:
    return 'all draws or all errors are equal'
  if interval.correlation <= _LEAST_CORRELATION:
    return (
      'the deviation of the draws does not follow the error (rank correlation '
      f'{interval.correlation:.2f})'
    )
  if not low <= interval.coverage <= high:
    return (
      f'its {LEVEL:.0%} interval covers {interval.coverage:.1%} of the voxels '
      f'of {len(interval.by_subject)} subjects, not {low:.0%} to {high:.0%}'
    ).replace('%', ' %')
  return ''


def measure_uncertainty(
  synthesiser: Any,
  store: SliceStore,
  cases: Sequence[Case],
  *,
  steps: Sequence[int],
  draws: int,
  slices: int = 0,
  routes: Sequence[str] = (),
  seed: int = 0,
) -> Calibration:
  """Calibrates the routes of a model and measures their intervals.

  Args:
    synthesiser: synthesises one draw, and has its `sampling`.
    store: the store of the cases; its split val calibrates.
    cases: the measured cases, of one other split.
    steps: step of the checkpoint of each run.
    draws: number of draws, at least 2.
    slices, routes: as of `protocol.route_pairs`.
    seed: seed of the first draw.

  Raises:
    IntervalError: the store has no validation subject, or the measured cases
      are those that calibrate or that the model was trained on.
  """
  check_splits(store, cases)
  measured = _by_route(cases, slices, routes)
  calibrating = _by_route(store.split(_CALIBRATING), slices, routes)
  calibrating = {name: calibrating.get(name, []) for name in measured}
  pairs = [
    p for of in (measured, calibrating) for ps in of.values() for p in ps
  ]
  total = draws * sum(len(pair.indices) for pair in pairs)
  with Bar('intervals', total, 'slice') as bar:

    def voxels(pair: protocol.RoutePair) -> Voxels:
      item = protocol.RouteCase.read(store, pair)
      spread = draw_spread(
        synthesiser,
        item.route,
        item.sources,
        draws,
        seed=seed,
        progress=bar.update,
      )
      return Voxels.of(item, spread)

    results = {
      name: measure_route(
        list(map(voxels, calibrating[name])),
        list(map(voxels, measured[name])),
        measured[name][0].route.target.unit,
      )
      for name in measured
    }
  return Calibration(
    results,
    level=LEVEL,
    draws=draws,
    sampling=dataclasses.asdict(synthesiser.sampling),
    steps=tuple(steps),
    split=cases[0].split,
    slices=slices,
    seed=seed,
    store=store.path,
    fingerprint=store.fingerprint,
  )


def check_splits(store: SliceStore, cases: Sequence[Case]) -> None:
  """Refuses a store or cases of which no coverage can be measured.

  Raises:
    IntervalError: see `measure_uncertainty`.
  """
  if not store.split(_CALIBRATING):
    raise IntervalError(
      f'{store.path}: has no subject in split {_CALIBRATING}, on which '
      '--intervals calibrates; prepare it with --val above 0, or leave out '
      '--intervals.'
    )
  if seen := sorted({c.split for c in cases} & {'train', _CALIBRATING}):
    raise IntervalError(
      f'--split={seen[0]}: the coverage of intervals is measured on subjects '
      'that neither trained nor calibrated; take --split=test, or leave out '
      '--intervals.'
    )


def _by_route(
  cases: Sequence[Case], slices: int, routes: Sequence[str]
) -> dict[str, list[protocol.RoutePair]]:
  by_route = collections.defaultdict(list)
  for pair in protocol.route_pairs(cases, slices=slices, routes=routes):
    by_route[pair.route.name].append(pair)
  return dict(by_route)


def _slices(by_route: Mapping[str, Sequence[protocol.RoutePair]]) -> int:
  return sum(len(p.indices) for pairs in by_route.values() for p in pairs)


def table(calibration: Calibration) -> str:
  """Formats the intervals of all routes as aligned text."""
  head = ('route', 'factor', 'coverage', 'subjects', 'width', 'correlation')
  rows = [(*head, 'AUSE', '')]
  rows += [(name, *cells(r)) for name, r in calibration.routes.items()]
  low, high = OFFERED
  offered = [r for r in calibration.routes.values() if r.offered]
  note = (
    f'Intervals of {calibration.draws} draws for {calibration.level:.0%} of '
    'the voxels in the body, calibrated on validation subjects. coverage: '
    f'share of the voxels of the {calibration.split} subjects inside; '
    'subjects: the lowest and the highest share of one subject. correlation: '
    'rank correlation of error and deviation. '
    f'{len(offered)} of {len(calibration.routes)} routes are offered '
    f'(coverage {low:.0%} to {high:.0%}).'
  ).replace('%', ' %')
  return f'{align(rows)}\n{note}'


def cells(interval: RouteInterval) -> tuple[str, ...]:
  """The cells of a route: factor, coverage, …, and why it is not offered."""
  shares = interval.by_subject.values()
  return (
    _number(interval.factor, '.2f'),
    _number(interval.coverage, '.3f'),
    f'{min(shares):.3f}–{max(shares):.3f}' if shares else '-',
    f'{_number(interval.width, ".3g")} {interval.unit}',
    _number(interval.correlation, '.2f'),
    _number(interval.ause, '.3f'),
    f'not offered: {interval.reason}' if interval.reason else 'offered',
  )


def _number(value: float | None, digits: str) -> str:
  return '-' if value is None else f'{value:{digits}}'
