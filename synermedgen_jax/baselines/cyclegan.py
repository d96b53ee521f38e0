"""CycleGAN (arXiv 1703.10593): two generators learn from unpaired slices.

Constants: junyanz/pytorch-CycleGAN-and-pix2pix, models/cycle_gan_model.py.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from synermedgen_jax.baselines.adversarial import (
  exchange,
  least_squares,
  new_pool,
)
from synermedgen_jax.baselines.networks.patch_gan import PatchGAN
from synermedgen_jax.baselines.networks.resnet import ResnetGenerator
from synermedgen_jax.baselines.system import (
  SIMULTANEOUS,
  Setting,
  System,
  constant,
  mean_term,
)

_POOL = 50  # images


@dataclasses.dataclass(frozen=True)
class CycleGANConfig:
  """Setting; blocks and width of the generators; channels of the critics."""

  setting: Setting
  blocks: int = 9
  width: int = 64
  critic_channels: int = 64


class CycleGAN(System):
  """Generators and critics of the first and the second modality."""

  config: CycleGANConfig
  title = 'CycleGAN'
  paired = False
  pair = True
  weights: ClassVar = {
    'adversarial': 1.0,
    'cycle': 10.0,
    'identity': 5.0,
    'critic': 1.0,
  }
  departures = (
    SIMULTANEOUS,
    "augmentation is the run's, not a crop of 286 pixels",
  )
  used = ('to_first', 'to_second')
  carries = True

  @classmethod
  def preset(cls, name: str, setting: Setting) -> CycleGANConfig:
    match name:
      case 'published':
        return CycleGANConfig(setting)
      case 'small':
        return CycleGANConfig(setting, blocks=4, width=16, critic_channels=16)
    raise ValueError(
      f'unknown preset {name!r} of cyclegan; expected published or small.'
    )

  def _generator(self) -> ResnetGenerator:
    c = self.config
    return ResnetGenerator(c.blocks, c.width, dtype=self.dtype)

  def _critic(self) -> PatchGAN:
    return PatchGAN('instance', self.config.critic_channels, self.dtype)

  def init_networks(self, keys):
    x = self.example()
    generator = self._generator().init
    critic = self._critic().init
    return {
      'to_first': generator(keys[0], x)['params'],
      'to_second': generator(keys[1], x)['params'],
      'critic_first': critic(keys[2], x)['params'],
      'critic_second': critic(keys[3], x)['params'],
    }

  def initial_memory(self):
    shape = (*self.config.setting.size, 1)
    return {'first': new_pool(_POOL, shape), 'second': new_pool(_POOL, shape)}

  def sums(self, params, batch, key, memory):
    """Terms of the loss, summed over both directions, and the new pools.

    `batch.source` are images of the first modality, `batch.target` unrelated
    ones of the second.
    """
    real = {'first': batch.source, 'second': batch.target}

    def to(name, image):
      return self._generator().apply({'params': params[f'to_{name}']}, image)

    def judged(name, image, *, train_critic):
      critic = params[f'critic_{name}']
      critic = critic if train_critic else constant(critic)
      return self._critic().apply({'params': critic}, image)

    terms = dict.fromkeys(self.weights, 0.0)
    pools = {}
    for number, (name, other) in enumerate(
      [('first', 'second'), ('second', 'first')]
    ):
      fake = to(name, real[other])
      cycle = jnp.abs(to(other, fake) - real[other])
      same = jnp.abs(to(name, real[name]) - real[name])
      pools[name], shown = exchange(
        memory[name], constant(fake), jax.random.fold_in(key, number)
      )
      on_real = least_squares(judged(name, real[name], train_critic=True), True)
      on_fake = least_squares(judged(name, shown, train_critic=True), False)
      judgement = judged(name, fake, train_critic=False)
      terms['adversarial'] += least_squares(judgement, True)
      terms['cycle'] += cycle
      terms['identity'] += same
      terms['critic'] += (on_real + on_fake) / 2
    return {name: mean_term(term) for name, term in terms.items()}, pools

  def synthesise(self, params, source, source_ids, target_ids, keys):
    del source_ids, keys

    def to(name):
      return self._generator().apply({'params': params[name]}, source)

    return lax.cond(
      target_ids[0] == 0, lambda: to('to_first'), lambda: to('to_second')
    )
