"""Charts: losses, SSIM per route, confusion matrices.

Every function returns a new matplotlib `Figure`, as in `pictures`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation.results import EXTERNAL
from synermedgen_jax.reporting.pictures import (
  BLUE,
  GREEN,
  GREY,
  GRID,
  ORANGE,
  RED,
  SKY,
  STYLE,
  route_title,
)
from synermedgen_jax.reporting.results import Stage
from synermedgen_jax.tasks.registry import TASKS

STAGE_TITLES = {
  'autoencoder': 'Stage 0, autoencoder',
  'quantiser': 'Quantiser of codes',
  'gau': 'Stage I, understanding',
  'ucg': 'Stage II, synthesis',
  'joint': 'Joint training',
  EXTERNAL: 'Outputs of another system',
}
_PARTS = {
  'l1': ('absolute error', BLUE),
  'kl': ('KL', ORANGE),
  'flow': ('flow', RED),
  'codes': ('codes', RED),
  'pixels': ('pixels', SKY),
  'edges': ('edges', GREY),
}
_TASK_COLORS = (BLUE, ORANGE, GREEN, SKY, GREY)
_BARS = {
  'model': ('model', BLUE),
  'copy_source': ('copy of the source', ORANGE),
  'mean_target': ('mean target', SKY),
}
_BLACK = '#000000'
_SHARES = LinearSegmentedColormap.from_list('shares', (f'{BLUE}00', BLUE))
_CEILING_LABEL = 'ceiling: the truth through the autoencoder'


def stage_title(stage: Stage) -> str:
  """'Stage I, understanding'."""
  return STAGE_TITLES.get(stage.config['stage'], stage.config['stage'])


# Tick labels of a logarithmic axis are mathematical text.
@mpl.rc_context(STYLE | {'text.parse_math': True})
def loss_curves(stages: Sequence[Stage]) -> Figure:
  """Draws loss, loss terms and token accuracies, one column per stage.

  Lines are training, dots validation. The row of loss terms is left out for a
  loss of one term; rows without values in any stage are left out.

  Args:
    stages: stages with logged steps, first to last.

  Raises:
    ValueError: there is no stage.
  """
  if not stages:
    raise ValueError('Loss curves need at least one stage with logged steps.')
  losses = _PARTS | _per_task('ntp')
  parts = [_logged(stage, losses) for stage in stages]
  parts = [terms if len(terms) > 1 else {} for terms in parts]
  accuracies = [_logged(s, _per_task('token_accuracy')) for s in stages]
  loss = [{'loss': ('total', _BLACK)}] * len(stages)
  rows = [('loss', loss), ('parts of the loss', parts)]
  rows.append(('token accuracy', accuracies))
  rows = [(label, columns) for label, columns in rows if any(columns)]
  figure = Figure(
    figsize=(max(3.4 * len(stages), 5.2), 2.5 * len(rows) + 0.5),
    layout='constrained',
  )
  axes = figure.subplots(
    len(rows), len(stages), squeeze=False, sharex='col', sharey=False
  )
  for row, (label, columns) in enumerate(rows):
    for column, (stage, terms) in enumerate(zip(stages, columns, strict=True)):
      axis = axes[row, column]
      if not terms:
        axis.axis('off')
        continue
      _draw_terms(axis, stage, terms)
      axis.set_ylabel(label)
      if label == 'token accuracy':
        axis.set_ylim(0, 1.03)
      elif _spans_decades(axis):
        axis.set_yscale('log')
  for axis, stage in zip(axes[0], stages, strict=True):
    axis.set_title(stage_title(stage), weight='bold', parse_math=False)
  _label_steps(axes)
  figure.legend(
    handles=[
      Line2D([], [], color=GREY, lw=1.2, label='training'),
      Line2D([], [], color=GREY, marker='o', ms=4, lw=0, label='validation'),
    ],
    loc='outside upper right',
    ncols=2,
  )
  return figure


def _per_task(term: str) -> dict[str, tuple[str, str]]:
  """'TERM/TASK' -> label and colour, for every task with questions."""
  names = [task.name for task in TASKS.values() if task.kind == 'question']
  return {
    f'{term}/{name}': (name.upper(), color)
    for name, color in zip(names, itertools.cycle(_TASK_COLORS), strict=False)
  }


def _logged(stage: Stage, terms: Mapping[str, Any]) -> dict[str, Any]:
  return {name: terms[name] for name in terms if len(stage.curve(name)[0])}


def _draw_terms(axis: Axes, stage: Stage, terms: Mapping[str, Any]) -> None:
  for name, (label, color) in terms.items():
    axis.plot(*stage.curve(name), color=color, lw=1.2, label=label)
    steps, values = stage.curve(f'val/{name}')
    axis.plot(
      steps, values, 'o', color=color, ms=4, mec='white', mew=0.5, zorder=3
    )
  axis.grid(axis='y', color=GRID, lw=0.6)
  if len(terms) > 1:
    axis.legend(loc='best', handlelength=1.4)


def _spans_decades(axis: Axes) -> bool:
  values = np.concatenate([line.get_ydata() for line in axis.lines])
  values = values[np.isfinite(values)]
  return bool(
    values.size and values.min() > 0 and values.max() > 20 * values.min()
  )


def _label_steps(axes: np.ndarray) -> None:
  """Labels the steps below the lowest axis of every column."""
  for column in axes.T:
    shown = [axis for axis in column if axis.axison]
    shown[-1].set_xlabel('step')
    shown[-1].tick_params(labelbottom=True)


@mpl.rc_context(STYLE)
def route_bars(metrics: Mapping[str, Any]) -> Figure:
  """Draws SSIM of the model and the baselines, one group of bars per route.

  Args:
    metrics: content of metrics.json, with `synthesis` and `summary`.
  """
  synthesis = metrics['synthesis']
  names = list(synthesis)
  figure = Figure(figsize=(8.2, 0.46 * len(names) + 1.5), layout='constrained')
  axis = figure.subplots()
  positions = _spaced(names)
  for y, name in zip(positions, names, strict=True):
    _draw_bars(axis, y, synthesis[name])
  axis.set_yticks(positions, [route_title(route_named(name)) for name in names])
  axis.tick_params(axis='y', length=0)
  axis.set_ylim(max(positions) + 0.7, -0.7)
  lowest = min(0.0, *(_ssims(score).min() for score in synthesis.values()))
  axis.set_xlim(lowest, 1.0)
  axis.set_xticks(np.arange(np.ceil(lowest * 5) / 5, 1.01, 0.2))
  axis.set_axisbelow(True)
  axis.grid(axis='x', color=GRID, lw=0.6)
  axis.spines['left'].set_visible(False)
  if lowest < 0:
    axis.axvline(0, color=_BLACK, lw=0.8)
  axis.set_xlabel('SSIM within the body')
  summary = metrics['summary']
  figure.suptitle(
    f'SSIM per route: {summary["wins"]} of {summary["routes"]} won against '
    'the better trivial baseline',
    x=0.01,
    ha='left',
  )
  handles = [Patch(color=color, label=label) for label, color in _BARS.values()]
  handles.append(Line2D([], [], color=_BLACK, lw=1.8, label=_CEILING_LABEL))
  figure.legend(handles=handles, loc='outside lower center', ncols=4)
  return figure


def _spaced(names: Sequence[str]) -> list[float]:
  """Position of every route, with a gap where the cohort changes."""
  positions, y = [], 0.0
  for i, name in enumerate(names):
    cohort = route_named(name).cohort
    if i:
      y += 1.0 if cohort == route_named(names[i - 1]).cohort else 1.35
    positions.append(y)
  return positions


def _ssims(score: Mapping[str, Any]) -> np.ndarray:
  return np.array(
    [score['ssim'], *(b['ssim'] for b in score['baselines'].values())]
  )


def _draw_bars(axis: Axes, y: float, score: Mapping[str, Any]) -> None:
  """Draws model and trivial baselines as bars, the ceiling as a line."""
  baselines = score['baselines']
  for name, offset, height in (
    ('model', -0.18, 0.40),
    ('copy_source', 0.12, 0.18),
    ('mean_target', 0.32, 0.18),
  ):
    if name not in ('model', *baselines):
      continue
    value = (score if name == 'model' else baselines[name])['ssim']
    axis.barh(y + offset, value, height, color=_BARS[name][1])
  if 'ceiling' in baselines:
    axis.vlines(
      baselines['ceiling']['ssim'], y - 0.40, y + 0.42, color=_BLACK, lw=1.8
    )
  inside = score['ssim'] > 0.2
  axis.annotate(
    f'{score["ssim"]:.3f}' + (' win' if score['win'] else ''),
    (max(score['ssim'], 0), y - 0.18),
    xytext=(-4 if inside else 4, 0),
    textcoords='offset points',
    ha='right' if inside else 'left',
    va='center',
    size=7.5,
    color='white' if inside else BLUE,
    weight='bold' if score['win'] else 'normal',
  )


@mpl.rc_context(STYLE)
def confusion_picture(task: str, confusion: Mapping[str, Any]) -> Figure:
  """Draws the confusion matrix of a task, coloured by share of a row.

  Args:
    task: a name in `tasks.registry`.
    confusion: {truth, given, counts}, see `understanding.score`.
  """
  counts = np.array(confusion['counts'], int)
  truth, given = confusion['truth'], confusion['given']
  share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  figure = Figure(
    figsize=(0.62 * len(given) + 2.4, 0.5 * len(truth) + 1.7),
    layout='constrained',
  )
  axis = figure.subplots()
  image = axis.imshow(share, cmap=_SHARES, vmin=0, vmax=1, aspect='auto')
  for (row, column), count in np.ndenumerate(counts):
    if count:
      axis.text(
        column,
        row,
        str(count),
        ha='center',
        va='center',
        color='whitesmoke' if share[row, column] > 0.55 else 'black',
      )
  axis.set_xticks(range(len(given)), given, rotation=35, ha='right')
  axis.set_yticks(range(len(truth)), truth)
  axis.tick_params(length=0)
  axis.spines[:].set_visible(False)
  axis.set_xlabel('given by the model')
  axis.set_ylabel('right')
  title = f'{task.upper()}: {TASKS[task].scoring.unit} by answer'
  axis.set_title(title, weight='bold', loc='left')
  bar = figure.colorbar(image, ax=axis, label='share of the row')
  bar.outline.set_visible(False)
  bar.solids.set_rasterized(True)
  return figure
