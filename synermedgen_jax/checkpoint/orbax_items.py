"""Orbax checkpoints: parameters, optimiser, EMA and data position as one.

A checkpoint holds the whole model, frozen parts included, and the model's
shape as JSON, so that a later stage, `evaluate` and `translate` need nothing
else. Items of a step: `params`, `ema`, `optimizer`, `data`, `model`,
`checksums`, and `metrics` where the run keeps its best.
"""

from __future__ import annotations

import contextlib
import errno
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
  """A checkpoint that is missing, damaged or of another model; one line."""


class OutOfReach(CheckpointError):
  """A checkpoint that cannot be reached now and may be intact; one line."""


class _ArraysHandler(ocp.StandardCheckpointHandler):
  """Arrays; `restore` returns the error of an item that cannot be read.

  Orbax synchronises the processes after the restore: if one of them raised, the
  others would wait for it without end.
  """

  def restore(self, *args, **kwargs) -> Any:
    try:
      return super().restore(*args, **kwargs)
    except Exception as error:  # Orbax raises bare ones for damaged files
      return error


def better(metric: str) -> int:
  """1 if larger values of a metric are better, else -1."""
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
    directory: a folder, or an address such as gs://BUCKET/RUN/checkpoints.
    keep: number of newest checkpoints to keep.
    keep_every: also keep the checkpoints at this interval in steps; 0 = none.
    best: also keep the best checkpoint by this metric; '' = none.
    clean: remove incomplete checkpoints of a killed run. Only the run that
      writes to the directory may do so.

  Raises:
    CheckpointError: the directory cannot be created, or a metrics file in it is
      damaged.
  """
  path = Path(directory)
  if '://' not in str(path):
    path = path.absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except (OSError, ImportError) as error:  # gs:// needs a package of its own
    raise CheckpointError(
      f'{path}: cannot be created ({_reason(error)}); name a folder that can '
      'be written.'
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
  """The reader and writer of every item."""
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
  """Options that keep the checkpoints that `manager` describes."""
  stay = [ocp.checkpoint_managers.LatestN(keep)]
  if keep_every:
    stay.append(ocp.checkpoint_managers.EveryNSteps(keep_every))

  def quality(metrics) -> float:
    value = metrics.get(best, math.nan)  # config.best may have changed
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
  """Checks the metrics files, all of which Orbax reads when it opens."""
  for path in directory.glob('*/metrics/metrics'):
    try:
      json.loads(path.read_text())
    except (ValueError, OSError) as error:
      raise CheckpointError(
        f'{path}: cannot be read ({_reason(error)}); move the folder '
        f'{path.parent.parent} away, and run the same command again.'
      ) from None


# Status codes and errors of storage and devices that say nothing about a file.
_NOT_DAMAGE = (
  'RESOURCE_EXHAUSTED',
  'UNAVAILABLE',
  'DEADLINE_EXCEEDED',
  'PERMISSION_DENIED',
  'UNAUTHENTICATED',
)
_NOT_DAMAGE_ERRNO = {
  errno.EACCES,
  errno.EPERM,
  errno.EIO,
  errno.ESTALE,
  errno.ETIMEDOUT,
  errno.ENOMEM,
  errno.EMFILE,
  errno.ENFILE,
  errno.ENETDOWN,
  errno.ENETUNREACH,
  errno.EHOSTDOWN,
  errno.EHOSTUNREACH,
  errno.ECONNREFUSED,
  errno.ECONNRESET,
  errno.ECONNABORTED,
}


@contextlib.contextmanager
def step_errors(
  checkpoints: ocp.CheckpointManager, step: int, advice: str
) -> Iterator[None]:
  """Turns errors of the block into one line with the checkpoint and advice."""
  try:
    yield
  except Exception as error:  # Orbax raises bare ones for damaged files
    line = f'{checkpoints.directory}/{step}: cannot be read ({_reason(error)})'
    if _may_be_intact(error):
      raise OutOfReach(f'{line}; run the same command again.') from error
    raise CheckpointError(f'{line}; {advice}.') from error


def _may_be_intact(error: BaseException | None) -> bool:
  """Whether an error, or its cause, is one of storage and not of the data."""
  if error is None:
    return False
  return (
    isinstance(error, OutOfReach | MemoryError | TimeoutError)
    or (isinstance(error, OSError) and error.errno in _NOT_DAMAGE_ERRNO)
    or any(code in str(error) for code in _NOT_DAMAGE)
    or _may_be_intact(error.__cause__)
  )


@contextlib.contextmanager
def _writing(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
  """Turns errors of writing into one line with the newest complete step."""
  try:
    yield
  except Exception as error:  # Orbax passes on errors of its writing thread
    steps = ocp.utils.checkpoint_steps(checkpoints.directory)
    raise CheckpointError(
      f'{checkpoints.directory}: a checkpoint cannot be written '
      f'({_reason(error)}); '
      + (f'step {max(steps)} is complete. ' if steps else 'none is complete. ')
      + 'Make room, and run the same command again.'
    ) from error


def _reason(error: BaseException) -> str:
  """First line of the message of an error or its cause."""
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
  """Starts writing a checkpoint; readers see it only when it is complete.

  Args:
    checkpoints: the run's manager.
    step: number of completed steps.
    params, ema, optimizer: trees of arrays (`ema` may be empty).
    data: position in the data.
    model: the model's shape.
    metrics: metric that selects the best checkpoint, if it was measured.

  Raises:
    CheckpointError: this checkpoint or the previous one cannot be written.
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
  """Waits until the started checkpoints are complete.

  Raises:
    CheckpointError: a checkpoint cannot be written.
  """
  with _writing(checkpoints):
    checkpoints.wait_until_finished()


def close(checkpoints: ocp.CheckpointManager) -> None:
  """Waits like `wait`, then closes the manager."""
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
  """Reads a checkpoint of the same run into the given shapes.

  Args:
    checkpoints: the run's manager.
    step: step of the checkpoint.
    params, ema, optimizer: abstract trees with shardings (`ema` may be empty).
    data: the data iterator; set to the saved position.

  Raises:
    CheckpointError: it is damaged, or has other shapes.
  """
  args = {
    'params': ocp.args.StandardRestore(params),
    'optimizer': ocp.args.StandardRestore(optimizer),
    'data': DataRestore(data),
    'checksums': ChecksumsRestore(),
  }
  if ema:
    args['ema'] = ocp.args.StandardRestore(ema)
  advice = 'resume with the config of its start, or in another workdir'
  with step_errors(checkpoints, step, advice):
    return read_items(checkpoints, step, args)


def read_items(
  checkpoints: ocp.CheckpointManager, step: int, wanted: Mapping[str, Any]
) -> dict[str, Any]:
  """Reads items of a checkpoint; checks their sums if `wanted` has checksums.

  All processes read the same items. If one of them fails, all of them raise.

  Raises:
    Exception: the error of this process.
    ValueError: the checksum of an item differs, or another process failed.
    OutOfReach: another process cannot reach the storage now.
  """
  read = dict(checkpoints.restore(step, args=ocp.args.Composite(**wanted)))
  _raise_if_any_process_failed(
    [x for x in read.values() if isinstance(x, Exception)]
  )
  _check_sums(read, read.get('checksums', {}))
  return read


def _raise_if_any_process_failed(problems: Sequence[Exception]) -> None:
  """Raises the same class of error in all processes.

  So all of them fall back to the same older step, or none does.
  """
  kinds = np.int32([bool(problems), any(map(_may_be_intact, problems))])
  if jax.process_count() > 1:
    kinds = multihost_utils.process_allgather(kinds)
  failed, out_of_reach = np.reshape(kinds, (-1, 2)).T
  if out_of_reach.any() and not any(map(_may_be_intact, problems)):
    raise OutOfReach(f'process {out_of_reach.argmax()} cannot read it')
  if problems:
    raise problems[0]
  if failed.any():
    raise ValueError(f'process {failed.argmax()} cannot read it')


def _check_sums(read: Mapping[str, Any], expected: Mapping[str, int]) -> None:
  """Raises ValueError if the checksum of an item is not the saved one."""
  items = {name: read[name] for name in expected if read.get(name)}
  for name, checksum in checksums(items).items():
    if checksum != expected[name]:
      raise ValueError(f'{name} differs from its checksum: bits have changed')


def put_aside(directory: Path, step: int) -> Path:
  """Moves a damaged checkpoint to `damaged/`, where no run looks for it."""
  aside = directory.parent / 'damaged' / f'{step}.{time.time_ns()}'
  if jax.process_index() == 0:  # only its time stamp is used
    aside.parent.mkdir(exist_ok=True)
    (directory / str(step)).rename(aside)
  multihost_utils.sync_global_devices(f'put aside {step}')
  return aside
