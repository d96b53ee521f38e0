"""The operations of a call that take most of the device's time."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def top_operations(
  call: Callable[[], Any], count: int = 20
) -> list[dict[str, Any]]:
  """Traces a call and adds up the time of every operation.

  Args:
    call: what to trace; it is compiled already.
    count: operations to return.

  Returns:
    'name' of the operation in the compiled program, 'seconds', and 'calls', the
    longest first. Operations that run at the same time count in full.
  """
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(call())
    (path,) = Path(folder).rglob('*.xplane.pb')
    profile = jax.profiler.ProfileData.from_file(str(path))
    seconds, calls = collections.Counter(), collections.Counter()
    for plane in profile.planes:
      for line in plane.lines:
        for event in line.events:
          name = dict(event.stats).get('hlo_op')
          if name:
            seconds[name] += event.duration_ns / 1e9
            calls[name] += 1
  return [
    {'name': name, 'seconds': time, 'calls': calls[name]}
    for name, time in seconds.most_common(count)
  ]
