"""Ranks, routes led and intervals of hand-made evaluations."""

from pathlib import Path

import numpy as np
import pytest

from synermedgen_jax.evaluation.standings import StandingsError, standings
from synermedgen_jax.evaluation.subjects import Subjects

PEOPLE = {f'brain.p{i}': 'brain' for i in range(4)} | {
  'pelvis.q': 'pelvis',
  'pelvis.r': 'pelvis',
}
ROUTES = {
  'brain_mr_to_ct': [f'brain.p{i}' for i in range(4)],
  'pelvis_mr_to_ct': ['pelvis.q', 'pelvis.r'],
}


def scores(ssim):
  return {'ssim': ssim, 'psnr': 100 * ssim, 'mae': 1000 * (1 - ssim)}


def evaluation(values, **settings):
  """Values by route; a number stands for all subjects of a route."""
  synthesis = {
    route: {
      person: {
        **scores(float(value)),
        'baselines': {
          'copy_source': scores(0.1),
          'mean_target': scores(0.3),
          'ceiling': scores(0.9 if route == 'brain_mr_to_ct' else 0.7),
        },
      }
      for person, value in zip(
        people, np.broadcast_to(values[route], len(people)), strict=True
      )
    }
    for route, people in ROUTES.items()
    if route in values
  }
  settings = {'store': 's', 'split': 'test', 'slices': 6} | settings
  return Subjects(Path('x.json'), settings, PEOPLE, {}, synthesis, {})


OURS = {'brain_mr_to_ct': [0.5, 0.6, 0.7, 0.8], 'pelvis_mr_to_ct': 0.2}
OTHER = {'brain_mr_to_ct': [0.6, 0.7, 0.8, 0.9], 'pelvis_mr_to_ct': 0.1}


def test_scores_that_one_system_lacks_change_nothing():
  ours, other = evaluation(OURS), evaluation(OTHER)
  expected = standings({'ours': {'0': ours}, 'o': {'0': other}}, reference='o')
  for entries in other.synthesis.values():
    for entry in entries.values():
      entry |= {'ssim_3d': 0.99}
  table = standings({'ours': {'0': ours}, 'o': {'0': other}}, reference='o')
  assert table == expected


def test_a_route_counts_once_however_many_subjects_it_has():
  table = standings(
    {'ours': {'0': evaluation(OURS)}, 'other': {'0': evaluation(OTHER)}},
    reference='ours',
  )
  ours, other = table['ours'], table['other']
  assert ours.scores['ssim'] == pytest.approx((0.65 + 0.2) / 2)
  assert other.scores['ssim'] == pytest.approx((0.75 + 0.1) / 2)
  assert ours.routes['brain_mr_to_ct']['mae'] == pytest.approx(350)
  # The mean target is best in the pelvis, the other system in the brain.
  assert (ours.leads, other.leads, table['mean_target'].leads) == (0, 1, 1)
  assert [s.rank for s in table.values()] == [1, 2, 3, 4]
  assert list(table)[2:] == ['mean_target', 'copy_source']


def test_differences_are_paired():
  """Every brain is better by 0.1 and the pelvis worse by 0.1: no spread."""
  table = standings(
    {'ours': {'0': evaluation(OURS)}, 'other': {'0': evaluation(OTHER)}},
    reference='ours',
  )
  assert table['ours'].difference is None
  np.testing.assert_allclose(table['other'].difference, 0, atol=1e-9)
  low, high = table['other'].interval
  assert low < 0.425 < high


def test_an_interval_is_that_of_resampled_subjects():
  table = standings({'ours': {'0': evaluation(OURS)}}, reference='ours')
  rng = np.random.default_rng(0)
  means = rng.choice(OURS['brain_mr_to_ct'], (20_000, 3)).mean(1)
  expected = np.percentile((means + 0.2) / 2, (2.5, 97.5))
  np.testing.assert_allclose(table['ours'].interval, expected, atol=0.01)


def test_the_only_subject_of_a_dataset_leaves_no_interval(monkeypatch):
  monkeypatch.setitem(ROUTES, 'pelvis_mr_to_ct', ['pelvis.q'])
  monkeypatch.delitem(PEOPLE, 'pelvis.r')
  table = standings(
    {'ours': {'0': evaluation(OURS)}, 'other': {'0': evaluation(OTHER)}},
    reference='ours',
  )
  assert np.isnan(table['ours'].interval).all()
  assert np.isnan(table['other'].difference[1:]).all()


def test_seeds_are_averaged_within_a_subject():
  better = {'brain_mr_to_ct': 0.9, 'pelvis_mr_to_ct': 0.5}
  worse = {'brain_mr_to_ct': 0.7, 'pelvis_mr_to_ct': 0.3}
  table = standings(
    {'ours': {'0': evaluation(better), '1': evaluation(worse)}},
    reference='ours',
  )
  assert table['ours'].scores['ssim'] == pytest.approx(0.6)
  assert table['ours'].seeds == pytest.approx({'0': 0.7, '1': 0.5})


def test_a_row_that_a_route_lacks_is_left_out():
  """A route without training subjects has no mean target."""
  lacking = evaluation(OURS)
  for entry in lacking.synthesis['pelvis_mr_to_ct'].values():
    del entry['baselines']['mean_target']
  table = standings({'ours': {'0': lacking}}, reference='ours')
  assert set(table) == {'ours', 'copy_source'}


def test_a_ceiling_is_a_mean_over_routes_and_needs_all_of_them():
  whole, lacking = evaluation(OURS), evaluation(OTHER)
  for entry in lacking.synthesis['pelvis_mr_to_ct'].values():
    del entry['baselines']['ceiling']
  table = standings(
    {'ours': {'0': whole}, 'other': {'0': lacking}}, reference='ours'
  )
  assert table['ours'].ceiling == pytest.approx((0.9 + 0.7) / 2)
  assert table['other'].ceiling is None
  assert table['copy_source'].ceiling is None


@pytest.mark.parametrize(
  ('other', 'message'),
  [
    (evaluation(OTHER, slices=0), 'x.json: slices is 0, but 6 in x.json'),
    (evaluation(OTHER, store='t'), "store is 't', but 's'"),
    (evaluation({'brain_mr_to_ct': 0.5}), 'has other routes or subjects than'),
  ],
)
def test_systems_of_other_slices_do_not_stand_in_one_table(other, message):
  with pytest.raises(StandingsError, match=message):
    standings(
      {'ours': {'0': evaluation(OURS)}, 'other': {'0': other}},
      reference='ours',
    )
