"""The chart and the table of intervals."""

import dataclasses
import itertools
import json

import pytest
from report_fakes import write_evaluation, write_stage

from synermedgen_jax.inference.intervals import Calibration, RouteInterval
from synermedgen_jax.reporting.run_report import report
from synermedgen_jax.reporting.uncertainty_chart import (
  HEAD,
  uncertainty_chart,
  uncertainty_rows,
)


def interval(coverage, reason='', scale=1.0):
  curve = {
    'removed': [0.0, 0.5],
    'by_deviation': [0.2 * scale, 0.1 * scale],
    'by_error': [0.2 * scale, 0.04 * scale],
    'random': [0.2 * scale] * 2,
  }
  if coverage is None:
    return RouteInterval(None, None, {}, None, 'HU', None, curve, 0.1, reason)
  shares = {'a': coverage - 0.02, 'b': coverage + 0.03}
  return RouteInterval(
    2.0, coverage, shares, 120.0, 'HU', 0.5, curve, 0.1, reason
  )


@pytest.fixture
def calibration():
  return Calibration(
    {
      'brain_mr_to_ct': interval(0.9),
      'brain_cbct_to_ct': interval(0.8, 'it covers too little', 3.0),
      'pelvis_mr_to_ct': interval(None, 'no validation subject has the route'),
    },
    level=0.9,
    draws=8,
    sampling={},
    steps=(5,),
    split='test',
    slices=0,
    seed=0,
    store='store',
    fingerprint='',
  )


def test_every_measured_route_has_a_point_and_the_range_of_its_subjects(
  calibration,
):
  left, right = uncertainty_chart(calibration).axes
  points = {
    (line.get_xdata()[0], line.get_ydata()[0]): line.get_marker()
    for line in left.lines
    if line.get_marker() != 'None'
  }
  assert points == {(0.9, 0): 'o', (0.8, 1): 'X'}
  lines = [c.get_segments()[0] for c in left.collections]
  ranges = [tuple(line[:, 0]) for line in lines]
  assert ranges == [pytest.approx((0.88, 0.93)), pytest.approx((0.78, 0.83))]
  (band,) = left.patches
  assert band.get_x() == pytest.approx(0.85)
  assert band.get_x() + band.get_width() == pytest.approx(0.95)
  assert len(left.get_yticklabels()) == 3
  # Errors of routes with other errors are shares of the error of all voxels.
  curves = {line.get_label(): list(line.get_ydata()) for line in right.lines}
  assert curves['largest deviation first'] == pytest.approx([1, 0.5])
  assert curves['random order'] == pytest.approx([1, 1])


def test_no_label_covers_another(calibration):
  figure = uncertainty_chart(calibration)
  figure.draw_without_rendering()
  boxes = [t.get_window_extent() for t in figure.axes[0].get_yticklabels()]
  assert min(box.x0 for box in boxes) >= 0
  assert all(a.y0 > b.y1 for a, b in itertools.pairwise(boxes))


def test_a_row_says_whether_the_route_is_offered(calibration):
  rows = uncertainty_rows(calibration)
  assert {len(row) for row in rows} == {len(HEAD)}
  assert rows[0][1:] == (
    *('2.00', '0.900', '0.880–0.930', '120 HU', '0.50', '0.100', 'offered'),
  )
  assert rows[1][-1] == 'not offered: it covers too little'
  assert rows[2][1:5] == ('-', '-', '-', '- HU')


@pytest.mark.parametrize(('step', 'shown'), [(5, True), (9, False)])
def test_a_report_shows_intervals_of_its_own_training_alone(
  calibration, tmp_path, step, shown
):
  workdir = write_stage(tmp_path, 'ucg')
  folder = write_evaluation(workdir, ['brain_mr_to_ct'])
  path = folder / 'subjects.json'
  record = json.loads(path.read_text())
  record['settings'] |= {'steps': [step], 'store': 'abc'}
  path.write_text(json.dumps(record))
  dataclasses.replace(calibration, fingerprint='abc').write(workdir, {})
  page = report(workdir, tmp_path / 'report')[-1].read_text()
  assert ('it covers too little' in page) == shown
  assert ('are of step 5, split test, not of this' in page) != shown
