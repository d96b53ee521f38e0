"""Generates the codes of an image: the most probable ones, without a draw.

Keys and values of the prompt are computed once. Every step runs all tokens of
the image, those of autoregressive codes too: what a step adds to the keys is
not cached.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from synermedgen_jax.config.sampling import Context, SamplingConfig
from synermedgen_jax.inference.sampling import Prompt, predictor
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.codes import masked_share, shift_right, with_hidden

# (latents, hidden, guided) -> logits of the codes
Logits = Callable[..., Float[Array, 'b g k']]


@functools.partial(jax.jit, static_argnames=('model', 'config'))
def generate_codes(
  model: Bagel,
  params,
  prompts: Mapping[Context, Prompt],
  config: SamplingConfig,
) -> Float[Array, 'b g d']:
  """Generates the latent tokens of every prompt's noised span from codes.

  Args:
    model: a model of codes.
    params: its parameters.
    prompts: as of `sampling.sample`.
    config: steps of masked codes, and guidance. Guided logits are not scaled
      back.

  Returns:
    Latent tokens of the codes, as `sampling.sample` returns them.
  """
  guidance = dataclasses.replace(config.guidance, renorm_min=1.0)
  predict = predictor(model, params, prompts, guidance, Bagel.code_logits)
  target = prompts['full'].target.noise_ids

  def logits(latents, hidden, guided):
    return predict(*with_hidden(latents, hidden), guided)[0]

  def latents_of(codes):
    return model.apply({'params': params}, codes, method=Bagel.code_latents)

  if model.config.generation == 'masked':
    codes = unmask(logits, latents_of, target > 0, config)
  else:
    codes = one_by_one(logits, latents_of, target, config)
  return latents_of(codes)


def unmask(
  logits: Logits,
  latents_of: Callable[..., Float[Array, 'b g d']],
  real: Bool[Array, 'b g'],
  config: SamplingConfig,
) -> Int[Array, 'b g']:
  """Predicts all hidden codes in every step, and keeps the surest ones.

  The share of codes that stay hidden follows MaskGIT's cosine (Show-o).

  Args:
    logits: the model.
    latents_of: codes to latents.
    real: tokens of the image.
    config: timesteps and guidance.
  """
  times = config.timesteps

  def step(state, inputs):
    codes, hidden = state
    after, guided = inputs
    scores = jax.nn.log_softmax(logits(latents_of(codes), hidden, guided))
    codes = jnp.where(hidden, scores.argmax(-1), codes)
    sure = jnp.where(hidden, scores.max(-1), jnp.inf)
    count = jnp.floor(masked_share(after) * real.sum(1, keepdims=True))
    rank = jnp.argsort(jnp.argsort(sure, axis=1), axis=1)
    return (codes, hidden & (rank < count)), None

  start = jnp.zeros(real.shape, jnp.int32), real
  inputs = times[1:], config.guidance.acts(times[:-1])
  (codes, _), _ = lax.scan(step, start, jax.tree.map(jnp.asarray, inputs))
  return codes


def one_by_one(
  logits: Logits,
  latents_of: Callable[..., Float[Array, 'b g d']],
  noise_ids: Int[Array, 'b g'],
  config: SamplingConfig,
) -> Int[Array, 'b g']:
  """Predicts one code after the other, in the order of the gen stream.

  Args:
    logits, latents_of: as of `unmask`.
    noise_ids: as of `PackedBatch`.
    config: guidance; it acts on the timestep 1 - i / g of token i.
  """
  tokens = noise_ids.shape[1]

  def step(codes, inputs):
    index, guided = inputs
    shown, first = shift_right(latents_of(codes), noise_ids)
    scores = logits(shown, first, guided)[:, index]
    return codes.at[:, index].set(scores.argmax(-1)), None

  times = 1 - np.arange(tokens, dtype=np.float32) / tokens
  inputs = jnp.arange(tokens), jnp.asarray(config.guidance.acts(times))
  return lax.scan(step, jnp.zeros(noise_ids.shape, jnp.int32), inputs)[0]
