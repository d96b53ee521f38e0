"""The base of all errors that a user can fix."""


class UserError(ValueError):
  """Something that the user can fix; commands print it without a traceback.

  The message is one line that names the file, key or flag and says what to do.
  """
