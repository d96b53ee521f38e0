"""Reads the model from a run's checkpoints, for inference or a next stage."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path

from synermedgen_jax.checkpoint.checksums import ChecksumsRestore
from synermedgen_jax.checkpoint.orbax_items import (
  CheckpointError,
  better,
  manager,
  read_items,
  step_errors,
)
from synermedgen_jax.core.neighbours import did_you_mean
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.shape_json import model_from_json


def latest(directory: str | Path) -> tuple[ocp.CheckpointManager, int]:
  """The manager and the newest step of a run's checkpoints.

  Raises:
    CheckpointError: there is no complete checkpoint.
  """
  if not Path(directory).is_dir():
    near = did_you_mean(directory)
    raise CheckpointError(f'{directory}: no such checkpoint directory.{near}')
  checkpoints = manager(directory)
  step = checkpoints.latest_step()
  if step is None:
    checkpoints.close()
    raise CheckpointError(f'{directory}: has no complete checkpoint.')
  return checkpoints, step


def newest_step(directory: str | Path) -> int:
  """The newest step of a run's checkpoints; raises as `latest` does."""
  checkpoints, step = latest(directory)
  checkpoints.close()
  return step


def find_step(checkpoints: ocp.CheckpointManager, which: str) -> int:
  """The step of a checkpoint.

  Args:
    checkpoints: the run's manager.
    which: 'newest', 'best', or a step number.

  Raises:
    CheckpointError: there is no such checkpoint.
  """
  steps = checkpoints.all_steps()
  if which == 'newest':
    return max(steps)
  if which != 'best':
    if which.isdecimal() and int(which) in steps:
      return int(which)
    raise CheckpointError(
      f'{checkpoints.directory}: has no checkpoint {which!r}; there are '
      f'newest, best and {", ".join(map(str, sorted(steps)))}.'
    )
  measured = {
    (metric, step): value
    for step in steps
    for metric, value in (checkpoints.metrics(step) or {}).items()
    if math.isfinite(value)
  }
  if not measured:
    raise CheckpointError(
      f'{checkpoints.directory}: no checkpoint was measured; train with '
      'config.best set to a metric.'
    )

  # A resumed run may have changed `config.best`: use its newest metric.
  metric = max(measured, key=lambda key: key[1])[0]
  return max(
    (better(metric) * value, step)
    for (name, step), value in measured.items()
    if name == metric
  )[1]


def load_shape(directory: str | Path, which: str = 'newest') -> BagelConfig:
  """Shape of a checkpoint's model; raises the errors of `load_model`."""
  return model_from_json(_load(directory, which, ())['model'])


def load_model(
  directory: str | Path, *, which: str = 'newest', use_ema: bool = True
) -> tuple[BagelConfig, Any]:
  """Reads a checkpoint's model for inference or a next stage.

  Args:
    directory: the `checkpoints` directory of a run.
    which: 'newest', 'best', or a step number.
    use_ema: use the averaged parameters if the run kept them.

  Returns:
    The model's shape and its parameters, nested NumPy arrays.

  Raises:
    CheckpointError: there is no such checkpoint, or it is damaged.
    OutOfReach: it cannot be read now.
  """
  items = ('params', 'ema') if use_ema else ('params',)
  read = _load(directory, which, items)
  params = read['params']
  if read.get('ema'):
    params = _overlay(params, read['ema'])
  return model_from_json(read['model']), params


def load_json(directory: str | Path, which: str = 'newest') -> dict[str, Any]:
  """Shape of a checkpoint's model as JSON, whatever model it is.

  Raises:
    CheckpointError, OutOfReach: as of `load_model`.
  """
  return _load(directory, which, ())['model']


def load_params(
  directory: str | Path, *, which: str = 'newest', use_ema: bool = True
) -> Any:
  """The parameters of a checkpoint, whatever its model.

  Args:
    directory: the `checkpoints` directory of a run.
    which: 'newest', 'best', or a step number.
    use_ema: use the averaged parameters if the run kept them.

  Raises:
    CheckpointError, OutOfReach: as of `load_model`.
  """
  items = ('params', 'ema') if use_ema else ('params',)
  read = _load(directory, which, items)
  params = read['params']
  return _overlay(params, read['ema']) if read.get('ema') else params


def _load(
  directory: str | Path, which: str, items: Sequence[str]
) -> Mapping[str, Any]:
  """Reads a checkpoint's model shape, and the `items` that it contains."""
  advice = 'delete it and train on from the one before it, or from the start'
  with contextlib.ExitStack() as stack:
    checkpoints, _ = latest(directory)
    stack.enter_context(contextlib.closing(checkpoints))
    step = find_step(checkpoints, which)
    stack.enter_context(step_errors(checkpoints, step, advice))
    metadata = checkpoints.item_metadata(step)
    wanted = {'model': ocp.args.JsonRestore()}
    for item in items:
      # A checkpoint without parameters is damaged: let reading them fail.
      if item == 'params' or metadata.get(item):
        wanted[item] = ocp.args.StandardRestore(_on_host(metadata[item]))
    wanted |= checksums_if_saved(checkpoints, step)
    read = read_items(checkpoints, step, wanted)
    if 'ema' in items:
      check_average(read, has_average='ema' in wanted)
    return read


def checksums_if_saved(
  checkpoints: ocp.CheckpointManager, step: int
) -> dict[str, Any]:
  """The item to read the checksums, if the checkpoint has them.

  Imported models and checkpoints of early versions have none.
  """
  saved = (Path(checkpoints.directory) / str(step) / 'checksums').exists()
  return {'checksums': ChecksumsRestore()} if saved else {}


def check_average(read: Mapping[str, Any], *, has_average: bool) -> None:
  """Raises ValueError if a checkpoint has lost its averaged parameters.

  Args:
    read: items of the checkpoint, with its checksums if it has them.
    has_average: whether the checkpoint has the item `ema`.
  """
  # A run without an average has the checksum of no arrays, 0.
  if read.get('checksums', {}).get('ema') and not has_average:
    raise ValueError('ema, the averaged parameters, is missing')


def _on_host(metadata: Any) -> Any:
  """NumPy arrays of these shapes: Orbax then ignores the saved shardings."""
  return jax.tree.map(
    # A broadcast scalar, so that the template takes no memory.
    lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape),
    metadata,
  )


def _overlay(base: Any, top: Any) -> Any:
  """`base`, with the leaves of `top` in place of its own."""
  if not isinstance(top, dict):
    return top
  return {
    key: _overlay(value, top[key]) if key in top else value
    for key, value in base.items()
  }
