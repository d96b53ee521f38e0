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
  """Raises errors of the block as a `ConfigError` that names `key`."""
  try:
    yield
  except (ValueError, OSError) as error:
    raise ConfigError(f'config.{key}: {error}') from None


def made_of(config: ConfigDict, key: str, make: Callable[..., T]) -> T:
  """What the parts of `config[key]` make, all of which it has to know."""
  try:
    return make(**config[key])
  except (TypeError, ValueError) as error:
    raise ConfigError(f'config.{key}: {error}') from None
