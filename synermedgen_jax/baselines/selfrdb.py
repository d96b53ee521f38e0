"""SelfRDB (arXiv 2405.06789): a bridge to a noisy source, with recursion.

Constants: icon-lab/SelfRDB, config.yaml and diffusion.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from synermedgen_jax.baselines.adversarial import penalty, softplus
from synermedgen_jax.baselines.networks.critic import Critic, CriticConfig
from synermedgen_jax.baselines.networks.ncsnpp import NCSNpp, NCSNppConfig
from synermedgen_jax.baselines.schedules import NoisyBridge
from synermedgen_jax.baselines.syndiff import SMALL_CRITIC, SMALL_DENOISER
from synermedgen_jax.baselines.system import (
  SIMULTANEOUS,
  Setting,
  System,
  constant,
  mean_term,
)

_BRIDGE = NoisyBridge()


@dataclasses.dataclass(frozen=True)
class SelfRDBConfig:
  """Setting and networks."""

  setting: Setting
  generator: NCSNppConfig
  critic: CriticConfig


class SelfRDB(System):
  """A network that estimates the target, twice in each step."""

  config: SelfRDBConfig
  title = 'SelfRDB'
  weights: ClassVar = {
    'adversarial': 1.0,
    'l1': 0.5,
    'critic': 1.0,
    'penalty': 0.5,
  }
  departures = (
    SIMULTANEOUS,
    'two recursions always, and gradients through the second alone',
    "the critic's real pairs are drawn from the posterior, not independently",
    'the gradient penalty applies with probability 0.1, not in every 10th step',
    'the rate decays once, to zero, not with a period of 100 steps',
    'L1 is a sum over the pixels of an image and a mean over a batch',
    'the penalty is on the gradient at the earlier image of a pair',
  )

  @classmethod
  def preset(cls, name: str, setting: Setting) -> SelfRDBConfig:
    match name:
      case 'published':
        critic = CriticConfig(channels=32)
        return SelfRDBConfig(setting, NCSNppConfig(), critic)
      case 'small':
        return SelfRDBConfig(setting, SMALL_DENOISER, SMALL_CRITIC)
    raise ValueError(
      f'unknown preset {name!r} of selfrdb; expected published or small.'
    )

  def _generator(self) -> NCSNpp:
    return NCSNpp(self.config.generator, self.dtype)

  def _critic(self) -> Critic:
    return Critic(self.config.critic, self.dtype)

  def init_networks(self, keys):
    planes, t = self.config.setting.planes, jnp.zeros(1)
    z = jnp.zeros((1, self.config.generator.noise))
    return {
      'generator': self._generator().init(
        keys[0], self.example(3 + planes), t, z
      )['params'],
      'critic': self._critic().init(keys[1], self.example(2), t)['params'],
    }

  def _estimate(self, params, x_t, told, t, z):
    """The estimate of the target after two recursions."""

    def once(last):
      x = jnp.concatenate([x_t, last, told], axis=-1)
      return self._generator().apply({'params': params['generator']}, x, t, z)

    return once(constant(once(jnp.zeros_like(x_t))))

  def sums(self, params, batch, key):
    keys = jax.random.split(key, 6)
    x0, y = batch.target, batch.source
    t = jax.random.randint(keys[0], (len(x0),), 1, _BRIDGE.steps + 1)
    x_t = _BRIDGE.noised(t, x0, y, jax.random.normal(keys[1], x0.shape))
    z = jax.random.normal(keys[2], (len(x0), self.config.generator.noise))
    told = self.told(y, batch.source_ids, batch.target_ids)
    predicted = self._estimate(params, x_t, told, t, z)
    real, fake = (
      _BRIDGE.step_back(t, x_t, clean, y, jax.random.normal(k, x0.shape))
      for clean, k in ((x0, keys[3]), (predicted, keys[4]))
    )

    def judged(critic, image):
      x = jnp.concatenate([image, x_t], axis=-1)
      return self._critic().apply({'params': critic}, x, t)

    critic = params['critic']
    error = jnp.abs(predicted - x0)  # summed over the pixels of an image
    return {
      'adversarial': mean_term(
        softplus(judged(constant(critic), fake), real=True)
      ),
      'l1': mean_term(error * math.prod(error.shape[1:])),
      'critic': mean_term(
        softplus(judged(critic, real), real=True)
        + softplus(judged(critic, constant(fake)), real=False)
      ),
      'penalty': mean_term(
        penalty(lambda image: judged(critic, image), real, keys[5])
      ),
    }

  def synthesise(self, params, source, source_ids, target_ids, keys):
    told = self.told(source, source_ids, target_ids)

    def normal(shape, number):
      return jax.vmap(
        lambda key: jax.random.normal(jax.random.fold_in(key, number), shape)
      )(keys)

    def step(x_t, t):
      z = normal((self.config.generator.noise,), 2 * t)
      clean = self._estimate(params, x_t, told, jnp.full(len(x_t), t), z)
      noise = normal(x_t.shape[1:], 2 * t + 1)
      return _BRIDGE.step_back(t, x_t, clean, source, noise), None

    start = _BRIDGE.noised(
      _BRIDGE.steps, jnp.zeros_like(source), source, normal(source.shape[1:], 0)
    )
    steps = jnp.arange(_BRIDGE.steps, 0, -1)
    return jnp.clip(lax.scan(step, start, steps)[0], -1.0, 1.0)
