"""Flags that set the timesteps, the guidance and the context of synthesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from synermedgen_jax.core.choices import CONDITIONS, RENORMS
from synermedgen_jax.core.errors import UserError

if TYPE_CHECKING:  # it imports the model, and --help needs the flags alone
  from synermedgen_jax.config.sampling import SamplingConfig

flags.disclaim_key_flags()  # they belong to the command that defines them

# UniMedVL's limit, codes/interactive_image_generator.py.
_DESCRIBE_TOKENS = 800


@dataclasses.dataclass(frozen=True)
class SamplingFlags:
  """The flags of sampling. A flag that is not given is None.

  Attributes:
    timesteps: field of `SamplingConfig` -> flag.
    guidance: field of `Guidance` -> flag.
    describe_first: whether the model first describes the source.
    describe_tokens: largest length of that text.
  """

  timesteps: Mapping[str, flags.FlagHolder[Any]]
  guidance: Mapping[str, flags.FlagHolder[Any]]
  describe_first: flags.FlagHolder[bool | None]
  describe_tokens: flags.FlagHolder[int | None]

  def apply(self, sampling: SamplingConfig) -> SamplingConfig:
    """The settings of a run, with those of the flags in their place.

    Raises:
      UserError: a flag has an invalid value, or no effect.
    """
    changes = _given(self.guidance)
    if 'interval' in changes:
      changes['interval'] = _interval(changes['interval'])
    return dataclasses.replace(
      sampling,
      **_given(self.timesteps),
      guidance=dataclasses.replace(sampling.guidance, **changes),
      describe_tokens=self._describe_tokens(sampling),
    )

  def _describe_tokens(self, sampling: SamplingConfig) -> int:
    first, tokens = self.describe_first.value, self.describe_tokens.value
    if first is None:
      first = bool(sampling.describe_tokens)
    if tokens is not None and not first:
      raise UserError(
        '--describe_tokens: has no effect without --describe_first; add that '
        'flag.'
      )
    if not first:
      return 0
    return tokens or sampling.describe_tokens or _DESCRIBE_TOKENS

  def refuse(self, why: str) -> None:
    """Refuses every flag that is given.

    Args:
      why: the reason why none has an effect, as the end of a sentence.

    Raises:
      UserError: naming the flags.
    """
    holders = (
      *self.timesteps.values(),
      *self.guidance.values(),
      self.describe_first,
      self.describe_tokens,
    )
    given = [f'--{h.name}' for h in holders if h.value is not None]
    if given:
      raise UserError(
        f'{", ".join(given)}: {"have" if given[1:] else "has"} no effect, '
        f'since {why}; leave {"them" if given[1:] else "it"} out.'
      )


def _given(holders: Mapping[str, flags.FlagHolder[Any]]) -> dict[str, Any]:
  given = {k: h.value for k, h in holders.items() if h.value is not None}
  # Settings are static arguments of programs, which lists cannot be.
  return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}


def define_sampling_flags() -> SamplingFlags:
  """Defines the flags. A flag that is not given keeps the value of the run."""
  timesteps = {
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
    'slab': flags.DEFINE_integer(
      'slab',
      None,
      'Neighbouring slices that are synthesised together; 1 = each alone. '
      'Default: config.slab of the run.',
      lower_bound=1,
    ),
    'draws': flags.DEFINE_integer(
      'draws',
      None,
      'Draws of the detail path whose mean is the image: 1 has the texture of '
      'acquired images, and the mean of more has smaller errors. Default: '
      'config.sampling of the run.',
      lower_bound=1,
    ),
    'grain': flags.DEFINE_float(
      'grain',
      None,
      'Slices over which noise continues along z (docs/volumes.md); 1 = the '
      'noise of every slice is independent. More needs all slices of a volume. '
      'Default: config.sampling of the run.',
      lower_bound=1.0,
    ),
    'withheld': flags.DEFINE_multi_enum(
      'withheld',
      None,
      CONDITIONS,
      'Condition that the model does not get, may be repeated: the instruction '
      '(text), the latents (vae) or the ViT tokens (vit) of the source. '
      'Default: config.sampling of the run.',
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
      RENORMS,
      'Norm of the unguided velocity that the guided one may not exceed. '
      'Default: config.sampling of the run.',
    ),
  }
  return SamplingFlags(
    timesteps,
    guidance,
    flags.DEFINE_bool(
      'describe_first',
      None,
      'The model first writes a text about the source slice and the '
      'instruction, and reads it after the instruction. Default: '
      'config.sampling of the run; no text, except in imports of UniMedVL.',
    ),
    flags.DEFINE_integer(
      'describe_tokens',
      None,
      'Largest length of that text in tokens. Default: config.sampling of the '
      f'run, or {_DESCRIBE_TOKENS}.',
      lower_bound=1,
    ),
  )


def _interval(words: Sequence[str]) -> tuple[float, float]:
  try:
    low, high = map(float, words)
  except ValueError:
    raise UserError(
      f'--interval={",".join(words)}: expected two numbers, as in 0.4,1.0.'
    ) from None
  return low, high
