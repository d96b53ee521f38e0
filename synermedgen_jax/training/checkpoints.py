"""Orbax checkpoints: parameters, optimiser, EMA and data position as one.

A checkpoint holds the whole model, frozen parts included, and the model's
shape as JSON, so that a later stage, `evaluate` and `translate` need nothing
else. Items of a step: `params`, `ema`, `optimizer`, `data`, `model`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from grain import checkpoint as grain_checkpoint
from jax.experimental import multihost_utils

from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig


class CheckpointError(ValueError):
  """A checkpoint that is missing or does not fit; one line."""


def manager(
  directory: str | Path, *, keep: int = 2, keep_every: int = 0
) -> ocp.CheckpointManager:
  """The checkpoints of one run.

  Args:
    directory: local or an address.
    keep: the newest so many stay.
    keep_every: and those of every so many steps; 0 = no others.
  """
  path = str(directory)
  if '://' not in path:
    path = str(Path(path).absolute())
  return ocp.CheckpointManager(
    path,
    options=ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      keep_period=keep_every or None,
      enable_async_checkpointing=True,
    ),
    item_handlers={
      'params': ocp.StandardCheckpointHandler(),
      'ema': ocp.StandardCheckpointHandler(),
      'optimizer': ocp.StandardCheckpointHandler(),
      'data': grain_checkpoint.CheckpointHandler(),
      'model': ocp.JsonCheckpointHandler(),
    },
  )


@contextlib.contextmanager
def _reading(
  checkpoints: ocp.CheckpointManager, step: int, advice: str
) -> Iterator[None]:
  """Says in a line which checkpoint cannot be read, and what to do."""
  try:
    yield
  except Exception as error:  # Orbax raises bare ones for damaged files
    first = error.__cause__ or error
    reason = str(first.args[0] if first.args else first).partition('\n')[0]
    raise CheckpointError(
      f'{checkpoints.directory}/{step}: cannot be read ({reason[:200]}); '
      f'{advice}.'
    ) from error


def save(
  checkpoints: ocp.CheckpointManager,
  step: int,
  *,
  params: Any,
  ema: Any,
  optimizer: Any,
  data: Any,
  model: BagelConfig,
) -> None:
  """Starts writing a checkpoint; it is whole or it is not there."""
  args = {
    'params': ocp.args.StandardSave(params),
    'optimizer': ocp.args.StandardSave(optimizer),
    'data': grain_checkpoint.CheckpointSave(data),
    'model': ocp.args.JsonSave(model_to_json(model)),
  }
  if ema:
    args['ema'] = ocp.args.StandardSave(ema)
  checkpoints.save(step, args=ocp.args.Composite(**args))


def restore(
  checkpoints: ocp.CheckpointManager,
  step: int,
  *,
  params: Any,
  ema: Any,
  optimizer: Any,
  data: Any,
) -> dict[str, Any]:
  """Reads a checkpoint of this very run into the given shapes.

  Args:
    checkpoints: the run's manager.
    step: which.
    params, ema, optimizer: abstract trees with shardings (`ema` may be empty).
    data: the data iterator, set to its saved place.

  Raises:
    CheckpointError: it is not whole, or of other shapes.
  """
  args = {
    'params': ocp.args.StandardRestore(params),
    'optimizer': ocp.args.StandardRestore(optimizer),
    'data': grain_checkpoint.CheckpointRestore(data),
  }
  if ema:
    args['ema'] = ocp.args.StandardRestore(ema)
  advice = 'resume with the config it was begun with, or in another workdir'
  with _reading(checkpoints, step, advice):
    return dict(checkpoints.restore(step, args=ocp.args.Composite(**args)))


def put_aside(directory: Path, step: int) -> Path:
  """Moves a damaged checkpoint to where no run looks for it."""
  aside = directory.parent / 'damaged' / f'{step}.{time.time_ns()}'
  if jax.process_index() == 0:
    aside.parent.mkdir(exist_ok=True)
    (directory / str(step)).rename(aside)
  multihost_utils.sync_global_devices(f'put aside {step}')
  return aside


def model_to_json(config: BagelConfig) -> dict[str, Any]:
  """The model's shape as plain JSON."""
  return dataclasses.asdict(config)


def model_from_json(data: dict[str, Any]) -> BagelConfig:
  """The inverse of `model_to_json`."""
  autoencoder = dict(data['autoencoder'])
  autoencoder['ch_mult'] = tuple(autoencoder['ch_mult'])
  return BagelConfig(
    **{
      **data,
      'llm': MoTConfig(**data['llm']),
      'vit': ViTConfig(**data['vit']),
      'autoencoder': AutoencoderConfig(**autoencoder),
    }
  )


def latest(directory: str | Path) -> tuple[ocp.CheckpointManager, int]:
  """The manager and the newest step of a finished run's checkpoints."""
  path = str(directory)
  if '://' not in path and not Path(path).is_dir():
    raise CheckpointError(f'{path}: no checkpoint directory there.')
  checkpoints = manager(path)
  step = checkpoints.latest_step()
  if step is None:
    raise CheckpointError(f'{path}: holds no whole checkpoint.')
  return checkpoints, step


def load_model(
  directory: str | Path, *, use_ema: bool = True
) -> tuple[BagelConfig, Any]:
  """Reads the newest checkpoint's model for inference or a next stage.

  Args:
    directory: the `checkpoints` directory of a run.
    use_ema: take the averaged parameters where the run kept them.

  Returns:
    The model's shape and its parameters (nested, host memory or one device).

  Raises:
    CheckpointError: there is none, or it is not whole.
  """
  checkpoints, step = latest(directory)
  advice = 'delete it and train on from the one before it, or from the start'
  with contextlib.closing(checkpoints), _reading(checkpoints, step, advice):
    items = set(checkpoints.item_metadata(step).keys())
    wanted = {
      'model': ocp.args.JsonRestore(),
      'params': ocp.args.StandardRestore(),
    }
    if use_ema and 'ema' in items:
      wanted['ema'] = ocp.args.StandardRestore()
    read = checkpoints.restore(step, args=ocp.args.Composite(**wanted))
  params = read['params']
  if 'ema' in wanted:
    params = _overlay(params, read['ema'])
  return model_from_json(read['model']), jax.tree.map(jax.numpy.asarray, params)


def _overlay(base: Any, top: Any) -> Any:
  """`base` with the leaves that `top` has too replaced."""
  if not isinstance(top, dict):
    return top
  return {
    key: _overlay(value, top[key]) if key in top else value
    for key, value in base.items()
  }
