"""Routes of other regions: which systems synthesise them, without training."""

import types

import pytest

from synermedgen_jax.core.modalities import (
  Modality,
  Region,
  route_named,
  routes_between,
)
from synermedgen_jax.evaluation.measure import (
  MeasureError,
  MeasureSettings,
  _of_system,
)
from synermedgen_jax.inference.trained_system import TrainedPairs, TrainedSystem

BRAIN = ('brain_ct_to_mr', 'brain_mr_to_ct')
PARTS = ('synthesis',)


def system(*routes, conditioned=True):
  setting = types.SimpleNamespace(conditioned=conditioned)
  config = types.SimpleNamespace(setting=setting)
  return TrainedSystem(
    types.SimpleNamespace(config=config), {}, {'stage': 'unet'}, None, routes
  )


def case(region, *modalities):
  """A case of a store as far as its routes."""
  return types.SimpleNamespace(
    region=region,
    modalities=frozenset(modalities),
    routes=routes_between(region, modalities),
  )


THORAX = case(Region.THORAX, Modality.MR, Modality.CT)
HEART = case(Region.HEART, Modality.BSSFP, Modality.LGE)


def test_a_system_of_all_routes_serves_its_modalities_in_any_region():
  unet = system(*BRAIN)
  assert unet.serves(route_named('thorax_mr_to_ct'))
  assert not unet.serves(route_named('thorax_cbct_to_ct'))
  assert not unet.serves(route_named('heart_bssfp_to_lge'))


def test_a_system_of_one_route_or_pair_serves_its_own():
  one = system(BRAIN[0], conditioned=False)
  for trained in (one, TrainedPairs((one,))):
    assert trained.serves(route_named(BRAIN[0]))
    assert not trained.serves(route_named('thorax_ct_to_mr'))


def test_cases_of_another_region_are_synthesised_between_known_modalities():
  both = case(Region.THORAX, Modality.MR, Modality.CT, Modality.CBCT)
  settings = _of_system(system(*BRAIN), MeasureSettings(), PARTS, [both])
  assert settings.routes == ('thorax_mr_to_ct', 'thorax_ct_to_mr')


def test_own_routes_come_first_if_the_cases_have_them():
  cases = [THORAX, case(Region.BRAIN, Modality.MR, Modality.CT)]
  settings = _of_system(system(*BRAIN), MeasureSettings(), PARTS, cases)
  assert set(settings.routes) == set(BRAIN)


@pytest.mark.parametrize(
  ('settings', 'named'),
  [
    (MeasureSettings(), 'heart_bssfp_to_lge, heart_lge_to_bssfp'),
    (MeasureSettings(routes=('heart_lge_to_bssfp',)), 'heart_lge_to_bssfp'),
  ],
)
def test_cases_without_a_known_route_are_refused(settings, named):
  with pytest.raises(
    MeasureError, match=f'routes: unet was not trained on {named}, only on br'
  ):
    _of_system(system(*BRAIN), settings, PARTS, [HEART])
