"""Orbax checkpoints: parameters, optimiser, EMA and data position in one step.

A checkpoint holds the whole model, frozen parts included, and the model's
shape as JSON, so that a later stage, `evaluate` and `predict` need nothing
else. Items of a step: `params`, `ema`, `optimizer`, `data`, `model`,
`checksums`, and `metrics` if the run keeps its best checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import re
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
  compare_checksum,
  json_checksum,
)
from synermedgen_jax.checkpoint.data_position import (
  DataHandler,
  DataRestore,
  DataSave,
)
from synermedgen_jax.core.errors import UserError


class CheckpointError(UserError):
  """A checkpoint is missing, damaged or of another config; one line."""


class OutOfReach(CheckpointError):
  """A checkpoint cannot be read now and may be intact; one line."""


class _ArraysHandler(ocp.StandardCheckpointHandler):
  """Restores arrays, or returns the error that restoring them raised.

  Orbax synchronises all processes after they have read. A process that raised
  alone would leave the others waiting.
  """

  def restore(self, *args, **kwargs) -> Any:
    try:
      return super().restore(*args, **kwargs)
    except Exception as error:  # Orbax raises bare ones for damaged files
      return error


def better(metric: str) -> int:
  """1 if a larger value of the metric is better, -1 if a smaller one is."""
  return 1 if 'accuracy' in metric else -1


def manager(
  directory: str | Path,
  *,
  keep: int = 2,
  keep_every: int = 0,
  best: str = '',
  clean: bool = False,
) -> ocp.CheckpointManager:
  """Opens the checkpoints of one run.

  Args:
    directory: local folder or address; created if missing.
    keep: keep the newest N checkpoints.
    keep_every: also keep those of every N-th step; 0 = no others.
    best: also keep the best one by this metric; '' = no other.
    clean: remove unfinished saves of a run that was killed. Only the run that
      writes to `directory` may set it: a save in progress looks the same.

  Raises:
    CheckpointError: the directory cannot be created, or metrics are damaged.
    OutOfReach: metrics cannot be read now.
  """
  path = Path(directory)
  if '://' not in str(path):
    path = path.absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except (OSError, ImportError) as error:  # gs:// needs another package
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
  """The handler of each item."""
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
  """Retention of checkpoints, see `manager`."""
  policies = [ocp.checkpoint_managers.LatestN(keep)]
  if keep_every:
    policies.append(ocp.checkpoint_managers.EveryNSteps(keep_every))

  def quality(metrics) -> float:
    # Steps before a resumption may have another metric.
    value = metrics.get(best, math.nan)
    return better(best) * value if math.isfinite(value) else -math.inf

  if best:
    policies.append(
      ocp.checkpoint_managers.BestN(
        get_metric_fn=quality, n=1, keep_checkpoints_without_metrics=False
      )
    )
  return ocp.CheckpointManagerOptions(
    preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
    best_fn=quality if best else None,
    enable_async_checkpointing=True,
  )


def _check_metrics(directory: Path) -> None:
  """Raises if metrics of a step are unreadable: Orbax would not open at all."""
  for path in directory.glob('*/metrics/metrics'):
    try:
      json.loads(path.read_text())
    except (ValueError, OSError) as error:
      if _may_be_intact(error):
        raise OutOfReach(
          f'{path}: cannot be read ({_reason(error)}); run the same command '
          'again.'
        ) from None
      raise CheckpointError(
        f'{path}: cannot be read ({_reason(error)}); move the folder '
        f'{path.parent.parent} away, and run the same command again.'
      ) from None


# Status codes in errors of storage and devices that do not imply damage.
_NOT_DAMAGE = (
  'RESOURCE_EXHAUSTED',
  'UNAVAILABLE',
  'DEADLINE_EXCEEDED',
  'PERMISSION_DENIED',
  'UNAUTHENTICATED',
)
# A file that is missing, or a folder in its place, is damage. Every other error
# of the operating system (EIO, ESTALE, EACCES, timeouts) may pass.
_DAMAGE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_DAMAGE_CODES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
# TensorStore raises ValueError for everything, with the code in the text.
_OS_ERROR_CODE = re.compile(r"os_error_code='(\d+)'")


@contextlib.contextmanager
def step_errors(
  checkpoints: ocp.CheckpointManager, step: int, advice: str
) -> Iterator[None]:
  """Raises errors of the block as one line with the checkpoint and a remedy."""
  try:
    yield
  except Exception as error:  # Orbax raises bare ones for damaged files
    path = f'{checkpoints.directory}/{step}'
    problem = f'{path}: cannot be read ({_reason(error)})'
    if _may_be_intact(error):
      raise OutOfReach(f'{problem}; run the same command again.') from error
    raise CheckpointError(f'{problem}; {advice}.') from error


def _may_be_intact(error: BaseException) -> bool:
  """Whether an error of reading can have another cause than damaged files."""
  if isinstance(error, (OutOfReach, MemoryError)):
    return True
  if isinstance(error, OSError) and not isinstance(error, _DAMAGE):
    return True
  text = str(error)
  code = _OS_ERROR_CODE.search(text)
  if code and int(code[1]) not in _DAMAGE_CODES:
    return True
  if any(status in text for status in _NOT_DAMAGE):
    return True
  return error.__cause__ is not None and _may_be_intact(error.__cause__)


@contextlib.contextmanager
def _writing(checkpoints: ocp.CheckpointManager) -> Iterator[None]:
  """Raises errors of writing as one line that names the newest checkpoint."""
  try:
    yield
  except Exception as error:  # the thread that writes may raise any class
    steps = ocp.utils.checkpoint_steps(checkpoints.directory)
    raise CheckpointError(
      f'{checkpoints.directory}: a checkpoint cannot be written '
      f'({_reason(error)}); '
      + (f'step {max(steps)} is whole. ' if steps else 'none is whole yet. ')
      + 'Make room, and run the same command again.'
    ) from error


def _reason(error: BaseException) -> str:
  """First line of the error's message; its class if there is no message."""
  first = error.__cause__ or error
  text = str(first.args[-1] if first.args else first) or type(first).__name__
  return text.partition('\n')[0][:200]


def save(
  checkpoints: ocp.CheckpointManager,
  step: int,
  *,
  params: Any,
  ema: Any,
  optimizer: Any,
  data: DataSave,
  model: Any,
  metrics: Mapping[str, float] | None = None,
) -> None:
  """Starts writing a checkpoint. It appears once it is complete.

  Args:
    checkpoints: the run's manager.
    step: number of steps done.
    params, ema, optimizer: trees of arrays (`ema` may be empty).
    data: position of the data.
    model: the model's shape, a dataclass.
    metrics: values of the metric that selects the best checkpoint, if measured.

  Raises:
    CheckpointError: this or the previous checkpoint cannot be written.
  """
  shape = dataclasses.asdict(model)
  args = {
    'params': ocp.args.StandardSave(params),
    'optimizer': ocp.args.StandardSave(optimizer),
    'data': data,
    'model': ocp.args.JsonSave(shape),
  }
  if ema:
    args['ema'] = ocp.args.StandardSave(ema)
  sums = begin_checksums({'params': params, 'ema': ema, 'optimizer': optimizer})
  args['checksums'] = ChecksumsSave(
    lambda: {**sums(), 'model': json_checksum(shape)}
  )
  with _writing(checkpoints):
    checkpoints.save(
      step,
      args=ocp.args.Composite(**args),
      metrics=dict(metrics) if metrics else None,
    )


def wait(checkpoints: ocp.CheckpointManager) -> None:
  """Waits until all checkpoints are written.

  Raises:
    CheckpointError: one cannot be written.
  """
  with _writing(checkpoints):
    checkpoints.wait_until_finished()


def close(checkpoints: ocp.CheckpointManager) -> None:
  """Waits as `wait` does, then closes the manager."""
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
  """Reads a checkpoint of the run that resumes, into the given shapes.

  Args:
    checkpoints: the run's manager.
    step: step of the checkpoint.
    params, ema, optimizer: abstract trees with shardings (`ema` may be empty).
    data: the data iterator; it is set to the saved position.

  Raises:
    CheckpointError: the checkpoint is damaged, or of other shapes or data.
    OutOfReach: it cannot be read now.
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
  """Reads items of a checkpoint, and checks their checksums if requested.

  Every process must request the same items. If one process fails, all raise.

  Raises:
    Exception: the error of this process, of any class.
    ValueError: an item differs from its checksum, or another process failed.
    OutOfReach: another process cannot read the checkpoint now.
  """
  read = dict(checkpoints.restore(step, args=ocp.args.Composite(**wanted)))
  errors = [x for x in read.values() if isinstance(x, Exception)]
  _raise_if_any_process_failed(errors)
  _check_sums(read, read.get('checksums', {}))
  return read


def _raise_if_any_process_failed(errors: Sequence[Exception]) -> None:
  """Raises if any process has errors.

  Either all processes report damage, or none does: so all fall back to the same
  step.
  """
  intact = any(map(_may_be_intact, errors))
  states = np.int32([bool(errors), intact])
  if jax.process_count() > 1:
    states = multihost_utils.process_allgather(states)
  failed, out_of_reach = np.reshape(states, (-1, 2)).T
  if out_of_reach.any() and not intact:
    raise OutOfReach(f'process {out_of_reach.argmax()} cannot')
  if errors:
    raise errors[0]
  if failed.any():
    raise ValueError(f'process {failed.argmax()} cannot')


def _check_sums(read: Mapping[str, Any], expected: Mapping[str, int]) -> None:
  """Raises ValueError if an item differs from its checksum."""
  items = {name: read[name] for name in expected if read.get(name)}
  shape = items.pop('model', None)
  actual = checksums(items)
  if shape is not None:
    actual['model'] = json_checksum(shape)
  for name, checksum in actual.items():
    compare_checksum(name, checksum, expected)


def put_aside(directory: Path, step: int) -> Path:
  """Moves a damaged checkpoint into `damaged/`, which no run reads.

  Returns:
    The new folder; only process 0 knows its name.
  """
  aside = directory.parent / 'damaged' / f'{step}.{time.time_ns()}'
  if jax.process_index() == 0:
    aside.parent.mkdir(exist_ok=True)
    (directory / str(step)).rename(aside)
  multihost_utils.sync_global_devices(f'put aside {step}')
  return aside
