"""SIGTERM, which announces that a machine will be preempted."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax


class Preempted(Exception):
  """Training stopped after SIGTERM and saved its last step; run it again."""


@contextlib.contextmanager
def listening() -> Iterator[threading.Event]:
  """Context in which SIGTERM sets an event instead of ending the process.

  With several processes, `jax.distributed` handles SIGTERM and the event is
  never set. Python delivers signals to the main thread only; in another thread
  the event is never set either.
  """
  notice = threading.Event()
  in_main = threading.current_thread() is threading.main_thread()
  if not in_main or jax.process_count() > 1:
    yield notice
    return

  before = signal.signal(signal.SIGTERM, lambda *_: notice.set())
  try:
    yield notice
  finally:
    signal.signal(signal.SIGTERM, before)
