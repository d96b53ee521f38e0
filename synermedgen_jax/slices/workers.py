"""Worker processes that end with the process that started them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import multiprocessing
import multiprocessing.context
import os
import signal
import threading
from collections.abc import Iterator, Sequence


class _Process(multiprocessing.context.SpawnProcess):
  """A process that Ctrl-C does not reach: its parent ends it."""

  def start(self) -> None:
    # A child inherits the mask, from its first instruction on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
      super().start()
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(multiprocessing.context.SpawnContext):
  """Spawns processes: TensorStore's threads do not survive a fork."""

  Process = _Process


@contextlib.contextmanager
def processes(
  workers: int, modules: Sequence[str] = ()
) -> Iterator[concurrent.futures.Executor]:
  """Worker processes, which an exception in the body ends at once.

  Args:
    workers: number of processes.
    modules: Python modules that register modalities and regions of the cases;
      every worker imports them.
  """
  others = multiprocessing.active_children()
  with concurrent.futures.ProcessPoolExecutor(
    workers, _Context(), initializer=_start, initargs=(tuple(modules),)
  ) as pool:
    try:
      yield pool
    except BaseException:
      # Otherwise, leaving the pool waits for every submitted job.
      pool.shutdown(wait=False, cancel_futures=True)
      for child in multiprocessing.active_children():
        if child not in others:
          child.terminate()
      raise


def _start(modules: Sequence[str]) -> None:
  """Imports the modules; ends the worker if its parent dies."""
  for module in modules:
    importlib.import_module(module)
  parent = multiprocessing.parent_process()

  def wait():
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
