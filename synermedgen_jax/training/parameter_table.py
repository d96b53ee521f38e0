"""The table of all parameters in the workdir of a run."""

from __future__ import annotations

import jax
from clu import parameter_overview
from etils.epath import Path

from synermedgen_jax.training.metrics_log import write_atomically
from synermedgen_jax.training.train_state import TrainState

FILE = 'parameters.txt'


def write_parameter_table(workdir: Path, state: TrainState) -> None:
  """Writes `parameters.txt`, in process 0 only.

  Args:
    workdir: folder of the run.
    state: the train state, or its shapes and shardings.

  Raises:
    WriteError: the file cannot be written.
  """
  if jax.process_index() == 0:
    write_atomically(workdir / FILE, parameter_table(state))


def parameter_table(state: TrainState) -> str:
  """Name, shape, dtype, size and sharding of every parameter.

  Trainable and frozen parameters have separate tables with totals.
  """
  parts = {'Trainable': state.trainable, 'Frozen': state.frozen}
  return '\n'.join(
    f'{title} parameters\n'
    + parameter_overview.get_parameter_overview(part, include_stats='sharding')
    + '\n'
    for title, part in parts.items()
  )
