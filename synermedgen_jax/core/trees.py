"""Parameter trees, nested or flat: {'mot/layers/und/q_proj/kernel': array}."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import traverse_util

Flat = dict[str, jax.Array]


def flatten(params) -> Flat:
  """A nested tree of parameters as {'a/b/c': leaf}."""
  return traverse_util.flatten_dict(params, sep='/')


def unflatten(flat: Mapping[str, jax.Array]):
  """The inverse of `flatten`."""
  return traverse_util.unflatten_dict(flat, sep='/')
