"""A model's shape as JSON, stored beside its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig

T = TypeVar('T')


def model_to_json(config: BagelConfig) -> dict[str, Any]:
  """The model's shape as plain JSON."""
  return dataclasses.asdict(config)


def model_from_json(data: Mapping[str, Any]) -> BagelConfig:
  """The inverse of `model_to_json`.

  Earlier files, which have a dtype, also say how weights were initialised and
  computed. Such keys do not change what the weights mean and are ignored.

  Raises:
    KeyError, TypeError: a key is missing, or not a part of the shape.
  """
  earlier = 'dtype' in data

  def read(shape: type[T], values: Mapping[str, Any]) -> T:
    if earlier:
      names = {field.name for field in dataclasses.fields(shape)}
      values = {key: x for key, x in values.items() if key in names}
    return shape(**values)

  autoencoder = {**data['autoencoder']}
  autoencoder['ch_mult'] = tuple(autoencoder['ch_mult'])
  parts = {
    'llm': read(MoTConfig, data['llm']),
    'vit': read(ViTConfig, data['vit']),
    'autoencoder': read(AutoencoderConfig, autoencoder),
  }
  return read(BagelConfig, {**data, **parts})
