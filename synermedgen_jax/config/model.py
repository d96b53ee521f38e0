"""The model that a config names: shape, computation, initial parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils.epath import Path
from ml_collections import ConfigDict

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.core.size import Size
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.presets import preset


def compute_of(config: Mapping[str, Any]) -> Compute:
  """The compute settings of `config.compute`.

  Args:
    config: a config, or one read back from a run's `config.json`.

  Raises:
    ConfigError: `config.compute` has an unknown key.
  """
  settings = dict(config['compute'])
  settings['attention'] = settings.get('attention') or None
  settings['remat'] = settings.get('remat') or 'full'
  try:
    return Compute(**settings)
  except TypeError as error:
    raise ConfigError(f'config.compute: {error}') from None


def image_size(config: Mapping[str, Any]) -> Size:
  """Height and width of the images that a run synthesises."""
  size = config['size'] if 'size' in config else config['image']['vae_size']
  return tuple(size)


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
      saved = weights_folder.load_shape(config.init_from)
    else:
      saved = saved_model.load_shape(*_init_from(config))
  if config.model == 'init_from':
    return saved
  with key_errors('model'):
    model = preset(config.model)
  if saved != model:
    raise ConfigError(
      f'config.init_from {config.init_from} holds a model of another shape '
      f'than config.model {config.model!r}.'
    )
  return model


def initial_params(config: ConfigDict) -> Any:
  """The parameters that a run starts from, nested; None for random ones.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  if not config.init_from:
    return None
  with key_errors('init_from'):
    if weights_folder.holds_weights(config.init_from):
      return weights_folder.load_weights(config.init_from)[1]
    folder, which = _init_from(config)
    return saved_model.load_model(folder, which=which)[1]


def saved_config(config: ConfigDict) -> Mapping[str, Any]:
  """The shape that `config.init_from` holds, of whatever model, as JSON."""
  if weights_folder.holds_weights(config.init_from):
    return dataclasses.asdict(weights_folder.load_shape(config.init_from))
  return saved_model.load_json(*_init_from(config))


def saved_params(config: ConfigDict) -> Any:
  """The parameters that `config.init_from` holds, of whatever model, nested."""
  if weights_folder.holds_weights(config.init_from):
    return weights_folder.load_weights(config.init_from)[1]
  folder, which = _init_from(config)
  return saved_model.load_params(folder, which=which)


def _init_from(config: ConfigDict) -> tuple[Path, str]:
  """The folder of checkpoints to start from, and which one to read."""
  return Path(config.init_from) / 'checkpoints', str(config.init_step)
