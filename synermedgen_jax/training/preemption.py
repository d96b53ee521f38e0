"""The notice that a machine is about to be taken away: SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax


class Preempted(Exception):
  """Training stopped at a notice, its last step saved; start it again."""


class Notice:
  """Whether the process was asked to end."""

  def __init__(self):
    self.came = False


@contextlib.contextmanager
def listening() -> Iterator[Notice]:
  """Within, SIGTERM is noted instead of ending the process.

  Of several processes, `jax.distributed` hears it, and tells the others. And
  Python delivers signals to the main thread alone; elsewhere none is noted.
  """
  notice = Notice()
  elsewhere = threading.current_thread() is not threading.main_thread()
  if elsewhere or jax.process_count() > 1:
    yield notice
    return

  def note(number, frame):
    notice.came = True

  before = signal.signal(signal.SIGTERM, note)
  try:
    yield notice
  finally:
    signal.signal(signal.SIGTERM, before)
