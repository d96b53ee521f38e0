"""What the loop saves with: it goes on while a checkpoint is written.

Orbax copies a state to the host, which a large one is worth waiting for, and
then writes in the background. Of a small one, what takes time is to set Orbax
to work on many arrays: that too is done in the background, on a copy.
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
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.training.train_state import TrainState

# States of fewer bytes are copied on their devices: there is room for another.
_SMALL = 2**28


class Saver:
  """Saves the states of one run, at most one at a time.

  Args:
    checkpoints: the run's manager.
    small: states of fewer bytes are saved from a thread of their own. Not those
      of several processes, which have to meet in the same order everywhere.
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
    model: BagelConfig,
    metrics: Mapping[str, float],
  ) -> None:
    """Starts to write what `resuming.resume` reads.

    What then becomes of the state, given away to a next step even, and of the
    iterator is of no account.

    Raises:
      CheckpointError: the one before it cannot be written, or this one.
    """
    self._wait_for_thread()
    place = DataSave.of(iterator)
    if sum(x.nbytes for x in jax.tree.leaves(state)) >= self._small:
      self._write(step, state, place, model, metrics)
      return
    args = (step, _copied(state), place, model, metrics)
    self._pending = self._thread.submit(self._write_whole, *args)

  def wait(self) -> None:
    """Waits until all is written.

    Raises:
      CheckpointError: it cannot be.
    """
    self._wait_for_thread()
    ckpt.wait(self._checkpoints)

  def close(self) -> None:
    """Waits until all is written, and lets go; raises as `wait` does."""
    try:
      self._wait_for_thread()
    finally:
      self._thread.shutdown()
      ckpt.close(self._checkpoints)

  def _wait_for_thread(self) -> None:
    pending, self._pending = self._pending, None
    if pending:
      pending.result()

  def _write_whole(self, *args) -> None:
    self._write(*args)
    ckpt.wait(self._checkpoints)

  def _write(self, step: int, state: TrainState, place, model, metrics) -> None:
    ckpt.save(
      self._checkpoints,
      step,
      params=state.params,
      ema=unflatten(state.ema),
      optimizer={'opt_state': state.opt_state},
      data=place,
      model=model,
      metrics=metrics,
    )


@jax.jit
def _copied(state: TrainState) -> TrainState:
  return jax.tree.map(jnp.copy, state)
