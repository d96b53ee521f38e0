"""The notice that a machine is about to be taken away: SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax


class Preempted(Exception):
  """Training stopped at a notice, its last step saved; start it again."""


@contextlib.contextmanager
def listening() -> Iterator[threading.Event]:
  """Within, SIGTERM sets the event instead of ending the process.

  Of several processes, `jax.distributed` hears it, and tells the others. And
  Python delivers signals to the main thread alone; elsewhere the event is
  never set.
  """
  notice = threading.Event()
  elsewhere = threading.current_thread() is not threading.main_thread()
  if elsewhere or jax.process_count() > 1:
    yield notice
    return

  before = signal.signal(signal.SIGTERM, lambda *_: notice.set())
  try:
    yield notice
  finally:
    signal.signal(signal.SIGTERM, before)
