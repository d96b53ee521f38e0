"""The systems by name: values of `config.stage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synermedgen_jax.baselines.cyclegan import CycleGAN
from synermedgen_jax.baselines.pix2pix import Pix2Pix
from synermedgen_jax.baselines.system import Setting, System
from synermedgen_jax.baselines.unet_regression import UNetRegression
from synermedgen_jax.models.compute import Compute

SYSTEMS: dict[str, type[System]] = {
  'unet': UNetRegression,
  'pix2pix': Pix2Pix,
  'cyclegan': CycleGAN,
}


def make_system(config: Mapping[str, Any]) -> System:
  """The system of a config whose modalities are resolved.

  Args:
    config: a config, or one read back from `config.json`.

  Raises:
    ValueError: there is no such preset.
  """
  setting = Setting(
    tuple(config['size']), tuple(config['modalities']), config['scope'] == 'all'
  )
  system = SYSTEMS[config['stage']]
  shape = system.preset(config['model'], setting)
  return system(shape, Compute(dtype=config['compute']['dtype'], remat='none'))
