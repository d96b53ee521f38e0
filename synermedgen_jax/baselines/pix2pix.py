"""pix2pix (arXiv 1611.07004): a U-Net against a critic of pairs of patches.

Constants: junyanz/pytorch-CycleGAN-and-pix2pix, models/pix2pix_model.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from synermedgen_jax.baselines.adversarial import logistic
from synermedgen_jax.baselines.networks.patch_gan import PatchGAN
from synermedgen_jax.baselines.networks.pix2pix_unet import (
  Pix2PixUNet,
  Pix2PixUNetConfig,
)
from synermedgen_jax.baselines.system import (
  SIMULTANEOUS,
  Setting,
  System,
  constant,
  mean_term,
)


@dataclasses.dataclass(frozen=True)
class Pix2PixConfig:
  """Setting, generator, and channels of the critic's first convolution."""

  setting: Setting
  generator: Pix2PixUNetConfig
  critic_channels: int = 64


class Pix2Pix(System):
  """A generator, and a critic of (source, image)."""

  config: Pix2PixConfig
  title = 'pix2pix'
  weights: ClassVar = {'adversarial': 1.0, 'l1': 100.0, 'critic': 1.0}
  departures = (
    SIMULTANEOUS,
    'test: no dropout',
    'batch normalisation takes the statistics of each image in any batch',
    "augmentation is the run's, not a crop of 286 pixels",
  )

  @classmethod
  def preset(cls, name: str, setting: Setting) -> Pix2PixConfig:
    divisor = math.gcd(*setting.size)
    levels = (divisor & -divisor).bit_length() - 1  # halvings of both sides
    match name:
      case 'published':
        return Pix2PixConfig(setting, Pix2PixUNetConfig(min(levels, 8)))
      case 'small':
        generator = Pix2PixUNetConfig(min(levels, 6), channels=16)
        return Pix2PixConfig(setting, generator, critic_channels=16)
    raise ValueError(
      f'unknown preset {name!r} of pix2pix; expected published or small.'
    )

  def _generator(self) -> Pix2PixUNet:
    return Pix2PixUNet(self.config.generator, self.dtype)

  def _critic(self) -> PatchGAN:
    return PatchGAN('batch', self.config.critic_channels, self.dtype)

  def init_networks(self, keys):
    condition = self.example_condition()
    return {
      'generator': self._generator().init(
        keys[0], self.example(), train=False, condition=condition
      )['params'],
      'critic': self._critic().init(keys[1], self.example(2), condition)[
        'params'
      ],
    }

  def sums(self, params, batch, key):
    condition = self.condition(batch.source_ids, batch.target_ids)
    fake = self._generator().apply(
      {'params': params['generator']},
      batch.source,
      train=True,
      condition=condition,
      rngs={'dropout': key},
    )

    def judged(critic, image):
      x = jnp.concatenate([batch.source, image], axis=-1)
      return self._critic().apply({'params': critic}, x, condition)

    critic = params['critic']
    adversarial = logistic(judged(constant(critic), fake), real=True)
    on_real = logistic(judged(critic, batch.target), real=True)
    on_fake = logistic(judged(critic, constant(fake)), real=False)
    return {
      'adversarial': mean_term(adversarial),
      'l1': mean_term(jnp.abs(batch.target - fake)),
      'critic': mean_term((on_real + on_fake) / 2),
    }

  def synthesise(self, params, source, source_ids, target_ids, keys):
    del keys
    return self._generator().apply(
      {'params': params['generator']},
      source,
      train=False,
      condition=self.condition(source_ids, target_ids),
    )
