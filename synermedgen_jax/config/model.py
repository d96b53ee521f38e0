"""The model that a config names: its shape and its initial parameters."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from etils.epath import Path
from ml_collections import ConfigDict

from projects.small_base.new_words import start_as_known
from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.input.tokenizer import Tokenizer, load_tokenizer
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.presets import preset


def with_compute(config: ConfigDict, model: BagelConfig) -> BagelConfig:
  """The same model with the remat and attention of the config."""
  ways = {key: config[key] for key in ('remat', 'attention') if config.get(key)}
  return dataclasses.replace(
    model,
    llm=dataclasses.replace(model.llm, **ways),
    vit=dataclasses.replace(model.vit, **ways),
  )


def starting_point(config: ConfigDict) -> tuple[BagelConfig, Any]:
  """The model's shape, and the parameters of `config.init_from` if any.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  with key_errors('tokenizer'):
    tokenizer = load_tokenizer(config.tokenizer)
  return model_shape(config), initial_params(config, tokenizer)


def model_shape(config: ConfigDict) -> BagelConfig:
  """The model's shape, which `config.init_from` has to have too.

  The model 'init_from' is whatever `config.init_from` holds.
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
  """The parameters that a run begins with; None = random ones."""
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
  """The checkpoints to start from, and which of them."""
  return Path(config.init_from) / 'checkpoints', str(config.init_step)


def _shape(model: BagelConfig) -> BagelConfig:
  """The model, however it is computed."""
  plain = ConfigDict({'remat': 'none', 'attention': 'xla'})
  return with_compute(plain, model)


def check_tokenizer(config: ConfigDict) -> None:
  """Refuses a tokenizer whose ids differ from those of `config.init_from`."""
  path = Path(config.init_from) / 'config.json'
  if not config.init_from or not path.is_file():
    return
  name = json.loads(path.read_text())['config']['tokenizer']
  if (name == 'project') != (config.tokenizer == 'project'):
    raise ConfigError(
      f'config.tokenizer {config.tokenizer!r} is not that of config.init_from '
      f'{config.init_from}, {name!r}.'
    )
