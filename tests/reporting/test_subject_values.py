import csv
import io

import pytest
from report_fakes import route_rows, write_subjects

from synermedgen_jax.evaluation.routes import aggregate
from synermedgen_jax.evaluation.subjects import read_subjects
from synermedgen_jax.reporting import subject_values as lib

ROUTES = ['brain_mr_to_ct', 'pelvis_mr_to_ct']


def scores(folder, subjects=('1', '2', '3'), routes=ROUTES):
  rows = route_rows(routes, subjects)
  write_subjects(folder / 'subjects.json', rows)
  return lib.scores_of(read_subjects(folder / 'subjects.json')), aggregate(rows)


def test_the_lowest_ssim_comes_first(tmp_path):
  found, _ = scores(tmp_path)
  assert [(s.route, s.subject, round(s.ssim, 3)) for s in found[:3]] == [
    ('brain_mr_to_ct', 's.3', 0.5),
    ('pelvis_mr_to_ct', 's.3', 0.5),
    ('brain_mr_to_ct', 's.2', 0.55),
  ]


def test_the_csv_has_a_row_per_route_and_subject(tmp_path):
  found, _ = scores(tmp_path)
  rows = list(csv.DictReader(io.StringIO(lib.csv_text(found))))
  assert len(rows) == 6
  assert float(rows[0]['ssim']) == pytest.approx(0.5)
  assert float(rows[0]['copy_source/ssim']) == 0.5
  assert rows[0]['dataset'] == 's'
  assert list(rows[0])[:6] == [
    *('route', 'subject', 'dataset', 'ssim', 'psnr', 'mae')
  ]


def test_a_score_that_some_route_lacks_is_an_empty_cell(tmp_path):
  found, _ = scores(tmp_path, subjects=('1',))
  more = lib.Score('x', 'y', 'z', {'ssim': 0.1, 'bone/bone_mae': 3.0}, {})
  rows = list(csv.DictReader(io.StringIO(lib.csv_text([*found, more]))))
  assert [row['bone/bone_mae'] for row in rows] == ['', '', '3.0']
  columns = list(rows[0])
  assert columns.index('bone/bone_mae') < columns.index('copy_source/ssim')


def test_strips_place_subjects_means_and_baselines(tmp_path):
  found, metrics = scores(tmp_path)
  metrics['synthesis']['brain_mr_to_ct']['interval'] = [0.52, 0.58]
  metrics['synthesis']['pelvis_mr_to_ct']['interval'] = None
  strips = lib.strips_of(found, metrics['synthesis'])
  first = strips.rows[0]
  assert [place for place, _ in first.dots] == [50, 55, 60]
  assert first.dots[0][1] == 's.3: SSIM 0.500'
  assert first.mean == 55
  assert first.interval == (52, 58)
  assert first.baselines == {
    'copy_source': 50,
    'mean_target': 40,
    'ceiling': 90,
  }
  assert strips.rows[1].interval is None
  assert strips.ticks[0] == (0, '0.0')
  assert strips.ticks[-1] == (100, '1.0')


def test_a_negative_value_moves_the_axis(tmp_path):
  found, metrics = scores(tmp_path)
  route = metrics['synthesis']['brain_mr_to_ct']
  route['baselines']['copy_source']['ssim'] = -0.21
  strips = lib.strips_of(found, metrics['synthesis'])
  assert strips.ticks[0] == (0, '−0.4')
  assert strips.rows[0].baselines['copy_source'] == round(100 * 0.19 / 1.4, 2)
