"""The base class of errors that a user can fix."""

import contextlib
import os
from collections.abc import Iterator


class UserError(ValueError):
  """An error that the user can fix; commands print it without a traceback.

  The message is one line that names the file, key or flag and the remedy.
  """


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Adds the name of the file to an `OSError` that lacks it.

  A full disk is noticed when bytes are written, which does not know the name.
  """
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


class VolumeError(UserError):
  """A volume that cannot be read, used or written; one line naming the file."""
