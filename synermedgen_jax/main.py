"""Trains one stage of SynerMedGen.

  python -m synermedgen_jax.main --config=configs/stage1.py \\
      --config.init_from=RUN/bagel --config.store=STORE --workdir=RUN/stage1
  python -m synermedgen_jax.main --config=configs/stage2.py \\
      --config.init_from=RUN/stage1 --config.store=STORE --workdir=RUN/stage2

The config's stage chooses the objective: `autoencoder` (stage 0, for runs
without a pretrained VAE), `gau` (Stage I), `ucg` (Stage II) or `joint`.
configs/*.py hold the paper's recipe; a word after the colon, as in
configs/stage1.py:base_1b, names another shape of the model. configs/small and
configs/tiny train on phantoms and CPUs. Every key of a config can be set on the
command line.

The same command again resumes from the newest checkpoint. On SIGTERM, the
current step is finished and saved, and the exit status is 75.

Several processes train as one when each is started with --distributed. On
Cloud TPUs and under Slurm they find one another; elsewhere --coordinator,
--processes and --process identify them. All of them see the same workdir.
"""

import os
import sys
import traceback
from typing import NoReturn

import jax
from absl import app, flags, logging
from etils.epath import Path
from ml_collections import config_flags

from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.config.command_line import parse_config_flags
from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.input.pipeline import ExampleTooLarge
from synermedgen_jax.interop.image_files import FormatError
from synermedgen_jax.slices.store import StoreError
from synermedgen_jax.training import loop
from synermedgen_jax.training.build import build
from synermedgen_jax.training.incidents import BadStepsError
from synermedgen_jax.training.introduction import introduce
from synermedgen_jax.training.metrics_log import WriteError
from synermedgen_jax.training.preemption import Preempted, listening

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again

# Printed as one line, without a traceback.
_USER_ERRORS = (
  ConfigError,
  StoreError,
  CheckpointError,
  WriteError,
  BadStepsError,
  ExampleTooLarge,
  FormatError,
)

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'The stage: a file such as configs/stage1.py[:MODEL].'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'The folder for checkpoints, metrics and the config.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'This is one of several processes that train as one.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0. Default: JAX finds it.'
)
_PROCESSES = flags.DEFINE_integer(
  'processes', None, 'Number of processes. Default: JAX finds it.'
)
_PROCESS = flags.DEFINE_integer(
  'process', None, 'Number of this process, from 0. Default: JAX finds it.'
)


def _initialize_distributed() -> None:
  try:
    jax.distributed.initialize(
      _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
    )
  except (ValueError, RuntimeError) as error:
    sys.exit(
      f'Error: --distributed: {str(error).splitlines()[0]} Give --coordinator, '
      '--processes and --process.'
    )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    sys.exit(f'Unexpected argument {argv[1]!r}: options begin with --.')
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax logs every file it writes
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
  except _USER_ERRORS as error:
    _exit_without_barrier(f'Error: {error}')
  except Exception:
    if jax.process_count() == 1:
      raise
    _exit_without_barrier(traceback.format_exc())


def _exit_without_barrier(why: str) -> NoReturn:
  """Exits with status 1, without waiting for other processes.

  They may be in the middle of a step that this one will never join, and would
  never reach the barrier of the usual exit.
  """
  if jax.process_count() == 1:
    sys.exit(why)
  print(why, file=sys.stderr, flush=True)
  os._exit(1)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=parse_config_flags)
