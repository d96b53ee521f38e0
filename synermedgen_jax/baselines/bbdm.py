"""BBDM (arXiv 2205.07680): a Brownian bridge from the source to the target.

In the latents of this project's autoencoder, or in pixels. Constants:
xuekt98/BBDM, configs/Template-LBBDM-f4.yaml.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from synermedgen_jax.baselines.networks.adm_unet import ADMUNet, ADMUNetConfig
from synermedgen_jax.baselines.schedules import BrownianBridge
from synermedgen_jax.baselines.system import (
  Setting,
  System,
  constant,
  mean_term,
)
from synermedgen_jax.models.autoencoder import Autoencoder, AutoencoderConfig

_BRIDGE = BrownianBridge()


@dataclasses.dataclass(frozen=True)
class BBDMConfig:
  """Setting, network, and the frozen autoencoder; None = in pixels."""

  setting: Setting
  generator: ADMUNetConfig
  autoencoder: AutoencoderConfig | None


class BBDM(System):
  """A network that predicts the way from a noised bridge to the target."""

  config: BBDMConfig
  weights: ClassVar = {'bridge': 1.0}
  frozen = ('autoencoder',)
  used = ('generator', 'autoencoder')

  @property
  def title(self) -> str:
    place = 'latents' if self.config.autoencoder else 'pixels'
    return f'BBDM in {place}'

  @property
  def departures(self) -> tuple[str, ...]:
    latents = "latents of this project's KL autoencoder, not of a VQGAN"
    return (
      *((latents,) if self.config.autoencoder else ()),
      'a constant learning rate; the loss of accumulated batches is a mean',
      'an average of the parameters from the first step',
    )

  @classmethod
  def preset(cls, name: str, setting: Setting) -> BBDMConfig:
    networks = {
      'published': ADMUNetConfig(),
      'small': ADMUNetConfig(channels=32, multipliers=(1, 2, 4), blocks=1),
    }
    key = name.removesuffix('_pixels')
    if key not in networks:
      raise ValueError(
        f'unknown preset {name!r} of bbdm; expected published or small, or one '
        'of these with the suffix _pixels.'
      )
    autoencoder = None if key != name else setting.autoencoder
    if key == name and autoencoder is None:
      raise ValueError(
        f'{name!r} of bbdm works in latents: name the weights of an '
        f'autoencoder (config.init_from), or take {name}_pixels.'
      )
    channels = autoencoder.z_channels if autoencoder else 1
    generator = dataclasses.replace(networks[key], out_channels=channels)
    return BBDMConfig(setting, generator, autoencoder)

  def _generator(self) -> ADMUNet:
    return ADMUNet(self.config.generator, self.dtype)

  def _autoencoder(self) -> Autoencoder:
    return Autoencoder(self.config.autoencoder, self.dtype)

  def init_networks(self, keys):
    c = self.config
    x = self.example()
    params = {}
    if c.autoencoder:
      x = self.example(c.autoencoder.channels)
      autoencoder = self._autoencoder()
      params['autoencoder'] = autoencoder.init(keys[1], x)['params']
      x = autoencoder.apply(
        {'params': params['autoencoder']}, x, method=Autoencoder.encode
      )
    x = self._network_input(x, x, *2 * [jnp.zeros(1, jnp.int32)])
    params['generator'] = self._generator().init(keys[0], x, jnp.zeros(1))[
      'params'
    ]
    return params

  def _encode(self, params, images):
    """The ends of the bridge: latents, or the pixels themselves."""
    if not self.config.autoencoder:
      return images
    channels = self.config.autoencoder.channels
    return constant(
      self._autoencoder().apply(
        {'params': params['autoencoder']},
        jnp.repeat(images, channels, axis=-1),
        method=Autoencoder.encode,
      )
    )

  def _decode(self, params, latents):
    if not self.config.autoencoder:
      return latents
    images = self._autoencoder().apply(
      {'params': params['autoencoder']}, latents, method=Autoencoder.decode
    )
    return images.mean(-1, keepdims=True)

  def _network_input(self, x_t, source, source_ids, target_ids):
    """In pixels, the source is a further channel ('concat' in BBDM)."""
    x = x_t
    if not self.config.autoencoder:
      x = jnp.concatenate([x_t, source], axis=-1)
    return self.told(x, source_ids, target_ids)

  def _predict(self, params, x_t, t, source, source_ids, target_ids):
    x = self._network_input(x_t, source, source_ids, target_ids)
    return self._generator().apply({'params': params['generator']}, x, t)

  def sums(self, params, batch, key):
    target = self._encode(params, batch.target)
    source = self._encode(params, batch.source)
    time_key, noise_key = jax.random.split(key)
    t = jax.random.randint(time_key, (len(target),), 0, _BRIDGE.steps)
    noise = jax.random.normal(noise_key, target.shape)
    predicted = self._predict(
      params,
      _BRIDGE.noised(t, target, source, noise),
      t,
      source,
      batch.source_ids,
      batch.target_ids,
    )
    error = predicted - _BRIDGE.target(t, target, source, noise)
    return {'bridge': mean_term(jnp.abs(error))}

  def synthesise(self, params, source, source_ids, target_ids, keys):
    end = self._encode(params, source)

    def step(x_t, number):
      t = jnp.asarray(_BRIDGE.visited)[number]
      predicted = self._predict(
        params,
        x_t,
        jnp.full(len(x_t), t),
        end,
        source_ids,
        target_ids,
      )
      noise = jax.vmap(
        lambda key: jax.random.normal(
          jax.random.fold_in(key, number), x_t.shape[1:]
        )
      )(keys)
      clean = _BRIDGE.clean(x_t, predicted)
      return _BRIDGE.step_back(number, x_t, clean, end, noise), None

    latents, _ = lax.scan(step, end, jnp.arange(len(_BRIDGE.visited)))
    return jnp.clip(self._decode(params, latents), -1.0, 1.0)

  def reconstruct(self, params, images):
    return self._decode(params, self._encode(params, images))
