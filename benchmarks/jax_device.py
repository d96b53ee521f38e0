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


def product_rate(dtype: str) -> float:
  """Operations per second of a product of two large matrices, on one device."""
  side = 2048 if jax.default_backend() == 'cpu' else 8192
  x = jax.random.normal(jax.random.key(0), (side, side), dtype)
  product = jax.jit(lambda x: x @ x)
  times = seconds(lambda: product(x), repeats=10, warmups=1)
  return 2 * side**3 / times.wall


def description() -> dict[str, str | int]:
  """Keys of a record that describe the devices."""
  return {
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'jax': jax.__version__,
  }
