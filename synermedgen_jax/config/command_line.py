"""The flag --config, and errors of the command line."""

import sys

from absl import app, flags


class UsageError(ValueError):
  """Flags that contradict each other or the data; one line names the flag."""


def parse_config_flags(argv: list[str]) -> list[str]:
  """Parses the command line; exits with one line that names a missing key."""
  try:
    rest = app.parse_flags_with_usage(argv)
    # A file that is missing fails when it is read.
    config = flags.FLAGS['config'].value
    if config is not None:
      config.get('stage')
  except (AttributeError, KeyError) as error:
    reason = error.args[0]
    while isinstance(reason, Exception):
      reason = reason.args[0]
    key, _, hint = reason.partition('\n')
    if not any(key.strip("'") in a for a in argv if 'config.' in a):
      raise
    sys.exit(f'Error: the config has no key {key}. {hint}'.rstrip())
  except TypeError as error:
    if 'get_config()' not in str(error):
      raise
    sys.exit(
      'Error: --config: this file takes no word after a colon; --config.model '
      'names another model.'
    )
  except OSError as error:
    sys.exit(f'Error: --config: {str(error).splitlines()[-1].strip()}')
  return rest
