"""The model that a config names: shape, computation, initial parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from etils.epath import Path
from flax import linen as nn
from ml_collections import ConfigDict

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.checkpoint.parameters import require_all
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.core.size import Size
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.models.bagel import init_params, parameter_names
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.presets import preset

# Parameters that the stage 'quantiser' adds to a model of the flow.
_NEW_CODES = ('quantiser/', 'llm2code/')
_DETAIL = ('detail/',)


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

  The model 'init_from' is whatever `config.init_from` holds. `config.experts`
  and `config.generation` may differ from it, if it has the parameters.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  if config.model == 'init_from' and not config.init_from:
    raise ConfigError(
      "config.model 'init_from' needs config.init_from: name a workdir."
    )
  saved = None
  if config.init_from:
    with key_errors('init_from'):
      start = weights_folder.local_folder(config.init_from)
      if weights_folder.holds_weights(start):
        saved = weights_folder.load_shape(start)
      else:
        saved = saved_model.load_shape(*_init_from(config))
  with key_errors('model'):
    model = saved if config.model == 'init_from' else preset(config.model)
  model = _variant(config, model)
  if saved and saved.detail not in (0, model.detail):
    raise ConfigError(
      f'config.detail {model.detail}: config.init_from {config.init_from} has '
      f'a detail path of {saved.detail} channels; set that number.'
    )
  if saved and _variant(config, saved) != model:
    raise ConfigError(
      f'config.init_from {config.init_from} holds a model of another shape '
      f'than config.model {config.model!r}.'
    )
  if saved and (lacking := _lacking(config, saved, model)):
    raise ConfigError(
      f'config.init_from {config.init_from} lacks {lacking[0]}, which '
      f'config.experts {config.experts!r} with config.generation '
      f'{config.generation!r} needs; start from another run.'
    )
  return model


def _variant(config: ConfigDict, model: BagelConfig) -> BagelConfig:
  """The model with `config.experts` and `config.generation`."""
  with key_errors('experts'):
    llm = dataclasses.replace(model.llm, experts=config.experts)
  with key_errors('generation'):
    model = dataclasses.replace(model, llm=llm, generation=config.generation)
  with key_errors('detail'):
    return dataclasses.replace(model, detail=config.detail)


def _lacking(
  config: ConfigDict, saved: BagelConfig, model: BagelConfig
) -> list[str]:
  """Parameters of `model` that are neither saved nor new in the stage."""
  if saved == model:
    return []
  new = _DETAIL + (_NEW_CODES if config.stage == 'quantiser' else ())
  known = parameter_names(saved)
  return [
    n
    for n in parameter_names(model)
    if n not in known and not n.startswith(new)
  ]


def initial_params(config: ConfigDict, model: BagelConfig) -> Any:
  """The parameters that a run starts from, nested; None for random ones.

  Args:
    config: config of a stage.
    model: its `model_shape`. Parameters that only `config.init_from` has are
      left out; those that it lacks are random.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  if not config.init_from:
    return None
  with key_errors('init_from'):
    start = weights_folder.local_folder(config.init_from)
    if weights_folder.holds_weights(start):
      saved, params = weights_folder.load_weights(start)
    else:
      folder, which = _init_from(config)
      saved, params = saved_model.load_model(folder, which=which)
    require_all(config.init_from, saved, params)
  if saved == model:
    return params
  flat, names = flatten(params), parameter_names(model)

  @jax.jit  # parameters that are not returned are not computed
  def new(key: jax.Array) -> dict[str, jax.Array]:
    random = flatten(nn.unbox(init_params(model, key)))
    return {name: random[name] for name in names if name not in flat}

  flat |= new(jax.random.key(config.seed))
  return unflatten({name: flat[name] for name in names})


def saved_config(config: ConfigDict) -> Mapping[str, Any]:
  """The shape that `config.init_from` holds, of whatever model, as JSON."""
  start = weights_folder.local_folder(config.init_from)
  if weights_folder.holds_weights(start):
    return dataclasses.asdict(weights_folder.load_shape(start))
  return saved_model.load_json(*_init_from(config))


def saved_params(config: ConfigDict) -> Any:
  """The parameters that `config.init_from` holds, of whatever model, nested."""
  start = weights_folder.local_folder(config.init_from)
  if weights_folder.holds_weights(start):
    return weights_folder.load_weights(start)[1]
  folder, which = _init_from(config)
  return saved_model.load_params(folder, which=which)


def _init_from(config: ConfigDict) -> tuple[Path, str]:
  """The folder of checkpoints to start from, and which one to read."""
  return Path(config.init_from) / 'checkpoints', str(config.init_step)
