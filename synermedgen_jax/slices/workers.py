"""Worker processes that end with the process that started them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import itertools
import multiprocessing
import multiprocessing.context
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from synermedgen_jax.core.errors import UserError

Result = TypeVar('Result')


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


def run_jobs(
  function: Callable[..., Result],
  jobs: Iterable[tuple[str, tuple]],
  workers: int,
  modules: Sequence[str] = (),
) -> Iterator[tuple[str, Result]]:
  """Calls a function for every job in worker processes.

  Close the iterator (`contextlib.closing`) to end the workers early.

  Args:
    function: a function of a module.
    jobs: name of each job, and the arguments of the function.
    workers: number of processes, and of jobs that run at a time.
    modules: as in `processes`.

  Yields:
    Name and result of each job, in the order in which they are completed.

  Raises:
    UserError: a worker ended, lacked memory or could not start; the message
      names the jobs that ran.
  """
  jobs = iter(jobs)
  with processes(workers, modules) as pool:
    running: dict[concurrent.futures.Future, str] = {}
    while True:
      for name, args in itertools.islice(jobs, workers - len(running)):
        with _named_failures([*running.values(), name], workers):
          running[_submit(pool, function, args, workers)] = name
      if not running:
        return
      completed, _ = concurrent.futures.wait(
        running, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in completed:
        # A worker that ends breaks all jobs; otherwise this one has failed.
        broken = isinstance(future.exception(), BrokenProcessPool)
        names = [*running.values()] if broken else [running[future]]
        with _named_failures(names, workers):
          result = future.result()
        yield running.pop(future), result


def _submit(
  pool: concurrent.futures.Executor,
  function: Callable[..., Any],
  args: tuple,
  workers: int,
) -> concurrent.futures.Future:
  try:
    return pool.submit(function, *args)
  except OSError as error:
    raise UserError(
      f'--workers={workers}: a process cannot be started ({error.strerror}); '
      'use fewer.'
    ) from None


@contextlib.contextmanager
def _named_failures(names: Sequence[str], workers: int) -> Iterator[None]:
  """Turns failures of a worker into one line with the jobs that ran."""
  remedy = (
    'run the same command again with --workers=1'
    if workers > 1
    else 'reduce --canvas or use a machine with more memory'
  )
  jobs = ', '.join(sorted(names))
  try:
    yield
  except BrokenProcessPool:
    raise UserError(
      f'a worker process was ended while it worked on {jobs}, most likely '
      f'because memory ran out; {remedy}.'
    ) from None
  except MemoryError as error:
    detail = f' ({str(error).splitlines()[0]})' if str(error) else ''
    raise UserError(f'{jobs}: out of memory{detail}; {remedy}.') from None


def _start(modules: Sequence[str]) -> None:
  """Imports the modules; ends the worker if its parent dies."""
  for module in modules:
    importlib.import_module(module)
  parent = multiprocessing.parent_process()

  def wait():
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
