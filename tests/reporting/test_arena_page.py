"""The page of an arena, from panels as `evaluate` writes them."""

import numpy as np
import pytest
from test_arena_table import ENTRIES, TABLE

from synermedgen_jax.reporting import arena_page
from synermedgen_jax.reporting.results import ResultError

ROUTES = tuple(TABLE['unet'].routes)


def write_panels(folder, shade):
  """Three slices of every route, the middle one of a shade of its own."""
  panels = folder / 'evaluation' / 'panels'
  panels.mkdir(parents=True)
  slices = np.full((3, 12, 12), -1.0)
  for route in ROUTES:
    source, truth, synthesis = (slices.copy() for _ in range(3))
    source[1], truth[1], synthesis[1] = -0.5, 0.5, shade
    np.savez(
      panels / f'{route}.npz',
      source=source[None],
      truth=truth,
      synthesis=synthesis,
      mask=np.ones(slices.shape, bool),
      indices=np.arange(3),
      source_window=[(0.0, 1.0)],
      target_window=(0.0, 1.0),
      plane='axial',
      subject='a',
    )
  return folder


def test_a_row_shows_the_same_slice_of_source_truth_and_every_system(
  tmp_path, monkeypatch
):
  rows = []

  def row(images, names):
    rows.append(([float(i.mean()) for i in images], names))
    return arena_page.Figure()

  monkeypatch.setattr(arena_page, '_row', row)
  folders = {
    'synermedgen': write_panels(tmp_path / 'ours', 0.25),
    'unet': write_panels(tmp_path / 'unet', 0.75),
  }
  page = arena_page.arena_page(folders, TABLE, ENTRIES)
  assert page.count('class="drawing"') == len(ROUTES)
  assert rows[0] == (
    [-0.5, 0.5, 0.75, 0.25],  # the best system first
    ['source', 'truth', 'U-Net\n0.800', 'Ours\n0.700'],
  )


def test_a_damaged_panel_is_named(tmp_path):
  folder = write_panels(tmp_path / 'unet', 0.75)
  (folder / 'evaluation' / 'panels' / f'{ROUTES[0]}.npz').write_bytes(b'PK')
  with pytest.raises(ResultError, match=rf'{ROUTES[0]}\.npz: cannot be read'):
    arena_page.arena_page({'unet': folder}, TABLE, ENTRIES)
