"""A clock that tests move."""


class Clock:
  """Seconds, as `time.monotonic` returns them."""

  now = 0.0

  def __call__(self):
    return self.now
