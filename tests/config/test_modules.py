"""Modules of a project are imported by name; a missing one is one line."""

import sys

import pytest

from synermedgen_jax.config.modules import (
  ModuleMissing,
  check_imported,
  import_modules,
)


@pytest.fixture
def project(tmp_path, monkeypatch):
  """A package on the path that counts its imports."""
  (tmp_path / 'clinic_a.py').write_text('')
  (tmp_path / 'clinic_b.py').write_text('import not_there\n')
  (tmp_path / 'clinic_c.py').write_text('raise RuntimeError("broken")\n')
  monkeypatch.syspath_prepend(tmp_path)
  yield
  for name in ('clinic_a', 'clinic_b', 'clinic_c'):
    sys.modules.pop(name, None)


def test_modules_are_imported_in_their_order(project):
  import_modules(('clinic_a',))
  assert 'clinic_a' in sys.modules
  import_modules(('clinic_a',))  # once more changes nothing
  check_imported(('clinic_a',), 'runs/a')


@pytest.mark.parametrize(
  ('name', 'missing'), [('clinic_z', 'clinic_z'), ('clinic_b', 'not_there')]
)
def test_a_module_that_is_not_found_is_named_with_what_it_lacks(
  project, name, missing
):
  with pytest.raises(ModuleMissing) as error:
    import_modules((name,))
  assert str(error.value) == (
    f"{name}: cannot be imported (No module named '{missing}'); run the "
    f'command where `python -c "import {name}"` works.'
  )


def test_an_error_within_a_module_keeps_its_traceback(project):
  with pytest.raises(RuntimeError, match='broken'):
    import_modules(('clinic_c',))


def test_a_run_whose_modules_are_missing_names_the_flag():
  with pytest.raises(ModuleMissing) as error:
    check_imported(('json', 'clinic_z'), 'runs/a')
  assert str(error.value) == (
    'runs/a: was trained with modules of a project; add '
    '--modules=json,clinic_z.'
  )
