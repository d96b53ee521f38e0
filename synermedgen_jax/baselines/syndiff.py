"""SynDiff (arXiv 2207.08208): adversarial diffusion from unpaired slices.

Non-diffusive generators translate slices to pseudo-sources of the other
modality; diffusive ones learn to denoise a slice given its pseudo-source. At
test the diffusive one is given the true source.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from synermedgen_jax.baselines.adversarial import penalty, softplus
from synermedgen_jax.baselines.networks.critic import Critic, CriticConfig
from synermedgen_jax.baselines.networks.ncsnpp import NCSNpp, NCSNppConfig
from synermedgen_jax.baselines.networks.patch_gan import PatchGAN
from synermedgen_jax.baselines.networks.resnet import ResnetGenerator
from synermedgen_jax.baselines.schedules import VPSchedule
from synermedgen_jax.baselines.system import (
  SIMULTANEOUS,
  Setting,
  System,
  constant,
  mean_term,
)

_SCHEDULE = VPSchedule()


@dataclasses.dataclass(frozen=True)
class SynDiffConfig:
  """Setting; diffusive networks; width and blocks of the others."""

  setting: Setting
  denoiser: NCSNppConfig
  critic: CriticConfig
  width: int = 64
  blocks: int = 6


class SynDiff(System):
  """Denoisers, generators and critics of the first and the second modality."""

  config: SynDiffConfig
  title = 'SynDiff'
  paired = False
  pair = True
  weights: ClassVar = {
    'adversarial': 1.0,
    'cycle_adversarial': 1.0,
    'l1': 0.5,
    'cycle': 0.5,
    'critic': 1.0,
    'penalty': 0.5,
  }
  departures = (
    SIMULTANEOUS,
    'the gradient penalty applies with probability 0.1, not in every 10th step',
    'critics are averaged as well, which has no effect',
    'the rate ends at zero',
  )
  used = ('denoiser_first', 'denoiser_second')

  @classmethod
  def preset(cls, name: str, setting: Setting) -> SynDiffConfig:
    match name:
      case 'published':
        return SynDiffConfig(setting, NCSNppConfig(), CriticConfig())
      case 'small':
        return SynDiffConfig(
          setting, SMALL_DENOISER, SMALL_CRITIC, width=16, blocks=4
        )
    raise ValueError(
      f'unknown preset {name!r} of syndiff; expected published or small.'
    )

  def _denoiser(self) -> NCSNpp:
    return NCSNpp(self.config.denoiser, self.dtype)

  def _critic(self) -> Critic:
    return Critic(self.config.critic, self.dtype)

  def _generator(self) -> ResnetGenerator:
    c = self.config
    return ResnetGenerator(c.blocks, c.width, dtype=self.dtype)

  def _patch_critic(self) -> PatchGAN:
    return PatchGAN('instance', self.config.width, self.dtype)

  def init_networks(self, keys):
    one, two, t = self.example(1), self.example(2), jnp.zeros(1)
    z = jnp.zeros((1, self.config.denoiser.noise))
    params = {}
    for i, name in enumerate(('first', 'second')):
      params |= {
        f'denoiser_{name}': self._denoiser().init(keys[i], two, t, z),
        f'critic_{name}': self._critic().init(keys[2 + i], two, t),
        f'to_{name}': self._generator().init(keys[4 + i], one),
        f'critic_cycle_{name}': self._patch_critic().init(keys[6 + i], one),
      }
    return {name: variables['params'] for name, variables in params.items()}

  def sums(self, params, batch, key):
    """Terms of the loss, summed over both modalities.

    `batch.source` are images of the first modality, `batch.target` unrelated
    ones of the second.
    """
    real = {'first': batch.source, 'second': batch.target}
    terms = dict.fromkeys(self.weights, 0.0)
    for number, (name, other) in enumerate(
      [('first', 'second'), ('second', 'first')]
    ):
      pseudo = self._translated(params, other, real[name])
      there_and_back = self._translated(params, name, pseudo)
      terms['cycle'] += jnp.abs(there_and_back - real[name])
      for term, values in self._cycle_terms(
        params[f'critic_cycle_{other}'], real[other], pseudo
      ).items():
        terms[term] += values
      for term, values in self._diffusion_terms(
        params, name, real[name], pseudo, jax.random.fold_in(key, number)
      ).items():
        terms[term] += values
    return {name: mean_term(term) for name, term in terms.items()}

  def _translated(self, params, name, image):
    return self._generator().apply({'params': params[f'to_{name}']}, image)

  def _cycle_terms(self, critic, real, fake):
    def loss(critic, image, real):
      patches = self._patch_critic().apply({'params': critic}, image)
      return softplus(patches, real=real).mean((1, 2, 3))

    return {
      'cycle_adversarial': loss(constant(critic), fake, real=True),
      'critic': loss(critic, real, real=True)
      + loss(critic, constant(fake), real=False),
    }

  def _diffusion_terms(self, params, name, x0, pseudo, key):
    keys = jax.random.split(key, 6)
    count = len(x0)
    t = jax.random.randint(keys[0], (count,), 0, _SCHEDULE.steps)
    noises = [jax.random.normal(k, x0.shape) for k in keys[1:4]]
    x_t, x_next = _SCHEDULE.noised_pair(t, x0, *noises[:2])
    z = jax.random.normal(keys[4], (count, self.config.denoiser.noise))
    predicted = self._denoiser().apply(
      {'params': params[f'denoiser_{name}']},
      jnp.concatenate([x_next, pseudo], axis=-1),
      t,
      z,
    )
    fake = _SCHEDULE.step_back(t, x_next, predicted, noises[2])
    critic = params[f'critic_{name}']

    def judged(critic, image):
      x = jnp.concatenate([image, x_next], axis=-1)
      return self._critic().apply({'params': critic}, x, t)

    return {
      'adversarial': softplus(judged(constant(critic), fake), real=True),
      'l1': jnp.abs(predicted - x0).mean((1, 2, 3)),
      'critic': softplus(judged(critic, x_t), real=True)
      + softplus(judged(critic, constant(fake)), real=False),
      'penalty': penalty(lambda image: judged(critic, image), x_t, keys[5]),
    }

  def synthesise(self, params, source, source_ids, target_ids, keys):
    del source_ids

    def from_network(name):
      return _sampled(
        lambda x, t, z: self._denoiser().apply(
          {'params': params[name]}, jnp.concatenate([x, source], -1), t, z
        ),
        source,
        keys,
        self.config.denoiser.noise,
      )

    return lax.cond(
      target_ids[0] == 0,
      lambda: from_network('denoiser_first'),
      lambda: from_network('denoiser_second'),
    )


def _sampled(denoise, source, keys, latents):
  """Images from noise, in four steps."""

  def normal(shape, number):
    return jax.vmap(
      lambda key: jax.random.normal(jax.random.fold_in(key, number), shape)
    )(keys)

  def step(x, t):
    z = normal((latents,), 3 * t)
    clean = denoise(x, jnp.full(len(x), t), z)
    noise = normal(x.shape[1:], 3 * t + 1)
    return _SCHEDULE.step_back(t, x, clean, noise), None

  start = normal(source.shape[1:], 3 * _SCHEDULE.steps)
  steps = jnp.arange(_SCHEDULE.steps - 1, -1, -1)
  return jnp.clip(lax.scan(step, start, steps)[0], -1.0, 1.0)


SMALL_DENOISER = NCSNppConfig(
  channels=16,
  multipliers=(1, 2, 2),
  blocks=1,
  attention_levels=(2,),
  style=64,
  time=64,
)
SMALL_CRITIC = CriticConfig(channels=8, down_blocks=4, time=64)
