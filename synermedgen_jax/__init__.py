"""SynerMedGen in JAX: understand medical images, synthesise modalities."""

import os
import signal
import sys

__version__ = '0.1.0'
EXIT_INTERRUPTED = 130  # as shells report SIGINT
EXIT_NO_READER = 141  # as shells report SIGPIPE


def _end(*_) -> None:
  """Ends at Ctrl-C with one line; no library can swallow that."""
  os.write(2, b'Interrupted.\n')
  os._exit(EXIT_INTERRUPTED)


def interrupt_ends_at_once() -> None:
  """Handles Ctrl-C while a command's imports take seconds and write nothing."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)


def interrupt_raises() -> None:
  """Restores KeyboardInterrupt, so that a command can clean up."""
  if signal.getsignal(signal.SIGINT) is _end:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# argv[0] is '-m' while `python -m` locates a command.
if sys.argv[:1] == ['-m']:
  interrupt_ends_at_once()
