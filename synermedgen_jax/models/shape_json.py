"""A model's shape as JSON, stored beside its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig

# Keys of earlier files that say how weights were initialised or computed. They
# do not change what the weights mean, so they are ignored.
_FORMER = {
  'position_base',
  'latent_position_scale',
  'position_heads',
  'latent_query_scale',
  'comparison_heads',
  'dtype',
  'remat',
  'attention',
  'unroll',
}


def model_to_json(config: BagelConfig) -> dict[str, Any]:
  """The model's shape as plain JSON."""
  return dataclasses.asdict(config)


def model_from_json(data: Mapping[str, Any]) -> BagelConfig:
  """The inverse of `model_to_json`.

  Raises:
    KeyError, TypeError: a key is missing, or not a part of the shape.
  """
  autoencoder = {**data['autoencoder']}
  autoencoder['ch_mult'] = tuple(autoencoder['ch_mult'])
  parts = {
    'llm': MoTConfig(**_shape(data['llm'])),
    'vit': ViTConfig(**_shape(data['vit'])),
    'autoencoder': AutoencoderConfig(**autoencoder),
  }
  return BagelConfig(**_shape(data) | parts)


def _shape(data: Mapping[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in data.items() if key not in _FORMER}
