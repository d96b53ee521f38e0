"""Imports the modules of a project, which register its tasks and stages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from synermedgen_jax.core.errors import UserError


class ModuleMissing(UserError):
  """A module that cannot be imported, or was not; one line that names it."""


def import_modules(names: Sequence[str]) -> None:
  """Imports modules that register tasks, stages, modalities, metrics.

  Args:
    names: as in `import NAME`.

  Raises:
    ModuleMissing: one of them, or a module that it imports, is not found.
  """
  for name in names:
    try:
      importlib.import_module(name)
    except ImportError as error:
      raise ModuleMissing(
        f'{name}: cannot be imported ({error}); run the command where '
        f'`python -c "import {name}"` works.'
      ) from None


def check_imported(names: Sequence[str], run: str) -> None:
  """Refuses a run that was trained with modules which are not imported.

  A run's files name its modules but never import them: code runs only because
  the user names it.

  Args:
    names: `modules` in the config of the run.
    run: its workdir, for the message.

  Raises:
    ModuleMissing: naming the modules.
  """
  missing = [name for name in names if name not in sys.modules]
  if missing:
    raise ModuleMissing(
      f'{run}: was trained with modules of a project; add '
      f'--modules={",".join(names)}.'
    )
