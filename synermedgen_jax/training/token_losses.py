"""Cross-entropy of next tokens, with the logits of a few tokens at a time."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.layers import take_in_rows


def token_losses(
  model: Bagel,
  params,
  hidden: Float[Array, 'b u e'],
  labels: Int[Array, 'b u'],
  wanted: Bool[Array, 'b u'],
  *,
  chunk: int = 256,
) -> tuple[Float[Array, 'b u'], Float[Array, 'b u']]:
  """Cross-entropy and correctness of the next tokens that are wanted.

  The wanted tokens of each row come first and are divided into chunks of
  `chunk` tokens a row. If one chunk holds them all, it alone is computed. The
  logits of one chunk exist at a time and are recomputed in the backward pass.

  Args:
    model: the model.
    params: its parameters.
    hidden: final hidden states.
    labels: next token of each position.
    wanted: positions that have a label; the results of others are 0.
    chunk: tokens of a row per chunk.
  """
  # Gathered over fsdp once, not chunk by chunk.
  kernel = nn.with_logical_constraint(
    params['lm_head']['kernel'], (None, 'vocab')
  )
  params = {**params, 'lm_head': {'kernel': kernel}}

  @jax.checkpoint
  def losses(part):
    part_hidden, part_labels, part_wanted = part
    logits = model.apply({'params': params}, part_hidden, method=Bagel.logits)
    picked = jnp.take_along_axis(logits, part_labels[..., None], -1)[..., 0]
    right = jnp.argmax(logits, axis=-1) == part_labels
    loss = jax.nn.logsumexp(logits, axis=-1) - picked
    return loss * part_wanted, (right & part_wanted).astype(jnp.float32)

  def first_alone(parts):
    found = losses(jax.tree.map(lambda x: x[0], parts))
    rest = jnp.zeros((parts[1].shape[0] - 1, *parts[1].shape[1:]))
    return jax.tree.map(lambda x: jnp.concatenate([x[None], rest]), found)

  b, u = labels.shape
  chunk = min(chunk, u)
  place, token = _wanted_first(wanted)
  pad = ((0, 0), (0, -u % chunk))

  def chunked(x):
    x = take_in_rows(x, token)
    x = jnp.pad(x, pad + ((0, 0),) * (x.ndim - 2))
    return x.reshape(b, -1, chunk, *x.shape[2:]).swapaxes(0, 1)

  parts = jax.tree.map(chunked, (hidden, labels, wanted))
  if u == chunk:
    out = first_alone(parts)
  else:
    out = lax.cond(
      wanted.sum(1).max() <= chunk,
      first_alone,
      functools.partial(lax.map, losses),
      parts,
    )

  return jax.tree.map(
    lambda x: take_in_rows(x.swapaxes(0, 1).reshape(b, -1), place), out
  )


def _wanted_first(
  wanted: Bool[Array, 'b u'],
) -> tuple[Int[Array, 'b u'], Int[Array, 'b u']]:
  """An order with the wanted tokens of each row first.

  Returns:
    The place of every token, and the token of every place.
  """
  before = jnp.cumsum(wanted, axis=1) - 1
  after = wanted.sum(1, keepdims=True) + jnp.cumsum(~wanted, axis=1) - 1
  place = jnp.where(wanted, before, after)
  rows, tokens = (jnp.arange(n) for n in wanted.shape)
  return place, jnp.zeros_like(place).at[rows[:, None], place].set(tokens)
