"""Draws holdouts: one slice under each shift, and how numbers change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from synermedgen_jax.core.modalities import Modality, in_order, route_named
from synermedgen_jax.evaluation.holdouts import COPY, Results, Row, groups_of
from synermedgen_jax.phantoms.shifts import NONE
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
  show_slice,
)
from synermedgen_jax.reporting.results import Panel, read_panel

_CELL = 1.5  # inches
_MARKS = (
  *((BLUE, 'o'), (RED, 's'), (GREEN, '^'), (ORANGE, 'D'), (SKY, 'v')),
  (GREY, 'P'),
)


@mpl.rc_context(STYLE)
def holdout_picture(root: Path, results: Results) -> Figure | None:
  """Draws one slice of every holdout: source, syntheses and truth.

  The first column is the source of the same slice in the holdout `none`.

  Args:
    root: folder of the holdouts.
    results: result of `holdouts.read_results`.

  Returns:
    The figure; None if no holdout has a picture.
  """
  shown = [
    (holdout, _panels(root, holdout, tuple(runs)))
    for holdout, runs in results.items()
    if holdout != NONE
  ]
  shown = [(holdout, panels) for holdout, panels in shown if panels]
  if not shown:
    return None
  systems = list(dict.fromkeys(name for _, panels in shown for name in panels))
  columns = [
    *(['source\ntraining scanner'] if NONE in results else []),
    'source',
    *systems,
    'truth',
  ]
  ratio = max(
    panel.truth.shape[1] / panel.truth.shape[2]
    for _, panels in shown
    for panel in panels.values()
  )
  figure = Figure(
    figsize=(_CELL * len(columns) + 1.5, _CELL * ratio * len(shown) + 0.6),
    layout='compressed',
  )
  axes = figure.subplots(len(shown), len(columns), squeeze=False)
  for axis, title in zip(axes[0], columns, strict=True):
    axis.set_title(title, size=9)
  for line, (holdout, panels) in zip(axes, shown, strict=True):
    images = _images(root, panels, systems, NONE in results)
    for axis, image in zip(line, images, strict=True):
      if image is None:
        axis.axis('off')
      else:
        show_slice(axis, *image)
    route = next(iter(panels.values())).route
    line[0].axis('on')
    label = f'{holdout}\n{route_title(route).replace(" → ", chr(10) + "→ ")}'
    line[0].set_ylabel(label, rotation=0, ha='right', va='center', size=8)
  return figure


def _panels(
  root: Path, holdout: str, systems: Sequence[str]
) -> dict[str, Panel]:
  """System -> panel of one route, that the holdout changes the source of."""
  paths = {
    system: {
      path.stem: path
      for path in (root / holdout / system / 'evaluation').glob('panels/*.npz')
    }
    for system in systems
  }
  paths = {system: own for system, own in paths.items() if own}
  if not paths:
    return {}
  common = set.intersection(*map(set, paths.values()))
  groups = groups_of(holdout, in_order(map(route_named, common)))
  if not groups:
    return {}
  stays = [g for g in groups if g.title == 'the truth stays'] or groups
  return {
    system: read_panel(own[stays[0].routes[0]]) for system, own in paths.items()
  }


def _images(
  root: Path, panels: Mapping[str, Panel], systems: Sequence[str], paired: bool
) -> list[tuple[np.ndarray, Modality] | None]:
  """The images of a row; None where there is none."""
  first_name, first = next(iter(panels.items()))
  row = len(first.truth) // 2
  source = first.route.source
  images = [(first.sources[0, row], source)]
  if paired:
    name = f'{first.route.name}.npz'
    path = root / NONE / first_name / 'evaluation' / 'panels' / name
    same = read_panel(path) if path.is_file() else None
    if same and (same.subject, tuple(same.indices)) == (
      first.subject,
      tuple(first.indices),
    ):
      images.insert(0, (same.sources[0, row], source))
    else:
      images.insert(0, None)
  for name in systems:
    panel = panels.get(name)
    images.append(panel and (panel.synthesis[row], panel.route.target))
  return [*images, (first.truth[row], first.route.target)]


@mpl.rc_context(STYLE)
def holdout_chart(tables: Mapping[str, Sequence[Row]]) -> Figure:
  """Draws numbers of every holdout with 95 % intervals, one panel per number.

  Differences from `none` if there are some, otherwise the numbers themselves.

  Args:
    tables: name -> rows; the first group of each holdout is drawn.
  """
  tables = {title: _first_groups(rows) for title, rows in tables.items()}
  paired = any(
    cell.difference
    for rows in tables.values()
    for row in rows
    for cell in row.cells.values()
  )
  holdouts = list(
    dict.fromkeys(
      row.holdout
      for rows in tables.values()
      for row in rows
      if not paired or row.holdout != NONE
    )
  )
  systems = list(
    dict.fromkeys(s for rows in tables.values() for r in rows for s in r.cells)
  )
  figure = Figure(
    figsize=(1.8 + 2.6 * len(tables), 0.36 * len(holdouts) + 1.5),
    layout='constrained',
  )
  axes = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
  for axis, (title, rows) in zip(axes, tables.items(), strict=True):
    _draw(axis, rows, holdouts, systems, paired)
    axis.set_title(title.upper(), weight='bold', loc='left')
    axis.set_xlabel('minus none, x 100' if paired else 'x 100')
  axes[0].set_yticks(range(len(holdouts)), holdouts)
  axes[0].set_ylim(len(holdouts) - 0.4, -0.6)
  figure.legend(
    handles=[
      Line2D(
        [],
        [],
        color=color,
        marker=mark,
        ms=5,
        lw=1.5,
        label='copy of the source' if name == COPY else name,
      )
      for name, (color, mark) in _marks(systems).items()
    ],
    loc='outside lower center',
    ncols=4,
  )
  return figure


def _first_groups(rows: Sequence[Row]) -> list[Row]:
  return list({row.holdout: row for row in reversed(rows)}.values())[::-1]


def _marks(systems: Sequence[str]) -> dict[str, tuple[str, str]]:
  return {
    name: _MARKS[place % len(_MARKS)] for place, name in enumerate(systems)
  }


def _draw(
  axis: Axes,
  rows: Sequence[Row],
  holdouts: Sequence[str],
  systems: Sequence[str],
  paired: bool,
) -> None:
  """Draws a mark with an interval for every system, below one another."""
  if paired:
    axis.axvline(0, color=GREY, lw=0.8, zorder=0)
  marks = _marks(systems)
  spread = np.linspace(-0.25, 0.25, len(systems)) if len(systems) > 1 else [0]
  for row in rows:
    if row.holdout not in holdouts:
      continue
    for place, name in zip(spread, systems, strict=True):
      cell = row.cells.get(name)
      estimate = cell and (cell.difference if paired else cell.value)
      if not estimate:
        continue
      color, mark = marks[name]
      y = holdouts.index(row.holdout) + place
      axis.hlines(y, estimate.low, estimate.high, color=color, lw=1.5)
      axis.plot(estimate.value, y, mark, color=color, ms=4.5, mec='white')
  axis.grid(axis='both', color=GRID, lw=0.6)
  axis.set_axisbelow(True)
  axis.tick_params(axis='y', length=0)
