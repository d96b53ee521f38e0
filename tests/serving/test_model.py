"""Routes that the app offers: those of all runs, with one source."""

import types

import pytest

from synermedgen_jax.core.modalities import all_routes
from synermedgen_jax.inference.prediction_runs import PredictSettings
from synermedgen_jax.inference.workdir import WorkdirError
from synermedgen_jax.serving.model import ServedModel


def offered(**routes):
  """Names of the routes of runs that know these."""
  runs = types.SimpleNamespace(
    settings=PredictSettings(list(routes), ['ucg']),
    routes=routes.get,
    predictor=object(),
  )
  return [route.name for route in ServedModel.load(runs).routes]


def test_trained_routes_are_offered():
  trained = ('brain_mr_to_ct', 'brats_t1+t2_to_flair', 'pelvis_ct_to_cbct')
  assert sorted(offered(run=trained)) == ['brain_mr_to_ct', 'pelvis_ct_to_cbct']


def test_several_runs_offer_what_all_of_them_know():
  assert offered(
    axial=('brain_mr_to_ct', 'brain_ct_to_mr'),
    coronal=('brain_mr_to_ct', 'pelvis_mr_to_ct'),
    unknown=None,
  ) == ['brain_mr_to_ct']


def test_a_run_that_does_not_know_its_routes_offers_all():
  assert offered(run=None) == [route.name for route in all_routes()]


def test_runs_without_a_route_of_one_source_are_refused():
  with pytest.raises(WorkdirError, match='run: no route with one source'):
    offered(run=('brats_t1+t2_to_flair',))
