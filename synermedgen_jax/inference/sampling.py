"""Rectified-flow sampling: Euler steps from noise to the latents of an image.

Keys and values of the prompt are computed once; each step runs only the noised
span. Guidance combines the velocity given the full prompt with the velocities
given the prompt without text or without images. Source: BAGEL,
modeling/bagel/bagel.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from synermedgen_jax.config.sampling import (
  CONDITIONS,
  Context,
  Guidance,
  SamplingConfig,
)
from synermedgen_jax.core.batch import Capacity, ImageGeometry, PackedBatch
from synermedgen_jax.core.size import Size
from synermedgen_jax.inference.prefill import prefill
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.canvases import sources_of_prompts
from synermedgen_jax.tasks.example import Example


@flax.struct.dataclass
class Prompt:
  """Packed prompts, one per row, split from their noised spans.

  Attributes:
    conditions: everything before the noised spans, which attend to it.
    target: the noised spans, one per image of a slab: markers in the und
      stream, latent tokens in the gen stream. Positions continue those of the
      conditions.
  """

  conditions: PackedBatch
  target: PackedBatch


def dropped_spans(
  example: Example, context: Context, withheld: Sequence[str] = ()
) -> frozenset[int]:
  """Indices of the spans that are left out; never the noised target.

  Args:
    example: the prompt.
    context: what guidance omits.
    withheld: conditions that are omitted in every context, some of
      `CONDITIONS`.
  """
  kinds = {CONDITIONS[name] for name in withheld}
  return frozenset(
    i
    for i, span in enumerate(example.spans)
    if not span.has_loss
    and (
      span.kind in kinds
      or (context != 'full' and (span.kind == 'text') == (context == 'no_text'))
    )
  )


def prompt_capacity(
  examples: Sequence[Example],
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  context: Context,
  withheld: Sequence[str] = (),
) -> Capacity:
  """The capacity of a row that holds any of these prompts."""
  return Capacity.largest(
    [
      packing.measure(
        e,
        tokenizer,
        geometry,
        dropped=dropped_spans(e, context, withheld),
      )
      for e in examples
    ]
  )


def pack_prompts(
  examples: Sequence[Example],
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  read_slice: packing.ReadSlice,
  capacities: Mapping[Context, Capacity],
  withheld: Sequence[str] = (),
) -> dict[Context, Prompt]:
  """Packs prompts for `sample`, one per row.

  Args:
    examples: each ends with its noised target, whose pixels are not used.
    tokenizer, geometry, read_slice: see `packing.tokenise`.
    capacities: context -> capacity of a row including its target, for every
      context of `Guidance.contexts`; see `prompt_capacity`.
    withheld: as of `dropped_spans`.
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
          dropped=dropped_spans(example, context, withheld),
        ),
        geometry,
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
  """Packs the results of `packing.split_target`, one prompt per row.

  Args:
    parts: (conditions, target) features of each prompt.
    capacity: capacity of a row including its target.
    geometry: see `packing.tokenise`.
  """
  conditions, targets = zip(*parts, strict=True)
  und, gen = (max(len(t[part]) for t in targets) for part in ('und', 'gen'))
  room = Capacity(
    max(capacity.und - und, 1),  # without conditions, a token of padding
    capacity.gen - gen,
    capacity.vit,
    capacity.images - und // 2,
  )
  return Prompt(
    packing.pack_rows(conditions, room, geometry),
    packing.pack_rows(targets, Capacity(und, gen, 0, 0), geometry),
  )


def guide(
  velocities: Mapping[Context, Float[Array, 'b g d']], guidance: Guidance
) -> Float[Array, 'b g d']:
  """Combines velocities to the guided velocity.

  Args:
    velocities: context -> velocity; 'no_text' and 'no_images' only if their
      scale is above 1. Padding tokens must be zero: norms are taken over all
      tokens.
    guidance: scales and renormalisation.
  """
  full = velocities['full']

  def scaled_back(guided, axes):
    norm = functools.partial(jnp.linalg.norm, axis=axes, keepdims=True)
    # Over the axes (tokens, channels) this is the Frobenius norm.
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
  velocity: Callable[..., tuple[Float[Array, 'b g d'], Any]],
  noise: Float[Array, 'b g d'],
  config: SamplingConfig,
) -> tuple[Float[Array, 'b g d'], Any]:
  """Integrates from noise (t = 1) to data (t = 0) by Euler's method.

  Args:
    velocity: (latents, t, guided) -> velocity and what else it yields;
      `guided` is a bool scalar, true within the guidance interval.
    noise: standard normal.
    config: timesteps and guidance interval.

  Returns:
    The latents at t = 0, and what the last velocity came with.
  """
  times = config.timesteps
  guided = config.guidance.acts(times)

  def step(state, inputs):
    latents, _ = state
    t, dt, guided = inputs
    change, more = velocity(latents, t, guided)
    return (latents - dt * change, more), None

  inputs = times[:-1], times[:-1] - times[1:], guided[:-1]
  inputs = jax.tree.map(jnp.asarray, inputs)
  first = jax.tree.map(lambda x: x[0], inputs)
  (_, more), _ = jax.eval_shape(step, (noise, None), first)
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), more)
  return lax.scan(step, (noise, nothing), inputs)[0]


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
    prompts: context -> prompts from `pack_prompts` or `join_prompts`, for
      every context of `config.guidance`.
    noise: standard normal, one vector per latent token of the targets.
    config: timesteps and guidance.

  Returns:
    Clean latent tokens in the order of the gen stream: the grids of a prompt's
    images in row-major order. `Bagel.decode_latents` decodes such a grid.
  """
  return _sample(model, params, prompts, noise, config)[0]


_DRAWS_AT_ONCE = 4  # bounds the activations, not the images, of many draws


@functools.partial(jax.jit, static_argnames=('model', 'grid', 'config'))
def sample_pictures(
  model: Bagel,
  params,
  prompts: Mapping[Context, Prompt],
  noise: Float[Array, 'b g d'],
  texture: Float[Array, 'draws b k h w'],
  grid: Size,
  config: SamplingConfig,
) -> Float[Array, 'b k h w c']:
  """Samples the images of every prompt, with detail if the model has any.

  Args:
    texture: standard normal, the noise of the detail path; the images are the
      mean of its draws.
    grid: rows and columns of an image's latent tokens.
    model, params, prompts, noise, config: as of `sample`.
  """
  sampled = _sample(model, params, prompts, noise, config)
  grids = [x.reshape(len(noise), -1, *grid, x.shape[-1]) for x in sampled]
  prompt = prompts['full']
  # All tokens of an image have one offset.
  offsets = prompt.target.latent_offsets[:, :: math.prod(grid)]
  sources = (
    sources_of_prompts(prompt.conditions, offsets, model.config.latent_stride)
    if model.config.detail
    else None
  )

  def draw(noise):
    return model.apply(
      {'params': params}, *grids, sources, noise[None], method=Bagel.pictures
    )[0]

  return lax.map(draw, texture, batch_size=_DRAWS_AT_ONCE).mean(0)


def _sample(model, params, prompts, noise, config):
  """Latents, and the hidden states of the last step with the full prompt."""
  velocity = predictor(model, params, prompts, config.guidance, Bagel.velocity)
  return integrate(velocity, noise, config)


def predictor(
  model: Bagel,
  params,
  prompts: Mapping[Context, Prompt],
  guidance: Guidance,
  head: Callable[..., Float[Array, 'b g o']],
) -> Callable[..., tuple[Float[Array, 'b g o'], Float[Array, 'b g e']]]:
  """Runs the prompts, and returns a function that predicts their targets.

  Args:
    model, params, prompts: as of `sample`.
    guidance: scales and renormalisation.
    head: method of `Bagel` that maps hidden states to predictions.

  Returns:
    (latents, t, guided) -> prediction, zero at padding, and hidden states with
    the full prompt; t is a scalar or (b, g), `guided` a bool scalar.
  """
  targets = {c: prompts[c].target for c in guidance.contexts}
  caches = {c: prefill(model, params, prompts[c].conditions) for c in targets}
  real = targets['full'].gen.example_ids[..., None] > 0

  def under(context, latents, t):
    target = targets[context]
    streams = model.apply(
      {'params': params},
      target,
      latents,
      jnp.broadcast_to(t, latents.shape[:2]),
      method=Bagel.embed_batch,
    )
    hidden, _ = model.apply(
      {'params': params}, streams, caches[context], method=Bagel.backbone
    )
    predicted = model.apply({'params': params}, hidden['gen'], method=head)
    return jnp.where(real, predicted, 0.0), hidden['gen']

  def predict(latents, t, guided):
    full, hidden = under('full', latents, t)
    others = [c for c in targets if c != 'full']
    if not others:
      return full, hidden

    def with_guidance(_):
      dropped = {c: under(c, latents, t)[0] for c in others}
      return guide({'full': full, **dropped}, guidance)

    return lax.cond(guided, with_guidance, lambda _: full, None), hidden

  return predict
