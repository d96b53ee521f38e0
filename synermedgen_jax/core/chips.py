"""Memory and peak compute of accelerators, from their makers' data sheets.

TPUs: cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e. GPUs: the NVIDIA A100,
H100, H200 and B200 data sheets, SXM, dense.
"""

from __future__ import annotations

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator chip.

  Attributes:
    name: short name, as on flags.
    kind: `jax.Device.device_kind`, or a prefix of it.
    memory_gb: high-bandwidth memory, GB.
    tflops: peak bfloat16 rate, 10**12 floating-point operations per second.
  """

  name: str
  kind: str
  memory_gb: float
  tflops: float


V5E = Chip('v5e', 'TPU v5 lite', 16, 197)
V5P = Chip('v5p', 'TPU v5', 95, 459)
V6E = Chip('v6e', 'TPU v6 lite', 32, 918)
CHIPS = (
  V5E,
  V5P,
  V6E,
  Chip('v4', 'TPU v4', 32, 275),
  Chip('a100', 'NVIDIA A100', 80, 312),
  Chip('h100', 'NVIDIA H100', 80, 989),
  Chip('h200', 'NVIDIA H200', 141, 989),
  Chip('b200', 'NVIDIA B200', 180, 2250),
)


def chip_of(device: jax.Device) -> Chip | None:
  """Returns the chip of a device; None if it is not in `CHIPS`, as a CPU."""
  matches = [c for c in CHIPS if device.device_kind.startswith(c.kind)]
  # The longest prefix decides: 'TPU v5' is also a prefix of 'TPU v5 lite'.
  return max(matches, key=lambda chip: len(chip.kind), default=None)
