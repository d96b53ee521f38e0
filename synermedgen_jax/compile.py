"""Compiles a training step for devices that are not there, and says its cost.

  python -m synermedgen_jax.compile --config=configs/stage2.py:bagel_7b \\
      --topology=v5p-64

Builds the very step of `main` from shapes alone: no data, no weights, no TPU.
Topologies are TPU slices by the names under which they are rented (v5e-64,
v5p-64, v6e-64, ...; a v5p's number counts two cores a chip), or `cpu:8` for
fake devices of this host. Prints the memory of a chip by kind, operations,
what the chips send one another, and the time of a step that follows from the
peak rate at 40 % utilisation. Every key of the config can be set, for example
--config.mesh='(2,32,1)' --config.rows=64. Exits with 1 where the step does
not fit.
"""

import json

from absl import flags
from ml_collections import config_flags

from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.planning.plan import make_plan
from synermedgen_jax.planning.tables import describe
from synermedgen_jax.planning.topologies import find_topology

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'The stage: configs/stage1.py:bagel_7b and its like.'
)
_TOPOLOGY = flags.DEFINE_string(
  'topology', None, 'A TPU slice, as v5p-64, or cpu:N.'
)
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object instead.')


def main() -> None:
  plan = make_plan(_CONFIG.value, find_topology(_TOPOLOGY.value))
  print(json.dumps(plan.to_json()) if _JSON.value else describe(plan))


if __name__ == '__main__':
  run_command(main, required=['config', 'topology'])
