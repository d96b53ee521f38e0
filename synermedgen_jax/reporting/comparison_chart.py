"""Draws a comparison of arms: means, intervals, seeds."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synermedgen_jax.evaluation.comparison import Comparison
from synermedgen_jax.evaluation.lines import Line, comparison_lines
from synermedgen_jax.reporting.pictures import BLUE, GREY, ORANGE, SKY, STYLE
from synermedgen_jax.reporting.study import Study

_COLUMNS = 3
_BLACK = '#111111'
# Baseline -> label, colour, dashes.
_BASELINES = {
  'copy_source': ('copy of the source', ORANGE, (4, 2)),
  'mean_target': ('mean target', SKY, (1, 1)),
  'ceiling': ('ceiling: through the autoencoder', _BLACK, (6, 2, 1, 2)),
  'chance': ('chance', GREY, (2, 2)),
}


@mpl.rc_context(STYLE)
def comparison_chart(comparison: Comparison, study: Study) -> Figure:
  """Draws one panel per line: mean, interval and seeds of each arm."""
  lines = [
    line for line in comparison_lines() if line.name in comparison.results
  ]
  columns = min(_COLUMNS, len(lines))
  rows = -(-len(lines) // columns)
  arms = list(comparison.arms)
  figure = Figure(
    figsize=(2.3 + 2.9 * columns, rows * (0.27 * len(arms) + 1.1) + 0.8),
    layout='constrained',
  )
  axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
  for axis, line in zip(axes.flat, lines, strict=False):
    _draw(axis, comparison, study, line)
  for axis in axes.flat[len(lines) :]:
    axis.axis('off')
  for axis in axes[:, 0]:
    axis.set_yticks(range(len(arms)), [study.arm(arm).title for arm in arms])
    axis.set_ylim(len(arms) - 0.4, -0.6)
  used = {n for line in comparison.baselines.values() for n in line}
  handles = [
    Line2D([], [], color=BLUE, marker='o', ms=5, lw=1.6, label='mean, 95 %'),
    Line2D([], [], color=GREY, marker='.', ms=5, lw=0, label='one seed'),
  ]
  if study.has_published:
    handles.append(
      Line2D([], [], color=_BLACK, marker='D', mfc='none', ms=5, lw=0,
             label='published')
    )  # fmt: skip
  handles += [
    Line2D([], [], color=color, lw=1.2, dashes=dashes, label=label)
    for name, (label, color, dashes) in _BASELINES.items()
    if name in used
  ]
  figure.legend(handles=handles, loc='outside lower center', ncols=4)
  return figure


def _draw(axis: Axes, comparison: Comparison, study: Study, line: Line) -> None:
  results = comparison.results[line.name]
  for name, estimate in comparison.baselines[line.name].items():
    _, color, dashes = _BASELINES[name]
    axis.axvline(estimate.value, color=color, lw=1.2, dashes=dashes, zorder=1)
  for row, arm in enumerate(comparison.arms):
    figure = study.arm(arm).published.get(line.name)
    if figure is not None:
      axis.plot(figure, row, 'D', mfc='none', color=_BLACK, ms=5, zorder=2)
    if arm not in results:
      axis.annotate(
        'not measured' if arm in comparison.seeds else 'not run',
        (0.02, row),
        xycoords=('axes fraction', 'data'),
        va='center',
        color=GREY,
        size=7.5,
      )
      continue
    estimate = results[arm].estimate
    axis.hlines(row, estimate.low, estimate.high, color=BLUE, lw=1.8)
    for value in results[arm].seeds.values():
      axis.plot(value, row + 0.24, '.', color=GREY, ms=4)
    axis.plot(estimate.value, row, 'o', color=BLUE, ms=5, mec='white', zorder=3)
  if comparison.reference in results:
    value = results[comparison.reference].estimate.value
    axis.axvline(value, color=BLUE, lw=0.6, zorder=0)
  axis.grid(axis='y', color='#EEEEEE', lw=0.6)
  axis.set_axisbelow(True)
  axis.tick_params(axis='y', length=0)
  axis.set_title(line.title, weight='bold', loc='left')
  axis.set_xlabel(line.unit)
