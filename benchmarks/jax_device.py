"""Name and peak memory of JAX's device, and times of calls on it."""

from __future__ import annotations

import functools

import jax

from benchmarks.measuring import median_seconds, process_peak_gb

seconds = functools.partial(median_seconds, wait=jax.block_until_ready)


def peak_gb() -> float:
  """Peak memory so far, GB: of the device, or of this process on a CPU."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    return stats['peak_bytes_in_use'] / 1e9
  return process_peak_gb()


def description() -> dict[str, str | int]:
  """Keys of a record that describe the devices."""
  return {
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'jax': jax.__version__,
  }
