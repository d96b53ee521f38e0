"""Resumes a run from its newest readable checkpoint.

A checkpoint is readable if all its items decode, their checksums agree, and the
data can continue from its position. Errors of storage and memory, which may
pass, are `OutOfReach` and no damage (`checkpoint/orbax_items.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils.epath import Path

from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.input.streams import BatchIterator
from synermedgen_jax.training.saver import optimizer_items
from synermedgen_jax.training.train_state import TrainState


def resume(
  open_manager: Callable[[], Any],
  abstract: TrainState,
  iterator: BatchIterator,
) -> tuple[Any, int, TrainState | None]:
  """Opens the checkpoints of a run and reads the newest readable one.

  Newer, damaged checkpoints are moved into `WORKDIR/damaged/`. If no checkpoint
  can be read, none is moved, because the config may be the cause.

  Args:
    open_manager: opens the run's checkpoints.
    abstract: shapes and shardings of the state.
    iterator: the data; set to the position of the checkpoint.

  Returns:
    The manager, the step and the state; 0 and None without a checkpoint.

  Raises:
    CheckpointError: there are checkpoints, and none can be read.
    OutOfReach: the newest one that may be intact cannot be read now.
  """
  checkpoints = open_manager()
  with contextlib.ExitStack() as on_error:
    on_error.callback(checkpoints.close)
    step, state, problems = _newest_readable(checkpoints, abstract, iterator)
    if not problems:
      on_error.pop_all()  # the caller closes it
      return checkpoints, step, state
  for damaged, problem in problems.items():
    aside = ckpt.put_aside(Path(checkpoints.directory), damaged)
    if jax.process_index() == 0:
      print(f'{problem} Put aside as {aside}; step {step} goes on.')
  return open_manager(), step, state


def _newest_readable(
  checkpoints, abstract: TrainState, iterator: BatchIterator
) -> tuple[int, TrainState | None, Mapping[int, ckpt.CheckpointError]]:
  """The newest readable step, its state, and the errors of newer steps."""
  problems: dict[int, ckpt.CheckpointError] = {}
  for step in sorted(checkpoints.all_steps(), reverse=True):
    try:
      state = _restore(checkpoints, step, abstract, iterator)
    except ckpt.OutOfReach:
      raise
    except ckpt.CheckpointError as error:
      problems[step] = error
    else:
      return step, state, problems
  if problems:
    raise problems[max(problems)]
  return 0, None, problems


def _restore(
  checkpoints, step: int, abstract: TrainState, iterator: BatchIterator
) -> TrainState:
  """The state and data position of a checkpoint of this run."""
  read = ckpt.restore(
    checkpoints,
    step,
    params=abstract.params,
    ema=unflatten(abstract.ema),
    optimizer=optimizer_items(abstract),
    data=iterator,
  )
  flat = flatten(read['params'])
  return abstract.replace(
    step=jax.device_put(jnp.int32(step), abstract.step.sharding),
    trainable={name: flat[name] for name in abstract.trainable},
    frozen={name: flat[name] for name in abstract.frozen},
    opt_state=read['optimizer']['opt_state'],
    memory=read['optimizer'].get('memory', {}),
    ema=flatten(read['ema']) if abstract.ema else {},
  )
