"""Configs of the stages, for benchmarks."""

from __future__ import annotations

import importlib

from ml_collections import ConfigDict

_OWN_CONFIGS = ('tiny', 'small')
STAGES = ('autoencoder', 'stage1', 'stage2', 'joint')


def stage_config(stage: str, model: str) -> ConfigDict:
  """A stage from random weights, one row or more per device.

  Args:
    stage: one of `STAGES`.
    model: 'tiny' or 'small', which have configs of their own, or a preset that
      the paper's config takes.
  """
  if model in _OWN_CONFIGS:
    module = importlib.import_module(f'configs.{model}.{stage}')
    config = module.get_config()
  else:
    module = importlib.import_module(f'configs.{stage}')
    config = module.get_config(model)
  config.init_from = ''
  config.mesh = (-1, 1, 1)
  return config
