import dataclasses

import numpy as np
import pytest

from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.evaluation import metrics, routes
from synermedgen_jax.evaluation.routes import RouteScore, aggregate

SSIM = {'model': 0.6, 'copy_source': 0.5, 'mean_target': 0.4, 'ceiling': 0.9}


TWO = (('a.0', 'a'), ('b.0', 'b'))


def scores(route='brain_mr_to_ct', cases=(('a.0', 'a'),), ssim=SSIM, mae=50.0):
  """Scores of every method, within the mask and over the full frame."""
  return [
    RouteScore(
      route,
      case,
      subject,
      method,
      full_frame,
      {'ssim': value - 0.1 * full_frame, 'psnr': 20.0, 'mae': mae},
    )
    for case, subject in cases
    for method, value in ssim.items()
    for full_frame in (False, True)
  ]


def test_cases_of_a_subject_count_once():
  rows = [
    *scores(cases=[('a.0', 'a')], ssim=SSIM | {'model': 0.2}, mae=10.0),
    *scores(cases=[('a.1', 'a')], ssim=SSIM | {'model': 0.4}, mae=30.0),
    *scores(cases=[('b.0', 'b')], ssim=SSIM | {'model': 0.9}, mae=70.0),
  ]
  result = aggregate(rows)['synthesis']['brain_mr_to_ct']
  assert result['count'] == 2
  assert result['ssim'] == pytest.approx((0.3 + 0.9) / 2)
  assert result['mae'] == pytest.approx((20 + 70) / 2)
  assert result['full_frame']['ssim'] == pytest.approx((0.2 + 0.8) / 2)
  assert result['baselines']['copy_source']['ssim'] == pytest.approx(0.5)


@pytest.mark.parametrize(
  ('copy_source', 'mean_target', 'win'),
  [(0.5, 0.4, True), (0.7, 0.4, False), (0.4, 0.7, False), (0.6, 0.4, False)],
)
def test_a_win_is_above_both_trivial_baselines(copy_source, mean_target, win):
  ssim = SSIM | {'copy_source': copy_source, 'mean_target': mean_target}
  rows = scores(cases=TWO, ssim=ssim)
  result = aggregate(rows)['synthesis']['brain_mr_to_ct']
  assert result['win'] == win


def test_cases_of_a_subject_are_one_value_of_its_interval():
  rows = [
    *scores(cases=[('a.0', 'a')], ssim=SSIM | {'model': 0.2}),
    *scores(cases=[('a.1', 'a')], ssim=SSIM | {'model': 0.4}),
    *scores(cases=[('b.0', 'b')], ssim=SSIM | {'model': 0.9}),
  ]
  result = aggregate(rows)['synthesis']['brain_mr_to_ct']
  assert result['interval'] == pytest.approx([0.3, 0.9])
  assert result['better_baseline'] == 'copy_source'
  assert result['difference'] == pytest.approx([0.1, -0.2, 0.4])
  assert not result['win']


def test_the_summary_weighs_routes_alike():
  two_subjects = [('a.0', 'a'), ('b.0', 'b')]
  better_mean = SSIM | {'model': 0.8, 'mean_target': 0.85}
  rows = [
    *scores('brats_t1_to_t2', two_subjects),
    *scores('whole_body_ct_to_pet', ssim=better_mean),
  ]
  result = aggregate(rows)
  assert result['summary'] == {
    'routes': 2,
    'wins': 1,
    'mean_ssim': pytest.approx(0.7),
    'mean_ssim_baselines': {
      'copy_source': pytest.approx(0.5),
      'mean_target': pytest.approx(0.625),
      'ceiling': pytest.approx(0.9),
    },
    'better_baseline': 'mean_target',
  }
  units = {name: s['unit'] for name, s in result['synthesis'].items()}
  assert units == {'whole_body_ct_to_pet': 'SUV', 'brats_t1_to_t2': 'a.u.'}


def test_routes_come_in_their_own_order_whatever_that_of_the_scores():
  names = [route.name for route in ROUTES]
  rows = [row for name in reversed(names) for row in scores(name)]
  assert list(aggregate(rows)['synthesis']) == names


def test_the_ceiling_may_be_missing():
  ssim = {k: v for k, v in SSIM.items() if k != 'ceiling'}
  result = aggregate(scores(ssim=ssim))
  assert set(result['synthesis']['brain_mr_to_ct']['baselines']) == set(
    routes.TRIVIAL
  )
  assert 'ceiling' not in result['summary']['mean_ssim_baselines']


def of_every_metric(case, *, without=()):
  values = {n: 0.5 for n in metrics.definitions() if n not in without}
  return [
    dataclasses.replace(row, values=values)
    for row in scores(cases=[(case, case)])
  ]


def test_metrics_that_a_case_lacks_are_left_out_of_all():
  whole = of_every_metric('a')
  assert routes.with_common_metrics(whole) == (whole, {})
  rows = [
    *whole,
    *of_every_metric('b', without=['ssim_3d']),
    *of_every_metric('c', without=['ssim_3d', 'roughness_z']),
  ]
  kept, left_out = routes.with_common_metrics(rows)
  assert left_out == {'roughness_z': 'c', 'ssim_3d': 'b'}
  assert {*left_out, *kept[0].values} == set(metrics.definitions())
  assert len({tuple(row.values) for row in kept}) == 1
  assert [row.case for row in kept] == [row.case for row in rows]


def test_means_of_different_metrics_are_refused():
  rows = [*of_every_metric('a'), *of_every_metric('b', without=['ssim_3d'])]
  with pytest.raises(ValueError, match='different metrics'):
    aggregate(rows)


def test_the_table_names_the_metrics_that_are_left_out():
  result = aggregate(scores())
  table = routes.route_table(result)
  assert routes.route_table(result | {'left_out': {}}) == table
  without = {'roughness_z': 'd.b1', 'ssim_3d': 'd.b1'}
  assert routes.route_table(result | {'left_out': without}) == (
    f'{table}\n'
    'Left out: roughness_z, ssim_3d. They need two or more adjacent slices of '
    'every case (--slices=0), which d.b1 was not scored on.'
  )


def without(method, full_frame):
  return [
    row
    for row in scores()
    if (row.method, row.full_frame) != (method, full_frame)
  ]


@pytest.mark.parametrize('method', routes.METHODS)
@pytest.mark.parametrize('full_frame', [False, True])
def test_missing_scores_are_refused(method, full_frame):
  with pytest.raises(ValueError, match=r'brain_mr_to_ct: .*need the same'):
    aggregate(without(method, full_frame))


def test_a_baseline_on_other_cases_is_refused():
  rows = scores(cases=[('a.0', 'a'), ('b.0', 'b')])
  rows = [
    dataclasses.replace(row, case='c.0')
    if row.method == 'copy_source' and row.case == 'b.0'
    else row
    for row in rows
  ]
  with pytest.raises(ValueError, match='copy_source'):
    aggregate(rows)


def test_a_case_scored_twice_is_refused():
  with pytest.raises(ValueError, match='each once'):
    aggregate(scores() + scores())


def test_no_scores_are_refused():
  with pytest.raises(ValueError, match='No scores'):
    aggregate([])


@pytest.mark.parametrize(
  'wrong', [{'route': 'brain_ct_to_pet'}, {'method': 'oracle'}]
)
def test_a_score_of_an_unknown_route_or_method_is_refused(wrong):
  with pytest.raises(ValueError, match='Unknown'):
    dataclasses.replace(scores()[0], **wrong)


def levels(*values):
  """A volume of 1 x 1 slices."""
  return np.array(values, np.float32)[:, None, None]


def test_the_mean_target_follows_the_relative_position():
  # Four usable slices into two halves; slices 0 and 5 are not usable.
  first = (levels(9, 0.0, 0.2, 0.4, 0.6, 9), range(1, 5))
  # Two usable slices: one in each half.
  second = (levels(0.4, 0.8), range(2))
  mean = routes.mean_target_images([first, second], bins=2)
  # Slices weigh alike: (0 + 0.2 + 0.4) / 3 and (0.4 + 0.6 + 0.8) / 3.
  np.testing.assert_allclose(mean.images[:, 0, 0], [0.2, 0.6], rtol=1e-6)
  np.testing.assert_allclose(
    mean.predict(4)[:, 0, 0], [0.2, 0.2, 0.6, 0.6], rtol=1e-6
  )
  # The middle of three slices lies at the start of the second half.
  np.testing.assert_allclose(
    mean.predict(3)[:, 0, 0], [0.2, 0.6, 0.6], rtol=1e-6
  )


def test_parts_without_slices_take_the_nearest():
  mean = routes.mean_target_images([(levels(0.1, 0.9), range(2))], bins=8)
  # Two slices fall into parts 2 and 6 of 8.
  expected = [0.1] * 5 + [0.9] * 3
  np.testing.assert_allclose(mean.images[:, 0, 0], expected, rtol=1e-6)
  assert mean.images.dtype == np.float32


@pytest.mark.parametrize(
  ('volumes', 'message'),
  [
    ([], 'at least one usable slice'),
    ([(levels(0.1, 0.2), range(0))], 'at least one usable slice'),
    (
      [(np.zeros((2, 4, 4)), range(2)), (np.zeros((2, 4, 5)), range(2))],
      'share one shape',
    ),
  ],
)
def test_a_mean_target_of_nothing_or_of_mixed_shapes_is_refused(
  volumes, message
):
  with pytest.raises(ValueError, match=message):
    routes.mean_target_images(volumes)


def test_the_table_as_text():
  rows = [
    *scores('brain_cbct_to_ct', TWO),
    *scores(
      'whole_body_ct_to_pet',
      ssim={'model': 0.3, 'copy_source': 0.5, 'mean_target': 0.25},
      mae=0.12345,
    ),
  ]
  assert routes.route_table(aggregate(rows)) == '\n'.join(
    [
      'route                 n   SSIM   copy   mean  ceiling  PSNR        MAE'
      '          difference (95 %)',
      'brain_cbct_to_ct      2  0.600  0.500  0.400    0.900  20.0      50 HU'
      '  +0.100 (+0.100 to +0.100)  win',
      'whole_body_ct_to_pet  1  0.300  0.500  0.250        -  20.0  0.123 SUV'
      '                          -',
      'mean                     0.450  0.500  0.325        -                 '
      '                             1 of 2 won',
      'difference: SSIM less that of the better one of copy and mean, with its '
      '95 % bootstrap interval over subjects; one subject has none. win: the '
      'interval is above zero.',
    ]
  )
