"""How images are sampled: timesteps, guidance, context (`config.sampling`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core.choices import RENORMS
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.flow import shift_timestep

Context = Literal['full', 'no_text', 'no_images']
# Condition of synthesis, as `config.dropout` names it -> kind of its spans.
CONDITIONS = {'text': 'text', 'vae': 'vae_image', 'vit': 'vit_image'}


@dataclasses.dataclass(frozen=True)
class Guidance:
  """Classifier-free guidance by text and by images.

  Attributes:
    text: scale of the text guidance; values up to 1 turn it off.
    image: scale of the image guidance; values up to 1 turn it off. Unlike in
      BAGEL, image guidance works without text guidance.
    interval: timesteps t with interval[0] < t <= interval[1] are guided.
    renorm: which norm of the guided velocity is limited to that of the
      unguided one: the norm over all tokens of an image (`global`), of each
      token (`channel`), or of each token after text guidance and before image
      guidance (`text_channel`).
    renorm_min: lower bound of the factor that reduces the norm.
  """

  text: float = 1.0
  image: float = 1.0
  interval: tuple[float, float] = (0.0, 1.0)
  renorm: str = 'global'
  renorm_min: float = 0.0

  def __post_init__(self):
    if self.renorm not in RENORMS:
      raise UserError(
        f'guidance.renorm {self.renorm!r}: expected one of '
        f'{", ".join(RENORMS)}.'
      )
    if len(self.interval) != 2 or self.interval[0] > self.interval[1]:
      raise UserError(
        f'guidance.interval: expected (low, high), got {self.interval}.'
      )

  @property
  def contexts(self) -> tuple[Context, ...]:
    """Contexts whose velocities are needed, `full` first."""
    return (
      'full',
      *(('no_text',) if self.text > 1.0 else ()),
      *(('no_images',) if self.image > 1.0 else ()),
    )

  def acts(self, t: Float[np.ndarray, ' n']) -> Bool[np.ndarray, ' n']:
    """Whether timesteps are guided."""
    low, high = np.float32(self.interval)
    return (t > low) & (t <= high)


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """Timesteps, guidance and context of sampling.

  Autoregressive codes have a step per token, whatever `points` and `shift` say.

  Attributes:
    points: number of timesteps from 1 to 0, both included; there is one step
      fewer, of Euler's method or of unmasking codes.
    shift: values above 1 place more timesteps near noise.
    guidance: scales, interval and renormalisation.
    describe_tokens: largest length, in tokens, of the text that the model
      first writes about the source image and the instruction, and then reads
      after the instruction; 0 = no text. Withheld text is not written.
    slab: neighbouring slices that are synthesised together (`tasks/slabs.py`).
    draws: draws of the detail path (`models/detail.py`) whose mean is the
      image.
    grain: slices over which noise continues along z; 1 = independent noise.
    withheld: conditions that the model does not get, some of `CONDITIONS`.
  """

  points: int
  shift: float
  guidance: Guidance = Guidance()
  describe_tokens: int = 0
  slab: int = 1
  draws: int = 1
  grain: float = 1.0
  withheld: tuple[str, ...] = ()

  def __post_init__(self):
    if unknown := sorted(set(self.withheld) - set(CONDITIONS)):
      raise UserError(
        f'withheld {", ".join(unknown)}: expected some of '
        f'{", ".join(CONDITIONS)}.'
      )
    if self.points < 2:
      raise UserError(f'points {self.points}: must be at least 2.')
    if not self.shift > 0:
      raise UserError(f'shift {self.shift}: must be above 0.')
    if self.describe_tokens < 0:
      raise UserError(
        f'describe_tokens {self.describe_tokens}: must be at least 0.'
      )
    for name in ('slab', 'draws', 'grain'):
      if not getattr(self, name) >= 1:  # nor is NaN
        raise UserError(f'{name} {getattr(self, name)}: must be at least 1.')
    if self.slab > 1 and self.describe_tokens:
      raise UserError(
        f'slab {self.slab}: the text of describe_tokens is about one slice; '
        'set slab to 1 or describe_tokens to 0.'
      )

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> SamplingConfig:
    """The sampling of a run's config, `config.sampling` and `config.slab`.

    Raises:
      UserError, TypeError: a value is invalid, or a key is unknown or missing.
    """
    values = config['sampling']
    guidance = {**values['guidance']}
    # Tuples are lists in JSON.
    guidance['interval'] = tuple(guidance['interval'])
    values = {**values, 'withheld': tuple(values.get('withheld', ()))}
    return cls(
      **{**values, 'guidance': Guidance(**guidance)}, slab=config.get('slab', 1)
    )

  def check(self, model: BagelConfig) -> None:
    """Refuses settings that have no effect on images of a model.

    Raises:
      UserError: naming the field.
    """
    flow = model.generation == 'flow'
    for name, acts, why in (
      ('slab', flow, 'codes of several slices are not generated together'),
      ('grain', flow, 'codes are generated without noise'),
      ('draws', model.detail, 'without a detail path, all draws are equal'),
    ):
      value = getattr(self, name)
      if value > 1 and not acts:
        raise UserError(f'{name} {value}: {why}; set {name} to 1.')

  @property
  def describes(self) -> bool:
    """Whether the model writes a text first; not if text is withheld."""
    return self.describe_tokens > 0 and 'text' not in self.withheld

  @property
  def timesteps(self) -> Float[np.ndarray, ' points']:
    """Timesteps from 1 (noise) down to 0 (data), float32."""
    line = np.linspace(1.0, 0.0, self.points)
    return shift_timestep(line, self.shift).astype(np.float32)
