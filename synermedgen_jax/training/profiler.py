"""A window of steps seen by JAX's profiler, for TensorBoard or Perfetto."""

from __future__ import annotations

from typing import Any

import jax
from etils.epath import Path


class ProfilerWindow:
  """Traces steps `start` to `start + steps - 1` into WORKDIR/profile."""

  def __init__(self, workdir: Path, start: int, steps: int):
    self._directory = workdir / 'profile'
    self._steps = range(start, start + steps)
    self._traces = False

  def __enter__(self) -> ProfilerWindow:
    return self

  def __exit__(self, *_) -> None:
    if self._traces:
      jax.profiler.stop_trace()

  def begins(self, step: int) -> None:
    if step in self._steps and not self._traces:
      jax.profiler.start_trace(str(self._directory))
      self._traces = True

  def ends(self, step: int, result: Any) -> None:
    if self._traces and step + 1 not in self._steps:
      jax.block_until_ready(result)
      jax.profiler.stop_trace()
      self._traces = False
