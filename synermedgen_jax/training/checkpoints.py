"""Orbax checkpoints: parameters, optimiser, EMA and data position as one.

A checkpoint holds the whole model, frozen parts included, and the model's
shape as JSON, so that a later stage, `evaluate` and `translate` need nothing
else. Items of a step: `params`, `ema`, `optimizer`, `data`, `model`, and
`metrics` where the run keeps its best.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path
from jax.experimental import multihost_utils

from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig


class CheckpointError(ValueError):
  """A checkpoint that is missing or does not fit; one line."""


class DataHandler(ocp.CheckpointHandler):
  """The place in every stream of the data, each a JSON file of its own.

  A process writes and reads the streams that are its own, so the next run may
  have another number of processes.
  """

  def save(self, directory: Path, args: DataSave) -> None:
    for stream, state in args.item.get_state().items():
      (directory / f'stream_{stream}.json').write_text(json.dumps(state))

  def restore(self, directory: Path, args: DataRestore) -> None:
    args.item.set_state(
      {
        str(stream): json.loads(
          (directory / f'stream_{stream}.json').read_text()
        )
        for stream in args.item.streams
      }
    )


@ocp.args.register_with_handler(DataHandler, for_save=True)
@dataclasses.dataclass
class DataSave(ocp.args.CheckpointArgs):
  item: Any


@ocp.args.register_with_handler(DataHandler, for_restore=True)
@dataclasses.dataclass
class DataRestore(ocp.args.CheckpointArgs):
  item: Any


def better(metric: str) -> int:
  """1 where more of a metric is better, -1 where less is."""
  return 1 if 'accuracy' in metric else -1


def manager(
  directory: str | Path, *, keep: int = 2, keep_every: int = 0, best: str = ''
) -> ocp.CheckpointManager:
  """The checkpoints of one run.

  Args:
    directory: local or an address.
    keep: the newest so many stay.
    keep_every: and those of every so many steps; 0 = no others.
    best: and the best one by this metric; '' = none.
  """
  stay = [ocp.checkpoint_managers.LatestN(keep)]
  if keep_every:
    stay.append(ocp.checkpoint_managers.EveryNSteps(keep_every))

  def quality(metrics) -> float:
    value = metrics.get(best, math.nan)  # another run's best was another
    return better(best) * value if math.isfinite(value) else -math.inf

  if best:
    stay.append(
      ocp.checkpoint_managers.BestN(
        get_metric_fn=quality, n=1, keep_checkpoints_without_metrics=False
      )
    )
  path = Path(directory)
  if '://' not in str(path):
    path = path.absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except (OSError, ImportError) as error:  # gs:// needs a package of its own
    raise CheckpointError(
      f'{path}: cannot be made ({_reason(error)}); name a place that can be '
      'written.'
    ) from None
  return ocp.CheckpointManager(
    path,
    options=ocp.CheckpointManagerOptions(
      preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(stay),
      best_fn=quality if best else None,
      enable_async_checkpointing=True,
    ),
    item_handlers={
      'params': ocp.StandardCheckpointHandler(),
      'ema': ocp.StandardCheckpointHandler(),
      'optimizer': ocp.StandardCheckpointHandler(),
      'data': DataHandler(),
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
    raise CheckpointError(
      f'{checkpoints.directory}/{step}: cannot be read ({_reason(error)}); '
      f'{advice}.'
    ) from error


@contextlib.contextmanager
def _writing(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
  """Says in a line that a checkpoint cannot be written, and what is there."""
  try:
    yield
  except Exception as error:  # Whatever the thread that writes has met
    whole = ocp.utils.checkpoint_steps(checkpoints.directory)
    raise CheckpointError(
      f'{checkpoints.directory}: a checkpoint cannot be written '
      f'({_reason(error)}); '
      + (f'step {max(whole)} is whole. ' if whole else 'none is whole yet. ')
      + 'Make room, and run the same command again.'
    ) from error


def _reason(error: BaseException) -> str:
  """The first line of what went wrong."""
  first = error.__cause__ or error
  return str(first.args[-1] if first.args else first).partition('\n')[0][:200]


def save(
  checkpoints: ocp.CheckpointManager,
  step: int,
  *,
  params: Any,
  ema: Any,
  optimizer: Any,
  data: Any,
  model: BagelConfig,
  metrics: Mapping[str, float] | None = None,
) -> None:
  """Starts writing a checkpoint; it is whole or it is not there.

  Args:
    checkpoints: the run's manager.
    step: which.
    params, ema, optimizer: trees of arrays (`ema` may be empty).
    data: the data iterator, saved by stream.
    model: the model's shape.
    metrics: what the best checkpoint is chosen by, if it was measured.

  Raises:
    CheckpointError: this one, or the one before it, cannot be written.
  """
  args = {
    'params': ocp.args.StandardSave(params),
    'optimizer': ocp.args.StandardSave(optimizer),
    'data': DataSave(data),
    'model': ocp.args.JsonSave(model_to_json(model)),
  }
  if ema:
    args['ema'] = ocp.args.StandardSave(ema)
  with _writing(checkpoints):
    checkpoints.save(
      step,
      args=ocp.args.Composite(**args),
      metrics=dict(metrics) if metrics else None,
    )


def wait(checkpoints: ocp.CheckpointManager) -> None:
  """Waits until all is written.

  Raises:
    CheckpointError: it cannot be.
  """
  with _writing(checkpoints):
    checkpoints.wait_until_finished()


def close(checkpoints: ocp.CheckpointManager) -> None:
  """Waits until all is written, and lets go; raises as `wait` does."""
  with _writing(checkpoints):
    checkpoints.close()


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
    'data': DataRestore(data),
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
  if not Path(directory).is_dir():
    raise CheckpointError(f'{directory}: no checkpoint directory there.')
  checkpoints = manager(directory)
  step = checkpoints.latest_step()
  if step is None:
    raise CheckpointError(f'{directory}: holds no whole checkpoint.')
  return checkpoints, step


def find_step(checkpoints: ocp.CheckpointManager, which: str) -> int:
  """The step of the checkpoint called 'newest', 'best', or by its number."""
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

  # The newest one's, where the run's best was another before.
  metric = max(measured, key=lambda key: key[1])[0]
  return max(
    (better(metric) * value, step)
    for (name, step), value in measured.items()
    if name == metric
  )[1]


def load_model(
  directory: str | Path, *, which: str = 'newest', use_ema: bool = True
) -> tuple[BagelConfig, Any]:
  """Reads a checkpoint's model for inference or a next stage.

  Args:
    directory: the `checkpoints` directory of a run.
    which: 'newest', 'best', or a step.
    use_ema: take the averaged parameters where the run kept them.

  Returns:
    The model's shape and its parameters, nested NumPy arrays.

  Raises:
    CheckpointError: there is none, or it is not whole.
  """
  advice = 'delete it and train on from the one before it, or from the start'
  with contextlib.ExitStack() as stack:
    checkpoints, _ = latest(directory)
    stack.enter_context(contextlib.closing(checkpoints))
    step = find_step(checkpoints, which)
    stack.enter_context(_reading(checkpoints, step, advice))
    items = checkpoints.item_metadata(step)
    wanted = {
      'model': ocp.args.JsonRestore(),
      'params': ocp.args.StandardRestore(_on_host(items['params'])),
    }
    if use_ema and items.get('ema'):
      wanted['ema'] = ocp.args.StandardRestore(_on_host(items['ema']))
    read = checkpoints.restore(step, args=ocp.args.Composite(**wanted))
  params = read['params']
  if 'ema' in wanted:
    params = _overlay(params, read['ema'])
  return model_from_json(read['model']), params


def _on_host(metadata: Any) -> Any:
  """Asks for NumPy arrays, wherever the devices were that wrote them."""
  return jax.tree.map(
    # All of it is one number, which takes no memory.
    lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape),
    metadata,
  )


def _overlay(base: Any, top: Any) -> Any:
  """`base` with the leaves that `top` has too replaced."""
  if not isinstance(top, dict):
    return top
  return {
    key: _overlay(value, top[key]) if key in top else value
    for key, value in base.items()
  }
