"""A model's shape as JSON, which stands beside its parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig


def model_to_json(config: BagelConfig) -> dict[str, Any]:
  """The model's shape as plain JSON."""
  return dataclasses.asdict(config)


def model_from_json(data: dict[str, Any]) -> BagelConfig:
  """The inverse of `model_to_json`."""
  autoencoder = dict(data['autoencoder'])
  autoencoder['ch_mult'] = tuple(autoencoder['ch_mult'])
  return BagelConfig(
    **{
      **data,
      'llm': MoTConfig(**data['llm']),
      'vit': ViTConfig(**data['vit']),
      'autoencoder': AutoencoderConfig(**autoencoder),
    }
  )
