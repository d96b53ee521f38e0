"""Trains one stage of SynerMedGen.

  python -m synermedgen_jax.main --config=configs/autoencoder.py:tiny \\
      --config.store=runs/demo/store --workdir=runs/tiny/autoencoder
  python -m synermedgen_jax.main --config=configs/stage1.py:tiny \\
      --config.store=runs/demo/store --workdir=runs/tiny/stage1 \\
      --config.init_from=runs/tiny/autoencoder
  python -m synermedgen_jax.main --config=configs/stage2.py:tiny \\
      --config.store=runs/demo/store --workdir=runs/tiny/stage2 \\
      --config.init_from=runs/tiny/stage1

The config's stage chooses the objective: `autoencoder` (stage 0, for runs
without a pretrained VAE), `gau` (Stage I), `ucg` (Stage II) or `joint`. The
name after the colon is a model preset. Every key of a config can be set on the
command line. The same command again resumes from the newest checkpoint; on
SIGTERM, the step at hand is finished and saved, and the exit status is 75.

Several processes train as one when each is started with --distributed: on
Cloud TPUs and under Slurm they find one another; elsewhere --coordinator,
--processes and --process say who is who. All of them see the same workdir.
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
from synermedgen_jax.training import run
from synermedgen_jax.training.preemption import Preempted, listening

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'The stage: configs/stage1.py[:PRESET] and its like.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where checkpoints, metrics and the config go.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'One of several processes that train as one.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0; default: found by JAX.'
)
_PROCESSES = flags.DEFINE_integer(
  'processes', None, 'How many processes; default: found by JAX.'
)
_PROCESS = flags.DEFINE_integer(
  'process', None, 'Which one this is, from 0; default: found by JAX.'
)


def _join_the_others() -> None:
  try:
    jax.distributed.initialize(
      _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
    )
  except (ValueError, RuntimeError) as error:
    raise UsageError(
      f'--distributed: {str(error).splitlines()[0]} Give --coordinator, '
      '--processes and --process.'
    ) from None


def main() -> None:
  if _DISTRIBUTED.value:
    _join_the_others()
  try:
    with listening() as notice:
      run.train(_CONFIG.value, Path(_WORKDIR.value), notice)
  except Preempted as preempted:
    print(preempted, file=sys.stderr)
    sys.exit(EXIT_PREEMPTED)
  except Exception as error:
    if jax.process_count() == 1:
      raise
    _exit_without_barrier(error)


def _exit_without_barrier(error: Exception) -> NoReturn:
  """Prints the error and exits with status 1 at once.

  The usual exit waits for all processes, but the others may wait for this one
  in the middle of a step.
  """
  print(error_text(error), file=sys.stderr, flush=True)
  os._exit(1)


if __name__ == '__main__':
  run_command(main, required=['config', 'workdir'])
