"""TPU slices by their accelerator types, and fake devices.

Sizes: cloud.google.com/tpu/docs, pages v5e, v5p, v6e.
"""

from __future__ import annotations

import dataclasses
import os
import re

import jax
from jax.experimental import topologies

from synermedgen_jax.core.chips import V5E, V5P, V6E, Chip
from synermedgen_jax.core.errors import UserError

# Accelerator type -> chip, and number of chips along each axis. The number in
# the name of a v5p counts TensorCores, two per chip.
SLICES = {
  **{
    f'v5e-{x * y}': (V5E, (x, y))
    for x, y in ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
  },
  **{
    f'v6e-{x * y}': (V6E, (x, y))
    for x, y in ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
  },
  **{
    f'v5p-{2 * x * y * z}': (V5P, (x, y, z))
    for x, y, z in (
      (2, 2, 1),
      (2, 2, 2),
      (2, 2, 4),
      (2, 4, 4),
      (4, 4, 4),
      (4, 4, 8),
      (4, 8, 8),
      (8, 8, 8),
    )
  },
}

# Environment of the TPU compiler on a host without TPUs: no query for metadata,
# and other processes may compile at the same time.
_COMPILER_ENVIRONMENT = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5p-8',
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices to compile for.

  Attributes:
    name: name of the topology, such as 'v5p-64' or 'cpu:8'.
    devices: abstract TPU devices, or fake devices of this host.
    chip: kind of the devices; None for fake ones.
  """

  name: str
  devices: tuple
  chip: Chip | None


def find_topology(name: str) -> Topology:
  """Returns the devices of a TPU slice, or N fake devices for `cpu:N`.

  Call this before JAX initialises its backends, since it sets their number of
  devices.

  Raises:
    UserError: the name is unknown, or the TPU compiler is not installed.
  """
  # Without this, a host with libtpu and no TPU waits long for one.
  jax.config.update('jax_platforms', 'cpu')
  fake = re.fullmatch(r'cpu:([1-9]\d*)', name)
  if fake:
    jax.config.update('jax_num_cpu_devices', int(fake[1]))
    return Topology(name, tuple(jax.devices()), None)
  if name not in SLICES:
    raise UserError(
      f'Unknown topology {name!r}: expected cpu:N or one of '
      f'{", ".join(SLICES)}.'
    )
  chip, sides = SLICES[name]
  shape = 'x'.join(map(str, sides))
  for variable, value in _COMPILER_ENVIRONMENT.items():
    os.environ.setdefault(variable, value)
  try:
    description = topologies.get_topology_desc(
      f'{chip.name}:{shape}', platform='tpu'
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(
      f'Cannot compile for {name}: {reason}. The compiler comes with '
      "pip install 'jax[tpu]'."
    ) from None
  return Topology(name, tuple(description.devices), chip)
