"""The parts of a config that all runs share: optimiser, rate and loop."""

from __future__ import annotations

import re

import flax.linen as nn
import optax
from ml_collections import ConfigDict

from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.core import trees
from synermedgen_jax.training import optim
from synermedgen_jax.training.loop import LoopConfig
from synermedgen_jax.training.train_state import Model


def loop_config(config: ConfigDict, step_utilisation: float) -> LoopConfig:
  return LoopConfig(
    steps=config.steps,
    rate=_learning_rate(config),
    log_every=config.log_every,
    checkpoint_every=config.checkpoint_every,
    val_every=config.val_every,
    keep=config.keep,
    keep_every=config.keep_every,
    best=config.best,
    max_bad_steps=config.max_bad_steps,
    profile_start=config.profile.start,
    profile_steps=config.profile.steps,
    step_utilisation=step_utilisation,
  )


def optimiser(
  config: ConfigDict, model: Model
) -> tuple[dict[str, float], optax.GradientTransformation]:
  """The learning-rate multiplier of every parameter, and the optimiser."""
  names = trees.flatten(nn.unbox(model.abstract_params())).keys()
  rate = _learning_rate(config)
  try:
    scales = optim.multipliers(names, tuple(map(tuple, config.trainable)))
    return scales, optim.optimizer(
      rate,
      scales,
      name=config.optimizer,
      b1=config.b1,
      b2=config.b2,
      eps=config.eps,
      weight_decay=config.weight_decay,
      clip=config.clip,
    )
  except re.error as error:
    raise ConfigError(f'config.trainable: {error}.') from None
  except ValueError as error:
    raise ConfigError(str(error)) from None


def _learning_rate(config: ConfigDict) -> optax.Schedule:
  """The learning rate by step."""
  try:
    return optim.schedule(
      config.learning_rate, config.warmup, config.steps, config.decay
    )
  except ValueError as error:
    raise ConfigError(str(error)) from None
