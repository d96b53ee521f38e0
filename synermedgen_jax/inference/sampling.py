"""Rectified-flow sampling: Euler steps from noise to a picture's latents.

A prompt is run once and its keys are kept; a step runs the noised span alone.
Guidance compares the velocity under the whole prompt with those under the
prompt without its text or without its images (BAGEL, modeling/bagel/bagel.py).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from synermedgen_jax.core.batch import Capacity, ImageGeometry, PackedBatch
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.inference.prefill import largest, prefill
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.flow import shift_timestep
from synermedgen_jax.tasks.example import Example

Renorm = Literal['global', 'channel', 'text_channel']
Context = Literal['full', 'no_text', 'no_images']


@dataclasses.dataclass(frozen=True)
class Guidance:
  """How strongly the velocity is pushed towards the prompt.

  Attributes:
    text: scale of the text guidance; 1 = none. Values up to 1 switch it off.
    image: scale of the image guidance, likewise. BAGEL ignores it where text
      guidance is off; here it works alone, too.
    interval: guided are timesteps with interval[0] < t <= interval[1].
    renorm: what the guided velocity is scaled back to, so that its norm never
      exceeds the unguided one: the norm over a whole picture (`global`), of
      each token (`channel`), or of each token after the text guidance alone
      (`text_channel`).
    renorm_min: the least factor of that scaling.
  """

  text: float = 1.0
  image: float = 1.0
  interval: tuple[float, float] = (0.0, 1.0)
  renorm: Renorm = 'global'
  renorm_min: float = 0.0

  def __post_init__(self):
    if self.renorm not in get_args(Renorm):
      raise UserError(
        f'Unknown guidance.renorm {self.renorm!r}: expected one of '
        f'{", ".join(get_args(Renorm))}.'
      )
    if len(self.interval) != 2 or self.interval[0] > self.interval[1]:
      raise UserError(f'guidance.interval is (low, high), got {self.interval}.')

  @property
  def contexts(self) -> tuple[Context, ...]:
    """The prompts that sampling runs, the whole one first."""
    return (
      'full',
      *(('no_text',) if self.text > 1.0 else ()),
      *(('no_images',) if self.image > 1.0 else ()),
    )


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How a picture is sampled.

  Attributes:
    points: timesteps from 1 to 0, both included: one Euler step fewer.
    shift: more steps near noise for values above 1.
    guidance: scales, interval and renormalisation.
  """

  points: int = 50
  shift: float = 3.0
  guidance: Guidance = Guidance()

  def __post_init__(self):
    if self.points < 2:
      raise UserError(f'Sampling needs 2 points or more, got {self.points}.')

  @property
  def timesteps(self) -> Float[np.ndarray, ' points']:
    """From 1 (noise) down to 0 (data)."""
    line = np.linspace(1.0, 0.0, self.points)
    return shift_timestep(line, self.shift).astype(np.float32)


@flax.struct.dataclass
class Prompt:
  """Packed prompts, one a row, each parted from its noised span.

  Attributes:
    conditions: what the noised span sees.
    target: the noised span alone: markers in the und stream, latent tokens in
      the gen stream, at their places after the conditions.
  """

  conditions: PackedBatch
  target: PackedBatch


def dropped_spans(example: Example, context: Context) -> frozenset[int]:
  """Which spans a context leaves out: no text, or no image but the target."""
  return frozenset(
    i
    for i, span in enumerate(example.spans)
    if not span.has_loss
    and context != 'full'
    and (span.kind == 'text') == (context == 'no_text')
  )


def prompt_capacity(
  examples: Sequence[Example],
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  context: Context,
) -> Capacity:
  """What a row must hold so that the longest of these prompts fits."""
  return largest(
    [
      packing.measure(e, tokenizer, geometry, dropped=dropped_spans(e, context))
      for e in examples
    ]
  )


def pack_prompts(
  examples: Sequence[Example],
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  read_slice: packing.ReadSlice,
  capacities: Mapping[Context, Capacity],
) -> dict[Context, Prompt]:
  """Packs prompts for `sample`, one a row.

  Args:
    examples: each ends with its noised target, whose pixels do not matter.
    tokenizer, geometry, read_slice: as `tokenise` takes them.
    capacities: of a row with its target, for every context that guidance
      needs (`Guidance.contexts`, `prompt_capacity`).
  """
  prompts = {}
  for context, capacity in capacities.items():
    parts = [
      packing.split_target(
        packing.tokenise(
          example,
          tokenizer,
          geometry,
          read_slice,
          dropped=dropped_spans(example, context),
        )
      )
      for example in examples
    ]
    prompts[context] = join_prompts(parts, capacity, geometry)
  return prompts


def join_prompts(
  parts: Sequence[tuple[Mapping, Mapping]],
  capacity: Capacity,
  geometry: ImageGeometry,
) -> Prompt:
  """Packs what `split_target` gave, one prompt a row.

  Args:
    parts: (conditions, target) features of each prompt.
    capacity: of a row with its target.
    geometry: as given to `tokenise`.
  """
  conditions, targets = zip(*parts, strict=True)
  gen = max(len(target['gen']) for target in targets)
  room = Capacity(
    capacity.und - 2, capacity.gen - gen, capacity.vit, capacity.images - 1
  )
  return Prompt(
    packing.pack_rows(conditions, room, geometry),
    packing.pack_rows(targets, Capacity(2, gen, 0, 0), geometry),
  )


def guide(
  velocities: Mapping[Context, Float[Array, 'b g d']], guidance: Guidance
) -> Float[Array, 'b g d']:
  """The guided velocity.

  Args:
    velocities: by context; 'no_text' and 'no_images' where their scale is
      above 1. Padding tokens are zero, so that they add to no norm.
    guidance: scales and renormalisation.
  """
  full = velocities['full']

  def scaled_back(guided, axes):
    norm = functools.partial(jnp.linalg.norm, axis=axes, keepdims=True)
    # Over (tokens, numbers) this is the Frobenius norm.
    factor = norm(full) / (norm(guided) + 1e-8)
    return guided * jnp.clip(factor, guidance.renorm_min, 1.0)

  guided = full
  if 'no_text' in velocities:
    base = velocities['no_text']
    guided = base + guidance.text * (full - base)
    if guidance.renorm == 'text_channel':
      guided = scaled_back(guided, -1)
  if 'no_images' in velocities:
    base = velocities['no_images']
    guided = base + guidance.image * (guided - base)
  if guidance.renorm == 'text_channel':
    return guided
  return scaled_back(guided, -1 if guidance.renorm == 'channel' else (-2, -1))


def integrate(
  velocity: Callable[..., Float[Array, 'b g d']],
  noise: Float[Array, 'b g d'],
  config: SamplingConfig,
) -> Float[Array, 'b g d']:
  """Euler's method from noise (t = 1) to data (t = 0).

  Args:
    velocity: (latents, t, guided) -> velocity; `guided` is a scalar Bool, true
      within the guidance interval.
    noise: standard normal.
    config: the timesteps and the guidance interval.
  """
  times = config.timesteps
  low, high = np.float32(config.guidance.interval)
  guided = (times > low) & (times <= high)

  def step(latents, inputs):
    t, dt, guided = inputs
    return latents - dt * velocity(latents, t, guided), None

  inputs = times[:-1], times[:-1] - times[1:], guided[:-1]
  return lax.scan(step, noise, jax.tree.map(jnp.asarray, inputs))[0]


@functools.partial(jax.jit, static_argnames=('model', 'config'))
def sample(
  model: Bagel,
  params,
  prompts: Mapping[Context, Prompt],
  noise: Float[Array, 'b g d'],
  config: SamplingConfig,
) -> Float[Array, 'b g d']:
  """Samples the latent tokens of every prompt's noised span.

  Args:
    model: the model.
    params: its parameters.
    prompts: for every context of `config.guidance`; as `pack_prompts` or
      `join_prompts` makes them.
    noise: standard normal, one vector for each latent token of the targets.
    config: timesteps and guidance.

  Returns:
    Clean latent tokens in the order of the gen stream, which for one image is
    row by row; `Bagel.decode_latents` makes pictures of them.
  """
  targets = {c: prompts[c].target for c in config.guidance.contexts}
  caches = {c: prefill(model, params, prompts[c].conditions) for c in targets}
  real = targets['full'].gen.example_ids[..., None] > 0

  def under(context, latents, t):
    target = targets[context]
    streams = model.apply(
      {'params': params},
      target,
      latents,
      jnp.full(latents.shape[:2], t),
      method=Bagel.embed_batch,
    )
    hidden, _ = model.apply(
      {'params': params}, streams, caches[context], method=Bagel.backbone
    )
    found = model.apply(
      {'params': params}, hidden['gen'], method=Bagel.velocity
    )
    return jnp.where(real, found, 0.0)

  def velocity(latents, t, guided):
    full = under('full', latents, t)
    others = [c for c in targets if c != 'full']
    if not others:
      return full

    def with_guidance(_):
      found = {c: under(c, latents, t) for c in others}
      return guide({'full': full, **found}, config.guidance)

    return lax.cond(guided, with_guidance, lambda _: full, None)

  return integrate(velocity, noise, config)
