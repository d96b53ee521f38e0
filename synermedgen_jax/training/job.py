"""A training from its config to its exit, alone or with other processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import jax
from etils.epath import Path
from ml_collections import ConfigDict

from synermedgen_jax.config.command_line import UsageError, error_text
from synermedgen_jax.training import loop
from synermedgen_jax.training.build import build
from synermedgen_jax.training.introduction import introduce
from synermedgen_jax.training.preemption import Preempted, listening

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again


@dataclasses.dataclass(frozen=True)
class Processes:
  """How the processes of a training reach each other; None = JAX detects it.

  Attributes:
    coordinator: HOST:PORT of process 0.
    count: number of processes.
    index: index of this process, from 0.
  """

  coordinator: str | None
  count: int | None
  index: int | None

  def join(self) -> None:
    """Waits for the other processes; raises UsageError if none come."""
    try:
      jax.distributed.initialize(self.coordinator, self.count, self.index)
    except ValueError as error:
      raise UsageError(
        f'--distributed: {str(error).splitlines()[0]} Set --coordinator, '
        '--processes and --process.'
      ) from error
    except RuntimeError as error:  # the other processes did not come in time
      raise UsageError(
        f'--distributed: {str(error).splitlines()[0]} Start every process with '
        'the same --coordinator, which must be reachable.'
      ) from error


def train(
  config: ConfigDict, workdir: Path, processes: Processes | None = None
) -> None:
  """Trains the stage of a config, or resumes it, and prints the workdir.

  After a preemption, the process exits with `EXIT_PREEMPTED`.

  Args:
    config: the config of a stage.
    workdir: folder of the run.
    processes: the other processes; None = there are none.

  Raises:
    UsageError: the other processes cannot be reached.
    UserError: as `build` and `loop.train`.
  """
  if processes:
    processes.join()
  with _exits():
    with listening() as notice:
      run = build(config)
      if jax.process_index() == 0:
        print(introduce(run), flush=True)
      loop.train(run, workdir, notice)
    if jax.process_index() == 0:
      print(f'Trained. Evaluate: synermedgen evaluate --workdir={workdir}')
      print(workdir)


@contextlib.contextmanager
def _exits() -> Iterator[None]:
  """Exits after a preemption, and after an error that others cannot see."""
  try:
    yield
  except Preempted as preempted:
    print(preempted, file=sys.stderr)
    sys.exit(EXIT_PREEMPTED)
  except Exception as error:
    if jax.process_count() == 1:
      raise
    _exit_without_barrier(error)


def _exit_without_barrier(error: Exception) -> NoReturn:
  """Prints the error and exits with status 1, without the usual barrier.

  Other processes may wait for this one in a collective and would never reach
  the barrier.
  """
  print(error_text(error), file=sys.stderr, flush=True)
  os._exit(1)
