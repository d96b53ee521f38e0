"""Compiles a training step for devices that are not attached.

  python -m synermedgen_jax.compile --config=configs/stage2.py:bagel_7b \\
      --topology=v5p-64

Builds the training step of `main` from shapes, without data, weights or TPUs.
A topology is a TPU slice (v5e-64, v5p-64, v6e-64, ...; the number of a v5p
counts cores, two per chip) or `cpu:8` for fake devices of this host. Prints the
memory per device, the operations and communication of a step, and its time at
40 % of the peak rate. Every key of the config can be set, for example
--config.mesh='(2,32,1)' --config.rows=64. Exits with status 1 if the step does
not fit into memory.
"""

import json

from absl import flags
from ml_collections import config_flags

from synermedgen_jax.config.command_line import run_command

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, such as configs/stage1.py:bagel_7b.'
)
_TOPOLOGY = flags.DEFINE_string(
  'topology',
  None,
  'TPU slice to compile for, such as v5p-64, or cpu:N for N fake devices.',
)
_JSON = flags.DEFINE_bool(
  'json', False, 'Print one JSON object instead of text.'
)


def main() -> None:
  from synermedgen_jax.planning.plan import make_plan
  from synermedgen_jax.planning.tables import describe
  from synermedgen_jax.planning.topologies import find_topology

  plan = make_plan(_CONFIG.value, find_topology(_TOPOLOGY.value))
  print(json.dumps(plan.to_json()) if _JSON.value else describe(plan))


if __name__ == '__main__':
  run_command(main, required=['config', 'topology'])
