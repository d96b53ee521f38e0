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

from absl import flags
from ml_collections import config_flags

from synermedgen_jax.config.command_line import UsageError, run_command
from synermedgen_jax.config.keys import describe, most_used

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file of the stage, such as configs/stage1.py[:MODEL].'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder for checkpoints, metrics and the config.'
)
_PRINT_CONFIG = flags.DEFINE_bool(
  'print_config',
  False,
  'Print every key of the config with its value and meaning; train nothing.',
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


def main() -> None:
  if _PRINT_CONFIG.value:
    if _CONFIG.value is None:
      raise UsageError('--print_config needs --config.')
    print(describe(_CONFIG.value))
    return
  from etils.epath import Path

  from synermedgen_jax.training.job import Processes, train

  processes = None
  if _DISTRIBUTED.value:
    processes = Processes(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  train(_CONFIG.value, Path(_WORKDIR.value), processes)


if __name__ == '__main__':
  run_command(
    main, required=['config', 'workdir'], unless='print_config', more=most_used
  )
