"""The systems by name: values of `config.stage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synermedgen_jax.baselines.bbdm import BBDM
from synermedgen_jax.baselines.cyclegan import CycleGAN
from synermedgen_jax.baselines.pix2pix import Pix2Pix
from synermedgen_jax.baselines.resvit_gan import ResViTGAN
from synermedgen_jax.baselines.selfrdb import SelfRDB
from synermedgen_jax.baselines.syndiff import SynDiff
from synermedgen_jax.baselines.system import Setting, System
from synermedgen_jax.baselines.unet_regression import UNetRegression
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.compute import Compute

SYSTEMS: dict[str, type[System]] = {
  'unet': UNetRegression,
  'pix2pix': Pix2Pix,
  'cyclegan': CycleGAN,
  'bbdm': BBDM,
  'resvit': ResViTGAN,
  'syndiff': SynDiff,
  'selfrdb': SelfRDB,
}


def make_system(config: Mapping[str, Any]) -> System:
  """The system of a config whose modalities are resolved.

  Args:
    config: a config, or one read back from `config.json`.

  Raises:
    ValueError: there is no such preset.
  """
  autoencoder = dict(config.get('autoencoder') or {})
  if autoencoder:
    autoencoder['ch_mult'] = tuple(autoencoder['ch_mult'])
  setting = Setting(
    tuple(config['size']),
    tuple(config['modalities']),
    conditioned=config['scope'] == 'all',
    autoencoder=AutoencoderConfig(**autoencoder) if autoencoder else None,
  )
  system = SYSTEMS[config['stage']]
  shape = system.preset(config['model'], setting)
  return system(shape, Compute(dtype=config['compute']['dtype'], remat='none'))
