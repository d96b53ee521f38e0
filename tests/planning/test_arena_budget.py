import pytest

from synermedgen_jax.planning.arena import ArenaError, Budget, known


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
