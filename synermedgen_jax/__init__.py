"""SynerMedGen in JAX: understand medical images, synthesise modalities."""

import sys

__version__ = '0.1.0'


def _quiet_interrupt(kind, error, traceback) -> None:
  """Prints one line for Ctrl-C, and other exceptions as usual."""
  if issubclass(kind, KeyboardInterrupt):
    print('Interrupted.', file=sys.stderr)
  else:
    sys.__excepthook__(kind, error, traceback)


# argv[0] is '-m' while `python -m` locates a command; its imports take seconds
# in which nothing else handles Ctrl-C.
if sys.argv[:1] == ['-m'] and sys.excepthook is sys.__excepthook__:
  sys.excepthook = _quiet_interrupt
