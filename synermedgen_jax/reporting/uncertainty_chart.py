"""Intervals of synthesised values: coverage per route, sparsification, a table.

Functions that draw return a new matplotlib `Figure`, as in `charts`.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation.subjects import Subjects
from synermedgen_jax.evaluation.uncertainty import cells
from synermedgen_jax.inference.intervals import OFFERED, Calibration
from synermedgen_jax.reporting.pictures import (
  BLUE,
  GREY,
  ORANGE,
  RED,
  SKY,
  STYLE,
  route_title,
)

HEAD = (
  *('route', 'factor', 'coverage', 'by subject', 'width', 'correlation'),
  *('AUSE', ''),
)


def outdated(calibration: Calibration, subjects: Subjects | None) -> bool:
  """Whether intervals belong to another training, store or split than scores.

  `evaluate` without --intervals leaves those of an earlier evaluation.
  """
  settings = subjects.settings if subjects else {}
  measured = {
    'steps': [*calibration.steps],
    'split': calibration.split,
    'store': calibration.fingerprint,
  }
  return any(settings.get(k, value) != value for k, value in measured.items())


def uncertainty_rows(calibration: Calibration) -> list[tuple[str, ...]]:
  """The rows of a table with the columns `HEAD`, one of each route."""
  return [
    (route_title(route_named(name)), *cells(interval))
    for name, interval in calibration.routes.items()
  ]


@mpl.rc_context(STYLE)
def uncertainty_chart(calibration: Calibration) -> Figure:
  """Draws the coverage of every route, and the sparsification curves.

  Args:
    calibration: of a run; a route without a coverage has no point.
  """
  routes = calibration.routes
  figure = Figure(
    figsize=(9.2, max(0.27 * len(routes) + 1.6, 3.8)), layout='constrained'
  )
  left, right = figure.subplots(1, 2, width_ratios=(1, 1))
  _draw_coverage(left, calibration)
  _draw_sparsification(right, calibration)
  count = sum(interval.offered for interval in routes.values())
  figure.suptitle(
    f'{100 * calibration.level:g} % intervals: {count} of {len(routes)} routes '
    'are offered',
    x=0.01,
    ha='left',
  )
  low, high = OFFERED
  handles = [
    Line2D([], [], color=BLUE, marker='o', lw=1.4, label='offered'),
    Line2D([], [], color=RED, marker='X', lw=1.4, label='not offered'),
    Line2D([], [], color=SKY, alpha=0.4, lw=6, label=f'{low:g} to {high:g}'),
    Line2D([], [], color=GREY, lw=1.4, label='lowest to highest subject'),
  ]
  figure.legend(handles=handles, loc='outside lower left', ncols=4)
  return figure


def _draw_coverage(axis: Axes, calibration: Calibration) -> None:
  """A point of each route, and a line from its lowest to highest subject."""
  axis.axvspan(*OFFERED, color=SKY, alpha=0.2, lw=0)
  axis.axvline(calibration.level, color=GREY, lw=0.8)
  for row, interval in enumerate(calibration.routes.values()):
    if interval.coverage is None:
      continue
    color, mark = (BLUE, 'o') if interval.offered else (RED, 'X')
    shares = interval.by_subject.values()
    axis.hlines(row, min(shares), max(shares), color=color, lw=1.4)
    axis.plot(
      interval.coverage, row, mark, color=color, ms=6, mec='white', zorder=3
    )
  names = [route_title(route_named(name)) for name in calibration.routes]
  axis.set_yticks(range(len(names)), names)
  axis.tick_params(axis='y', length=0)
  axis.set_ylim(len(names) - 0.4, -0.6)
  axis.set_xlim(right=1.0)
  axis.set_axisbelow(True)
  axis.grid(axis='x', color='#DDDDDD', lw=0.6)
  axis.set_xlabel('share of voxels inside')


def _draw_sparsification(axis: Axes, calibration: Calibration) -> None:
  """Error of the remaining voxels, as a share of the error of all."""
  curves = [
    route.sparsification
    for route in calibration.routes.values()
    if route.sparsification and route.sparsification['random'][0] > 0
  ]
  for name, color, dashes, label in (
    ('by_deviation', BLUE, (), 'largest deviation first'),
    ('by_error', ORANGE, (5, 2), 'largest error first, the best order'),
    ('random', GREY, (1, 1), 'random order'),
  ):
    shares = [np.divide(c[name], c['random'][0]) for c in curves]
    removed = [100 * np.array(c['removed']) for c in curves]
    if name == 'by_deviation':
      for x, y in zip(removed, shares, strict=True):
        axis.plot(x, y, color=color, lw=0.7, alpha=0.35)
    if curves:
      style = {'dashes': dashes} if dashes else {}
      axis.plot(
        removed[0], np.mean(shares, 0), color=color, lw=2, label=label, **style
      )
  axis.set_ylim(0, None)
  axis.set_xlim(0, 100)
  axis.set_axisbelow(True)
  axis.grid(axis='y', color='#DDDDDD', lw=0.6)
  axis.set_xlabel('voxels removed (%), thick: mean of the routes')
  axis.set_ylabel('error of the others (RMSE, 1 = all voxels)')
  if curves:
    axis.legend(loc='lower left')
