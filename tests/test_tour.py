"""The notebook docs/tour.ipynb: its cells run, and its outputs are kept."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest

TOUR = Path(__file__).parents[1] / 'docs' / 'tour.ipynb'


def code_cells():
  cells = json.loads(TOUR.read_text('utf-8'))['cells']
  return [cell for cell in cells if cell['cell_type'] == 'code']


def test_every_cell_was_run_in_order_and_none_failed():
  cells = code_cells()
  counts = [cell['execution_count'] for cell in cells]
  assert counts == list(range(1, len(cells) + 1))
  kinds = [o['output_type'] for cell in cells for o in cell['outputs']]
  assert 'error' not in kinds
  assert kinds.count('display_data') == 2


@pytest.mark.slow
def test_the_cells_run(monkeypatch, capsys):
  mpl.use('Agg')
  names = {}
  for cell in code_cells():
    exec(compile(''.join(cell['source']), TOUR.name, 'exec'), names)
  printed = capsys.readouterr().out
  assert 'the MR: MRI in 16 of 16 slices; doubt as MR: NONE' in printed
  assert 'doubt as MR: OTHER_FAMILY' in printed
  assert 'translate it anyway with --force.' in printed
  assert set(names['answers']) == {'cts', 'mi', 'tia'}
  assert names['prediction'].volume.data.shape == names['mr'].data.shape
