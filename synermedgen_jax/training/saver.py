"""Saves checkpoints in the background while training continues.

Orbax copies a state to the host and then writes it in the background. For a
small state, most of the time goes into handing many arrays to Orbax; a thread
does that with a copy of the state on its device.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.checkpoint.data_position import DataSave
from synermedgen_jax.core.trees import unflatten
from synermedgen_jax.input.streams import BatchIterator
from synermedgen_jax.training.train_state import TrainState

# States with fewer bytes are copied on their devices, which have room for two.
_SMALL = 2**28


class Saver:
  """Saves the states of one run, at most one at a time.

  Args:
    checkpoints: the run's manager.
    small: states with fewer bytes are handed to Orbax by a thread. Only with
      one process: several processes must save in the same order.
  """

  def __init__(self, checkpoints: Any, *, small: int = _SMALL):
    self._checkpoints = checkpoints
    self._small = small if jax.process_count() == 1 else 0
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'saver')
    self._pending: concurrent.futures.Future | None = None

  def save(
    self,
    step: int,
    state: TrainState,
    iterator: BatchIterator,
    model: Any,
    metrics: Mapping[str, float],
  ) -> None:
    """Starts to save a checkpoint; returns before it is complete.

    Copies what it needs: the caller may donate `state` and advance the iterator
    immediately.

    Raises:
      CheckpointError: the previous or this checkpoint cannot be written.
    """
    self._wait_for_thread()
    place = DataSave.of(iterator)
    if sum(x.nbytes for x in jax.tree.leaves(state)) >= self._small:
      self._write(step, state, place, model, metrics)
      return
    args = (step, _copy(state), place, model, metrics)
    self._pending = self._thread.submit(self._write_and_wait, *args)

  def reached_preemption(self, step: int) -> bool:
    """Whether the platform stops the run, in any of its processes."""
    return self._checkpoints.reached_preemption(step)

  def wait(self) -> None:
    """Waits until the last checkpoint is complete.

    Raises:
      CheckpointError: it cannot be written.
    """
    self._wait_for_thread()
    ckpt.wait(self._checkpoints)

  def close(self) -> None:
    """Waits as `wait` does, then releases the thread and the manager."""
    try:
      self._wait_for_thread()
    finally:
      self._thread.shutdown()
      ckpt.close(self._checkpoints)

  def _wait_for_thread(self) -> None:
    pending, self._pending = self._pending, None
    if pending:
      pending.result()

  def _write_and_wait(self, *args) -> None:
    self._write(*args)
    ckpt.wait(self._checkpoints)

  def _write(self, step: int, state: TrainState, place, model, metrics) -> None:
    ckpt.save(
      self._checkpoints,
      step,
      params=state.params,
      ema=unflatten(state.ema),
      optimizer=optimizer_items(state),
      data=place,
      model=model,
      metrics=metrics,
    )


def optimizer_items(state: TrainState) -> dict[str, Any]:
  """What a checkpoint keeps beside parameters: optimiser state and memory."""
  memory = {'memory': state.memory} if state.memory else {}
  return {'opt_state': state.opt_state, **memory}


@jax.jit
def _copy(state: TrainState) -> TrainState:
  return jax.tree.map(jnp.copy, state)
