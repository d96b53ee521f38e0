"""Greedy decoding of answers with a key-value cache."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from synermedgen_jax.core.batch import Capacity, ImageGeometry, PackedBatch
from synermedgen_jax.core.compiling import compiling
from synermedgen_jax.inference.prefill import prefill
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.mot import Cache, Tokens
from synermedgen_jax.tasks.example import Example

# Greater than the order of any token.
_END = jnp.iinfo(jnp.int32).max


@functools.partial(
  jax.jit, static_argnames=('model', 'im_start', 'im_end', 'max_tokens')
)
def decode(
  model: Bagel,
  params,
  batch: PackedBatch,
  *,
  im_start: int,
  im_end: int,
  max_tokens: int,
) -> Int[Array, 'b {max_tokens}']:
  """Decodes an answer to every prompt; each token is the most likely one.

  Args:
    model: the model.
    params: its parameters.
    batch: one prompt per row, without a noised image; lengths may differ.
    im_start: id of the token that opens an answer.
    im_end: id of the token that closes an answer.
    max_tokens: maximum length of an answer in tokens.

  Returns:
    Token ids after `im_start`, int32. An answer that ended is padded with
    `im_end`; one that did not end is truncated.
  """
  cache, position, order = _open_ended(model, params, batch, max_tokens)
  rows, slots = cache.visible_to.shape
  first = slots - max_tokens  # first slot of the answers

  def unfinished(state):
    step, _, ids, _ = state
    ended = (ids == im_end).any(axis=1)
    return (step < max_tokens) & ~ended.all()

  def add_token(state):
    step, cache, ids, token = state
    logits, keys, values = _next(
      model, params, token, position + step, order + step, cache
    )

    def put(buffer, new, axis):
      return lax.dynamic_update_slice_in_dim(buffer, new, first + step, axis)

    cache = Cache(
      put(cache.keys, keys, 2),
      put(cache.values, values, 2),
      put(cache.visible_from, order + step, 1),
      put(cache.visible_to, jnp.full((rows, 1), _END), 1),
    )
    ended = (ids == im_end).any(axis=1, keepdims=True)
    token = jnp.where(ended, im_end, jnp.argmax(logits, axis=-1))
    token = token.astype(jnp.int32)
    ids = lax.dynamic_update_slice_in_dim(ids, token, step, 1)
    return step + 1, cache, ids, token

  # -1 = not decoded yet.
  ids = jnp.full((rows, max_tokens), -1, jnp.int32)
  token = jnp.full((rows, 1), im_start, jnp.int32)
  _, _, ids, _ = lax.while_loop(unfinished, add_token, (0, cache, ids, token))
  return jnp.where(ids < 0, im_end, ids)


def _open_ended(model, params, batch, room):
  """Caches the prompts and appends `room` empty slots for the answers.

  Returns:
    The cache; the RoPE position and the order of each answer's first token,
    (rows, 1) each.
  """
  cache = prefill(model, params, batch)
  order = cache.visible_to.max(axis=1, keepdims=True)
  # The packer ends visibility at the last token; extend it to the answer.
  cache = cache.replace(visible_to=jnp.where(cache.visible_to > 0, _END, 0))

  def widen(x, axis):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, room)
    return jnp.pad(x, widths)

  cache = Cache(
    widen(cache.keys, 2),
    widen(cache.values, 2),
    widen(cache.visible_from, 1),
    widen(cache.visible_to, 1),
  )
  # The last token has the largest position, since padding has position 0.
  positions = [s.positions for s in (batch.und, batch.gen)]
  position = jnp.concatenate(positions, axis=1).max(axis=1, keepdims=True)
  return cache, position + 1, order


def _next(model, params, token, position, order, cache):
  """Logits (rows, 1, vocab), keys and values of one more token per row."""
  variables = {'params': params}
  x = model.apply(
    variables, token, jnp.full_like(token, -1), None, method=Bagel.embed_und
  )
  tokens = Tokens(x, position, order, order, order + 1)
  hidden, (keys, values) = model.apply(
    variables, {'und': tokens}, cache, return_keys=True, method=Bagel.backbone
  )
  logits = model.apply(variables, hidden['und'], method=Bagel.logits)
  return logits, keys, values


@dataclasses.dataclass(frozen=True)
class Answerer:
  """A model that answers questions about slices.

  Attributes:
    model: its shape and how it is computed.
    params: its parameters.
    tokenizer: encodes prompts and decodes answers.
    geometry: sizes of the ViT and VAE images, patch sizes.
    read_slice: returns the pixels of a slice, in [-1, 1].
    batch_size: questions per batch.
    max_tokens: maximum length of an answer in tokens.
  """

  model: Bagel
  params: Any
  tokenizer: Tokenizer
  geometry: ImageGeometry
  read_slice: packing.ReadSlice
  batch_size: int = 16
  max_tokens: int = 64

  def capacity_for(self, examples: Sequence[Example]) -> Capacity:
    """The capacity of a row that holds any of these questions."""
    return Capacity.largest(
      [
        packing.measure(example.prompt, self.tokenizer, self.geometry)
        for example in examples
      ]
    )

  def answer(
    self,
    examples: Sequence[Example],
    *,
    capacity: Capacity | None = None,
    progress: Callable[[int], object] | None = None,
  ) -> list[str]:
    """Answers each example's prompt by greedy decoding.

    Args:
      examples: questions; their answers are not read.
      capacity: capacity of a row. Calls with equal capacities share one
        compiled program. None = that of the longest question.
      progress: called after each batch with its number of questions, such as
        `Bar.update`.

    Returns:
      The answers, in the order of the examples. An answer that reaches
      `max_tokens` is truncated.

    Raises:
      ValueError: a prompt has a noised image.
    """
    prompts = [example.prompt for example in examples]
    if not prompts:
      return []
    if any(span.has_loss for prompt in prompts for span in prompt.spans):
      raise ValueError('A prompt with a noised image has no answer.')
    capacity = capacity or self.capacity_for(examples)
    answers = []
    for start in range(0, len(prompts), self.batch_size):
      part = prompts[start : start + self.batch_size]
      answers += self._answer_batch(part, capacity)
      if progress:
        progress(len(part))
    return answers

  def _answer_batch(self, prompts, capacity) -> list[str]:
    t = self.tokenizer
    features = [
      packing.tokenise(prompt, t, self.geometry, self.read_slice)
      for prompt in prompts
    ]
    # Pad the last batch, so that every batch has the same shape.
    features += features[-1:] * (self.batch_size - len(features))
    batch = packing.pack_rows(features, capacity, self.geometry)
    with compiling('answering'):
      ids = decode(
        self.model,
        self.params,
        batch,
        im_start=t.im_start,
        im_end=t.im_end,
        max_tokens=self.max_tokens,
      )
    rows = jax.device_get(ids)[: len(prompts)].tolist()
    return [t.decode(_until(row, t.im_end)) for row in rows]


def _until(ids: list[int], end: int) -> list[int]:
  return ids[: ids.index(end)] if end in ids else ids
