"""The model that a config names: its shape and its initial parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils.epath import Path
from ml_collections import ConfigDict

from projects.small_base.new_words import start_as_known
from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.presets import preset


def with_compute(config: ConfigDict, model: BagelConfig) -> BagelConfig:
  """The same shape, computed as `config.compute` says."""
  compute = config.compute

  def ways(layers: int) -> dict[str, Any]:
    return {
      'remat': compute.remat,
      'attention': compute.attention or None,
      'unroll': min(compute.unroll, layers),
    }

  return dataclasses.replace(
    model,
    llm=dataclasses.replace(model.llm, **ways(model.llm.layers)),
    vit=dataclasses.replace(model.vit, **ways(model.vit.layers)),
    dtype=compute.dtype,
  )


def model_shape(config: ConfigDict) -> BagelConfig:
  """The shape of `config.model`, which `config.init_from` must share.

  The model 'init_from' is whatever `config.init_from` holds.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  if config.model == 'init_from' and not config.init_from:
    raise ConfigError(
      "config.model 'init_from' needs config.init_from: name a workdir."
    )
  if not config.init_from:
    with key_errors('model'):
      return preset(config.model)
  with key_errors('init_from'):
    if weights_folder.holds_weights(config.init_from):
      found = weights_folder.load_shape(config.init_from)
    else:
      found = saved_model.load_shape(*_init_from(config))
  if config.model == 'init_from':
    return found
  with key_errors('model'):
    model = preset(config.model)
  if _shape(found) != _shape(model):
    raise ConfigError(
      f'config.init_from {config.init_from} holds a model of another shape '
      f'than config.model {config.model!r}.'
    )
  return model


def initial_params(config: ConfigDict, tokenizer: Tokenizer) -> Any:
  """The parameters that a run starts from, nested; None for random ones.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  if not config.init_from:
    return None
  with key_errors('init_from'):
    if weights_folder.holds_weights(config.init_from):
      params = weights_folder.load_weights(config.init_from)[1]
    else:
      folder, which = _init_from(config)
      params = saved_model.load_model(folder, which=which)[1]
  with key_errors('new_words'):
    return start_as_known(params, tokenizer, config.new_words)


def _init_from(config: ConfigDict) -> tuple[Path, str]:
  """The folder of checkpoints to start from, and which one to read."""
  return Path(config.init_from) / 'checkpoints', str(config.init_step)


def _shape(model: BagelConfig) -> BagelConfig:
  """The model's shape alone, without how it is computed."""
  plain = {'dtype': 'float32', 'remat': 'none', 'attention': '', 'unroll': 1}
  return with_compute(ConfigDict({'compute': plain}), model)
