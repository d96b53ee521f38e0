"""Times, memory and JSON lines, for JAX and for PyTorch."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Seconds(NamedTuple):
  """Medians of a call's times.

  Attributes:
    wall: elapsed time.
    cpu: CPU time of all threads of the process, on which other processes of the
      machine have less influence.
  """

  wall: float
  cpu: float


def median_seconds(
  function: Callable[[], Any],
  *,
  repeats: int,
  warmups: int = 0,
  wait: Callable[[Any], Any],
) -> Seconds:
  """Times calls one by one.

  Args:
    function: call to time.
    repeats: timed calls.
    warmups: calls before them, not timed.
    wait: returns when the device has finished what a call returned.
  """
  walls, cpus = [], []
  for _ in range(warmups):
    wait(function())
  for _ in range(repeats):
    wall, cpu = time.perf_counter(), time.process_time()
    wait(function())
    walls.append(time.perf_counter() - wall)
    cpus.append(time.process_time() - cpu)
  return Seconds(statistics.median(walls), statistics.median(cpus))


def process_peak_gb() -> float:
  """Peak resident memory of this process so far, GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def append_record(path: str, record: dict[str, Any]) -> None:
  """Appends one JSON line; an empty path writes nothing."""
  if not path:
    return
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  with Path(path).open('a', encoding='utf-8') as file:
    file.write(json.dumps(record) + '\n')
