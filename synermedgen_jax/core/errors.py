"""The base class of errors that a user can fix."""


class UserError(ValueError):
  """An error that the user can fix; commands print it without a traceback.

  The message is one line that names the file, key or flag and the remedy.
  """


class VolumeError(UserError):
  """A volume that cannot be read, used or written; one line naming the file."""
