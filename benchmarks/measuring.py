"""Times, memory and JSON records of the benchmarks that run on JAX."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
  """The median time of a call, the device's work included."""
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function())
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def peak_gb() -> float:
  """Most memory in use so far: of the device, or of this process on a CPU."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    return stats['peak_bytes_in_use'] / 1e9
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def append_record(path: str, record: dict[str, Any]) -> None:
  """Appends a JSON line that names the device; '' writes nothing."""
  if not path:
    return
  device = {
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'jax': jax.__version__,
  }
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  with Path(path).open('a', encoding='utf-8') as file:
    file.write(json.dumps(record | device) + '\n')
