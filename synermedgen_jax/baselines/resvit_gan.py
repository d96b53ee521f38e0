"""ResViT (arXiv 2106.16031): residual transformers against a patch critic.

Trained in two stages: the CNN alone (presets with the suffix _cnn), then all of
it, from the CNN's parameters. Constants: icon-lab/ResViT, models/resvit_one.py.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from synermedgen_jax.baselines.adversarial import least_squares
from synermedgen_jax.baselines.networks.patch_gan import PatchGAN
from synermedgen_jax.baselines.networks.resvit import ResViT, ResViTConfig
from synermedgen_jax.baselines.system import (
  SIMULTANEOUS,
  Setting,
  System,
  constant,
  mean_term,
)


@dataclasses.dataclass(frozen=True)
class ResViTGANConfig:
  """Setting, generator, and channels of the critic's first convolution."""

  setting: Setting
  generator: ResViTConfig
  critic_channels: int = 64


class ResViTGAN(System):
  """A generator, and a critic of (source, image)."""

  config: ResViTGANConfig
  title = 'ResViT (ViT from scratch)'
  weights: ClassVar = {'adversarial': 1.0, 'l1': 100.0, 'critic': 1.0}
  departures = (
    SIMULTANEOUS,
    'the vision transformer starts from random weights, not from ImageNet',
    'test: no dropout',
    'batch normalisation takes the statistics of each image in any batch',
  )

  stages: ClassVar = {'_cnn': 2 / 3, '': 1 / 3}

  @classmethod
  def preset(cls, name: str, setting: Setting) -> ResViTGANConfig:
    small = ResViTConfig(
      width=16, blocks=6, vit_layers=4, vit_hidden=192, vit_heads=4, vit_mlp=384
    )
    networks = {'published': (ResViTConfig(), 64), 'small': (small, 16)}
    key = name.removesuffix('_cnn')
    if key not in networks:
      raise ValueError(
        f'unknown preset {name!r} of resvit; expected published or small, or '
        'one of these with the suffix _cnn for the first stage.'
      )
    generator, channels = networks[key]
    if key != name:
      generator = dataclasses.replace(generator, transformers=False)
    return ResViTGANConfig(setting, generator, channels)

  def _generator(self) -> ResViT:
    return ResViT(self.config.generator, self.dtype)

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
    on_real = least_squares(judged(critic, batch.target), real=True)
    on_fake = least_squares(judged(critic, constant(fake)), real=False)
    return {
      'adversarial': mean_term(
        least_squares(judged(constant(critic), fake), real=True)
      ),
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
