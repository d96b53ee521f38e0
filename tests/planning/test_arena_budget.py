"""The budget of an arena, and the trainings that spend it."""

import pytest
from store_fakes import write_store

from synermedgen_jax.planning.arena import (
  ArenaError,
  Budget,
  known,
  trainings,
)
from synermedgen_jax.slices.store import SliceStore


def test_a_budget_has_a_kind_and_a_number():
  assert Budget.parse('images:24000') == Budget('images', 24_000)
  assert Budget.parse('operations:1.6e13') == Budget('operations', 1.6e13)


@pytest.mark.parametrize(
  'text', ['', 'images', 'images:', 'hours:3', 'images:-1', 'images:inf']
)
def test_any_other_budget_is_refused(text):
  with pytest.raises(ValueError, match='expected images:NUMBER or operations'):
    Budget.parse(text)


def test_an_unknown_system_is_named():
  assert known(['unet', 'synermedgen', 'unet']) == ['unet', 'synermedgen']
  with pytest.raises(ArenaError, match=r'unknown gan; expected .*pix2pix'):
    known(['unet', 'gan'])


@pytest.mark.parametrize('without', ['', 'val'])
def test_a_store_without_validation_subjects_switches_validation_off(
  tmp_path, without
):
  write_store(tmp_path / 'store', without=without)
  store = SliceStore.open(tmp_path / 'store')
  (training,) = trainings(
    'unet', store, tmp_path / 'run', Budget('images', 16), seed=0
  )
  assert ('--config.val_every=0' in training.flags) == bool(without)
