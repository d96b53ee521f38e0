"""Orbax checkpoints: parameters, optimiser, EMA and data position as one.

A checkpoint holds the whole model, frozen parts included, and the model's
shape as JSON, so that a later stage, `evaluate` and `translate` need nothing
else. Items of a step: `params`, `ema`, `optimizer`, `data`, `model`,
`checksums`, and `metrics` where the run keeps its best.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path
from jax.experimental import multihost_utils

from synermedgen_jax.checkpoint.checksums import (
  ChecksumsHandler,
  ChecksumsRestore,
  ChecksumsSave,
  begin_checksums,
  checksums,
)
from synermedgen_jax.checkpoint.data_position import (
  DataHandler,
  DataRestore,
  DataSave,
)
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.shape_json import model_to_json


class CheckpointError(UserError):
  """A checkpoint that is missing or does not fit; one line."""


class OutOfReach(CheckpointError):
  """A checkpoint that may be whole and cannot be reached now; one line."""


class _ArraysHandler(ocp.StandardCheckpointHandler):
  """Arrays; what cannot be read comes back as the error.

  Orbax makes processes meet after each has read: one that fails alone would be
  waited for in vain.
  """

  def restore(self, *args, **kwargs) -> Any:
    try:
      return super().restore(*args, **kwargs)
    except Exception as error:  # Orbax raises bare ones for damaged files
      return error


def better(metric: str) -> int:
  """1 where more of a metric is better, -1 where less is."""
  return 1 if 'accuracy' in metric else -1


def manager(
  directory: str | Path,
  *,
  keep: int = 2,
  keep_every: int = 0,
  best: str = '',
  clean: bool = False,
) -> ocp.CheckpointManager:
  """The checkpoints of one run.

  Args:
    directory: local or an address.
    keep: the newest so many stay.
    keep_every: and those of every so many steps; 0 = no others.
    best: and the best one by this metric; '' = none.
    clean: remove what a run that was killed left half-written. For the one run
      that writes there, since it would remove another's save in the making.

  Raises:
    CheckpointError: it cannot be made, or what it tells of itself is damaged.
  """
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
  _check_metrics(path)
  if clean and jax.process_index() == 0:
    for partial in path.glob('*.orbax-checkpoint-tmp'):
      partial.rmtree()
  return ocp.CheckpointManager(
    path,
    options=_options(keep, keep_every, best),
    handler_registry=_handlers(),
  )


def _handlers() -> ocp.handlers.CheckpointHandlerRegistry:
  """What reads and writes each item."""
  arrays = (ocp.args.StandardSave, ocp.args.StandardRestore)
  registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
  for item, handler, kinds in (
    ('params', _ArraysHandler(), arrays),
    ('ema', _ArraysHandler(), arrays),
    ('optimizer', _ArraysHandler(), arrays),
    ('data', DataHandler(), (DataSave, DataRestore)),
    (
      'model',
      ocp.JsonCheckpointHandler(),
      (ocp.args.JsonSave, ocp.args.JsonRestore),
    ),
    ('checksums', ChecksumsHandler(), (ChecksumsSave, ChecksumsRestore)),
  ):
    for kind in kinds:
      registry.add(item, kind, handler)
  return registry


def _options(
  keep: int, keep_every: int, best: str
) -> ocp.CheckpointManagerOptions:
  """Which checkpoints stay, see `manager`."""
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
  return ocp.CheckpointManagerOptions(
    preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(stay),
    best_fn=quality if best else None,
    enable_async_checkpointing=True,
  )


def _check_metrics(directory: Path) -> None:
  """Orbax reads these of all steps as it opens, and fails with any."""
  for path in directory.glob('*/metrics/metrics'):
    try:
      json.loads(path.read_text())
    except (ValueError, OSError) as error:
      raise CheckpointError(
        f'{path}: cannot be read ({_reason(error)}); move the folder '
        f'{path.parent.parent} away, and run the same command again.'
      ) from None


# What storage and devices say when it is not the file that is at fault.
_NOT_DAMAGE = (
  'RESOURCE_EXHAUSTED',
  'UNAVAILABLE',
  'DEADLINE_EXCEEDED',
  'PERMISSION_DENIED',
  'UNAUTHENTICATED',
)


@contextlib.contextmanager
def step_errors(
  checkpoints: ocp.CheckpointManager, step: int, advice: str
) -> Iterator[None]:
  """Raises errors of the block as one line that names checkpoint and remedy."""
  try:
    yield
  except Exception as error:  # Orbax raises bare ones for damaged files
    told = f'{checkpoints.directory}/{step}: cannot be read ({_reason(error)})'
    if _may_be_whole(error):
      raise OutOfReach(f'{told}; run the same command again.') from error
    raise CheckpointError(f'{told}; {advice}.') from error


def _may_be_whole(error: Exception) -> bool:
  return isinstance(error, OutOfReach) or any(
    sign in str(error) for sign in _NOT_DAMAGE
  )


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
  data: DataSave,
  model: BagelConfig,
  metrics: Mapping[str, float] | None = None,
) -> None:
  """Starts writing a checkpoint; it is whole or it is not there.

  Args:
    checkpoints: the run's manager.
    step: which.
    params, ema, optimizer: trees of arrays (`ema` may be empty).
    data: where the data are.
    model: the model's shape.
    metrics: what the best checkpoint is chosen by, if it was measured.

  Raises:
    CheckpointError: this one, or the one before it, cannot be written.
  """
  args = {
    'params': ocp.args.StandardSave(params),
    'optimizer': ocp.args.StandardSave(optimizer),
    'data': data,
    'model': ocp.args.JsonSave(model_to_json(model)),
  }
  if ema:
    args['ema'] = ocp.args.StandardSave(ema)
  sums = {'params': params, 'ema': ema, 'optimizer': optimizer}
  args['checksums'] = ChecksumsSave(begin_checksums(sums))
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
    'checksums': ChecksumsRestore(),
  }
  if ema:
    args['ema'] = ocp.args.StandardRestore(ema)
  advice = 'resume with the config it was begun with, or in another workdir'
  with step_errors(checkpoints, step, advice):
    return read_items(checkpoints, step, args)


def read_items(
  checkpoints: ocp.CheckpointManager, step: int, wanted: Mapping[str, Any]
) -> dict[str, Any]:
  """Reads items of a checkpoint, and checks their sums if those are wanted.

  Every process has to read the same ones: what one cannot, none takes.

  Raises:
    Exception: of whatever kind it was that this process cannot read.
    ValueError: an item is not what was saved, or another process cannot read.
    OutOfReach: another process cannot reach it now.
  """
  read = dict(checkpoints.restore(step, args=ocp.args.Composite(**wanted)))
  _agree([x for x in read.values() if isinstance(x, Exception)])
  _check_sums(read, read.get('checksums', {}))
  return read


def _agree(problems: Sequence[Exception]) -> None:
  """Raises where any process has problems."""
  kinds = np.int32([bool(problems), any(map(_may_be_whole, problems))])
  if jax.process_count() > 1:
    kinds = multihost_utils.process_allgather(kinds)
  failed, out_of_reach = np.reshape(kinds, (-1, 2)).T
  # Of the same kind everywhere: all go back to an older one, or none.
  if out_of_reach.any() and not any(map(_may_be_whole, problems)):
    raise OutOfReach(f'process {out_of_reach.argmax()} cannot')
  if problems:
    raise problems[0]
  if failed.any():
    raise ValueError(f'process {failed.argmax()} cannot')


def _check_sums(read: Mapping[str, Any], expected: Mapping[str, int]) -> None:
  """Raises ValueError where an item is not what was saved."""
  items = {name: read[name] for name in expected if read.get(name)}
  for name, found in checksums(items).items():
    if found != expected[name]:
      raise ValueError(f'{name} is not what was saved: bits have changed')


def put_aside(directory: Path, step: int) -> Path:
  """Moves a damaged checkpoint to where no run looks for it."""
  aside = directory.parent / 'damaged' / f'{step}.{time.time_ns()}'
  if jax.process_index() == 0:  # whose name it is
    aside.parent.mkdir(exist_ok=True)
    (directory / str(step)).rename(aside)
  multihost_utils.sync_global_devices(f'put aside {step}')
  return aside
