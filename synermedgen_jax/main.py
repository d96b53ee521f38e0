"""Trains one stage of SynerMedGen.

  python -m synermedgen_jax.main --config=configs/stage1.py \\
      --config.init_from=RUN/bagel --config.store=STORE --workdir=RUN/stage1
  python -m synermedgen_jax.main --config=configs/stage2.py \\
      --config.init_from=RUN/stage1 --config.store=STORE --workdir=RUN/stage2

The config's stage chooses the objective: `autoencoder` (stage 0, for runs
without a pretrained VAE), `gau` (Stage I), `ucg` (Stage II) or `joint`.
configs/*.py have the paper's recipe; a name after a colon, as in
configs/stage1.py:base_1b, selects another model shape. configs/small and
configs/tiny train on phantoms and CPUs. Every key of a config can be set on the
command line.

Running the same command again resumes from the newest checkpoint. On SIGTERM,
training finishes the current step, saves a checkpoint and exits with status 75.

For training with several processes, start each with --distributed. JAX detects
their addresses on Cloud TPUs and under Slurm; elsewhere, set --coordinator,
--processes and --process. All processes need access to the same workdir.
"""

import os
import sys
from typing import NoReturn

import jax
from absl import flags
from etils.epath import Path
from ml_collections import config_flags

from synermedgen_jax.config.command_line import (
  UsageError,
  error_text,
  run_command,
)
from synermedgen_jax.training import loop
from synermedgen_jax.training.build import build
from synermedgen_jax.training.introduction import introduce
from synermedgen_jax.training.preemption import Preempted, listening

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file of the stage, such as configs/stage1.py[:MODEL].'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder for checkpoints, metrics and the config.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'Train together with other processes.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0. Default: detected by JAX.'
)
_PROCESSES = flags.DEFINE_integer(
  'processes', None, 'Number of processes. Default: detected by JAX.'
)
_PROCESS = flags.DEFINE_integer(
  'process', None, 'Index of this process, from 0. Default: detected by JAX.'
)


def _initialize_distributed() -> None:
  try:
    jax.distributed.initialize(
      _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
    )
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


def main() -> None:
  if _DISTRIBUTED.value:
    _initialize_distributed()
  try:
    with listening() as notice:
      run = build(_CONFIG.value)
      if jax.process_index() == 0:
        print(introduce(run), flush=True)
      loop.train(run, Path(_WORKDIR.value), notice)
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


if __name__ == '__main__':
  run_command(main, required=['config', 'workdir'])
