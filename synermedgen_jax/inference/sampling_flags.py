"""Flags that set the timesteps and the guidance of synthesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import get_args

from absl import flags

from synermedgen_jax.config.sampling import Renorm, SamplingConfig
from synermedgen_jax.core.errors import UserError

flags.disclaim_key_flags()  # they belong to the command that defines them


def define_sampling_flags() -> Callable[[SamplingConfig], SamplingConfig]:
  """Defines the flags. A flag that is not set keeps the value of the run.

  Returns:
    A function that applies the flags to a `SamplingConfig`. It raises
    UserError if a flag has an invalid value.
  """
  given = {
    'points': flags.DEFINE_integer(
      'points',
      None,
      'Timesteps from noise to image, both ends included (Euler steps are one '
      "fewer). Default: config.sampling of the run, BAGEL's 50 for the 7B.",
      lower_bound=2,
    ),
    'shift': flags.DEFINE_float(
      'shift',
      None,
      'Shift of the timesteps; above 1, more of them are near noise. Default: '
      'config.sampling of the run.',
    ),
  }
  guidance = {
    'text': flags.DEFINE_float(
      'text_scale',
      None,
      'Scale of the text guidance; 1 = none. Default: config.sampling of the '
      'run.',
    ),
    'image': flags.DEFINE_float(
      'image_scale',
      None,
      'Scale of the image guidance; 1 = none. Default: config.sampling of the '
      'run.',
    ),
    'interval': flags.DEFINE_list(
      'interval',
      None,
      'LOW,HIGH: guidance acts on timesteps t with LOW < t <= HIGH, from 0 '
      '(image) to 1 (noise). Default: config.sampling of the run.',
    ),
    'renorm': flags.DEFINE_enum(
      'renorm',
      None,
      get_args(Renorm),
      'Norm of the unguided velocity that the guided one may not exceed. '
      'Default: config.sampling of the run.',
    ),
  }

  def change(sampling: SamplingConfig) -> SamplingConfig:
    values = {k: f.value for k, f in given.items() if f.value is not None}
    changes = {k: f.value for k, f in guidance.items() if f.value is not None}
    if 'interval' in changes:
      changes['interval'] = _interval(changes['interval'])
    return dataclasses.replace(
      sampling,
      **values,
      guidance=dataclasses.replace(sampling.guidance, **changes),
    )

  return change


def _interval(words: list[str]) -> tuple[float, float]:
  try:
    low, high = map(float, words)
  except ValueError:
    raise UserError(
      f'--interval={",".join(words)}: expected two numbers, as in 0.4,1.0.'
    ) from None
  return low, high
