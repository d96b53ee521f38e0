"""The page of an arena: the same slices for all systems, one row per route."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation.standings import Standing
from synermedgen_jax.reporting.arena_table import Entry
from synermedgen_jax.reporting.drawings import to_svg
from synermedgen_jax.reporting.pictures import STYLE, route_title
from synermedgen_jax.reporting.rendering import render
from synermedgen_jax.reporting.results import read_panel

_SIDE = 1.7  # inches


def arena_page(
  folders: Mapping[str, Path],
  table: Mapping[str, Standing],
  entries: Mapping[str, Entry],
) -> str:
  """An HTML page with a picture for every route.

  Args:
    folders: system -> folder with the `evaluation` of one seed.
    table: system -> standing, best first.
    entries: facts of the systems.
  """
  routes = next(iter(table.values())).routes
  systems = [name for name in table if name in folders]
  rows = []
  for route in routes:
    images, names = [], []
    for name in systems:
      path = folders[name] / 'evaluation' / 'panels' / f'{route}.npz'
      panel = read_panel(path)
      middle = len(panel.truth) // 2
      if not images:
        images += [panel.sources[0, middle], panel.truth[middle]]
        names += ['source', 'truth']
      images.append(panel.synthesis[middle])
      ssim = table[name].routes[route]['ssim']
      names.append(f'{textwrap.fill(entries[name].title, 22)}\n{ssim:.3f}')
    title = route_title(route_named(route))
    rows.append((route, title, to_svg(_row(images, names), title)))
  return render('arena.html', routes=rows)


@mpl.rc_context(STYLE)
def _row(images: list[np.ndarray], names: list[str]) -> Figure:
  height, width = images[0].shape
  figure = Figure(
    figsize=(_SIDE * len(images), _SIDE * height / width + 0.7),
    layout='constrained',
  )
  for ax, image, name in zip(
    figure.subplots(1, len(images), squeeze=False)[0],
    images,
    names,
    strict=True,
  ):
    ax.imshow(image, cmap='gray', vmin=-1, vmax=1, interpolation='none')
    ax.set_title(name, fontsize=7)
    ax.set_axis_off()
  return figure
