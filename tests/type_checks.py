"""Checks shapes and types of arrays that the package annotates."""

import typing

import jaxtyping
from beartype import beartype


def check(function):
  """Checks the annotations with shapes; tests pass fakes for other types."""
  function.__annotations__ = {
    name: hint
    for name, hint in function.__annotations__.items()
    if _has_shape(hint)
  }
  return beartype(function)


def _has_shape(hint) -> bool:
  if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
    return True
  return any(map(_has_shape, typing.get_args(hint)))
