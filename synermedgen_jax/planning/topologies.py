"""TPU slices by the names under which they are rented, and fake devices.

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

# What is rented -> the chip, and how many of them lie along each axis. The
# number in a v5p's name counts its TensorCores, two to a chip.
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

# The compiler, on a host that is no TPU's, asks nobody what it is, and lets
# others compile beside it.
_NO_TPU_HERE = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5p-8',
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices to compile for.

  Attributes:
    name: as given.
    devices: stand-ins for TPU chips, or this host's fake devices.
    chip: what they are; None where they are fake.
  """

  name: str
  devices: tuple
  chip: Chip | None


def find_topology(name: str) -> Topology:
  """The devices called `name`: a TPU slice, or `cpu:N` for N fake ones.

  Call it before anything else asks jax for devices: their number is fixed
  once.

  Raises:
    UserError: there is no such slice, or no compiler for it is installed.
  """
  # A host that has the compiler for TPUs but none of them looks for them long.
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
  for variable, value in _NO_TPU_HERE.items():
    os.environ.setdefault(variable, value)
  try:
    found = topologies.get_topology_desc(f'{chip.name}:{shape}', platform='tpu')
  except (RuntimeError, ValueError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(
      f'Cannot compile for {name}: {reason}. The compiler comes with '
      "pip install 'jax[tpu]'."
    ) from None
  return Topology(name, tuple(found.devices), chip)
