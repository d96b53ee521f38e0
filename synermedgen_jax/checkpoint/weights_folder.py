"""Weights folders: a model without the workdir of its run.

  model.json           the model's shape
  weights.safetensors  its parameters by name; the format holds no code
  README.md            the model card: origin, training and intended use

`config.init_from` accepts a weights folder or a run's workdir.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.interop.tensor_files import read_tensors, write_tensors
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.shape_json import model_from_json, model_to_json

TENSORS, SHAPE = 'weights.safetensors', 'model.json'


def holds_weights(folder: str | Path) -> bool:
  """Whether `folder` is a local weights folder, not a run's workdir."""
  return '://' not in str(folder) and (Path(folder) / TENSORS).is_file()


def save_weights(
  folder: Path, model: BagelConfig, params: Any, *, dtype: str = 'float16'
) -> None:
  """Writes the model's shape and parameters.

  Args:
    folder: created if missing.
    model: the model's shape.
    params: nested arrays.
    dtype: dtype of the file's tensors.

  Raises:
    UserError: naming a parameter with a value too large for `dtype`.
  """
  tensors = {}
  for name, value in sorted(flatten(params).items()):
    stored = np.asarray(value, np.float32).astype(jnp.dtype(dtype))
    if not np.isfinite(stored.astype(np.float32)).all():
      raise UserError(f'{name}: does not fit in {dtype}.')
    tensors[name] = LazyArray.of(stored)
  folder.mkdir(parents=True, exist_ok=True)
  write_tensors(folder / TENSORS, tensors)
  shape = json.dumps(model_to_json(model), indent=2) + '\n'
  (folder / SHAPE).write_text(shape, 'utf-8')


def load_shape(folder: str | Path) -> BagelConfig:
  """The model's shape.

  Raises:
    CheckpointError: the file is missing or damaged.
  """
  try:
    text = (Path(folder) / SHAPE).read_text('utf-8')
    return model_from_json(json.loads(text))
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise CheckpointError(f'{folder}: {error}') from None


def load_weights(folder: str | Path) -> tuple[BagelConfig, Any]:
  """The model's shape and its parameters, nested float32 NumPy arrays.

  Raises:
    CheckpointError: a file is missing or damaged.
  """
  model = load_shape(folder)
  try:
    tensors = read_tensors(Path(folder) / TENSORS)
  except (OSError, ValueError) as error:
    raise CheckpointError(f'{folder}: {error}') from None
  return model, unflatten(
    {name: t.whole().astype(np.float32) for name, t in tensors.items()}
  )
