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
  """Adds a record to a file, which is complete after every call.

  Args:
    path: a file of JSON lines, or of a list if its suffix is .json; '' = none.
    record: JSON values.
  """
  if not path:
    return
  file = Path(path)
  file.parent.mkdir(parents=True, exist_ok=True)
  if file.suffix == '.json':
    records = json.loads(file.read_text()) if file.is_file() else []
    temporary = file.with_suffix('.tmp')
    temporary.write_text(json.dumps([*records, record], indent=1) + '\n')
    temporary.replace(file)
  else:
    with file.open('a', encoding='utf-8') as lines:
      lines.write(json.dumps(record) + '\n')
