"""Regression with the U-Net of nnU-Net: the target's mean or median image.

As in nnsyn (aehrc/nnsyn), which won SynthRAD2025's task 1 with its 3-D form.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp

from synermedgen_jax.baselines.system import Setting, System, mean_term
from synermedgen_jax.models.unet import UNet, UNetConfig


@dataclasses.dataclass(frozen=True)
class UNetRegressionConfig:
  """Setting, network, and error: 'l1' (absolute) or 'l2' (squared)."""

  setting: Setting
  generator: UNetConfig
  loss: Literal['l1', 'l2'] = 'l1'


class UNetRegression(System):
  """A U-Net that predicts the target in one pass."""

  config: UNetRegressionConfig
  title = 'U-Net regression (nnU-Net style, 2-D)'
  weights: ClassVar = {'l1': 1.0, 'l2': 1.0}
  departures = (
    '2-D slices, and whole slices instead of patches',
    "intensities are the store's windows, not z-scores",
  )

  @classmethod
  def preset(cls, name: str, setting: Setting) -> UNetRegressionConfig:
    loss = 'l2' if name.endswith('_l2') else 'l1'
    networks = {
      'published': UNetConfig(stages=7),
      # ResEnc-L, of nnU-Net's residual encoders.
      'resenc': UNetConfig(
        stages=7, residual_blocks=(1, 3, 4, 6, 6, 6, 6), decoder=1
      ),
      # Instance norms discard the levels of channels.
      'small': UNetConfig(
        stages=4,
        width=16,
        widest=128,
        group_size=16,
        residual_blocks=(1, 1, 1, 1),
        decoder='residual',
        bare_shortcuts=True,
      ),
    }
    key = name.removesuffix('_l2')
    if key not in networks:
      raise ValueError(
        f'unknown preset {name!r} of unet; expected {", ".join(networks)}, or '
        'one of these with the suffix _l2.'
      )
    return UNetRegressionConfig(setting, networks[key], loss)

  def _generator(self) -> UNet:
    return UNet(self.config.generator, self.dtype)

  def init_networks(self, keys):
    x = self.example(), self.example_condition()
    return {'generator': self._generator().init(keys[0], *x)['params']}

  def _predict(self, params, source, source_ids, target_ids):
    condition = self.condition(source_ids, target_ids)
    return self._generator().apply(
      {'params': params['generator']}, source, condition
    )

  def sums(self, params, batch, key):
    del key
    error = batch.target - self._predict(
      params, batch.source, batch.source_ids, batch.target_ids
    )
    if self.config.loss == 'l1':
      return {'l1': mean_term(jnp.abs(error))}
    return {'l2': mean_term(jnp.square(error))}

  def synthesise(self, params, source, source_ids, target_ids, keys):
    del keys
    image = self._predict(params, source, source_ids, target_ids)
    return jnp.clip(image, -1.0, 1.0)
