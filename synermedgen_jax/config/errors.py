"""Errors of a config, each one line that names the key."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from ml_collections import ConfigDict

from synermedgen_jax.core.errors import UserError

T = TypeVar('T')


class ConfigError(UserError):
  """A config that cannot run; one line naming the key."""


@contextlib.contextmanager
def key_errors(key: str) -> Iterator[None]:
  """Turns errors of the block into a `ConfigError` that names `key`."""
  try:
    yield
  except (ValueError, OSError) as error:
    raise ConfigError(f'config.{key}: {error}') from error


def made_of(config: ConfigDict, key: str, make: Callable[..., T]) -> T:
  """Calls `make` with the entries of `config[key]` as keyword arguments.

  Raises:
    ConfigError: naming the key, where an entry is unknown or its value wrong.
  """
  try:
    return make(**config[key])
  except (TypeError, ValueError) as error:
    raise ConfigError(f'config.{key}: {error}') from error
