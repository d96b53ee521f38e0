"""Checks that saved parameters are those of the model's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.models.bagel import parameter_names
from synermedgen_jax.models.bagel_config import BagelConfig


def require_all(source: str | Path, model: BagelConfig, params: Any) -> None:
  """Refuses parameters that lack some of the model's.

  Args:
    source: what holds them, for the message.
    model: the saved shape.
    params: the saved parameters, nested.

  Raises:
    CheckpointError: a parameter is missing, as in files of a version in which
      this shape had fewer.
  """
  saved = flatten(params)
  names = parameter_names(model)
  if lacking := [name for name in names if name not in saved]:
    raise CheckpointError(
      f'{source}: lacks {lacking[0]}, one of {len(lacking)} parameters that '
      'its model has in this version; train it again.'
    )
