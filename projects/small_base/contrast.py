"""Contrastive pretraining of the ViT: views in two styles.

BAGEL's ViT is SigLIP, which was pretrained by contrast. The ViT of the small
base is pretrained in the same way: the embedding of a view in one style should
be nearest to that of the same view in another style, among neighbouring views
of its scene and the views of all other scenes of the batch.

The embedding of an image is the output of the first layer's value heads: of the
second key head for a source, of the first for a candidate, as the comparison
heads read them (`projects/small_base/initial_heads.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.models.bagel import Bagel

# Factor of cosines, about that of the comparison heads' initial weights.
_SHARPNESS = 17.0


def contrast_sums(
  model: Bagel,
  params: Any,
  batch: PackedBatch,
  key: Array,
  config: Any,
  tasks: Sequence[str],
) -> dict[str, tuple[Array, Array]]:
  """Contrastive loss of pairs of adjacent images, and its accuracy.

  Args:
    model, params: the model, of which ViT, connector and one projection are
      used.
    batch: rows of one example each: the style of the sources and that of the
      targets, a word each, then images of one size, alternately source and
      target.
    key, config, tasks: not used.

  Returns:
    Term -> (sum, count): `contrast` and `caption`, which are losses, and the
    accuracy of each.
  """
  del key, config, tasks
  tokens = model.apply(
    {'params': params},
    batch.vit_patches,
    batch.vit_positions,
    batch.vit_visible_from,
    batch.vit_visible_to,
    method=Bagel.encode_images,
  )
  first, end = batch.vit_visible_from, batch.vit_visible_to
  same = (first[:, :, None] == first[:, None, :]) & (end[:, None, :] > 0)
  same = same.astype(jnp.float32)
  same = same / jnp.maximum(same.sum(-1, keepdims=True), 1.0)
  sources, targets = (
    jnp.einsum('bpq,bqd->bpd', same, values)
    for values in _values(model, params, tokens)
  )
  place = jnp.arange(first.shape[1])
  size = jnp.maximum(end - first, 1)
  begins = (place == first) & (end > 0)
  is_target = (first // size) % 2 == 1
  flat = jnp.arange(first.size).reshape(first.shape)
  scores = _SHARPNESS * _unit(sources) @ _unit(targets).T
  losses, right = zip(
    _nearest(scores, begins & ~is_target, begins & is_target, flat + size),
    _nearest(scores.T, begins & is_target, begins & ~is_target, flat - size),
    strict=True,
  )
  count = 2.0 * (begins & is_target).sum()
  caption = _caption_sums(params, batch, same, tokens, begins, is_target)
  return {
    'contrast': (sum(losses), count),
    'contrast_accuracy': (sum(right), count),
    **caption,
  }


# Tokens that predict the two words, in <|im_start|> word <|im_end|> twice.
_WORDS = (0, 3)
# The columns of a new output layer are short, so its logits are small.
_CAPTION_SHARPNESS = 4.0


def _caption_sums(params, batch: PackedBatch, same, tokens, begins, is_target):
  """Loss of the style's word, predicted by the output layer from an image."""
  x = jnp.einsum('bpq,bqe->bpe', same, tokens.astype(jnp.float32))
  x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
  logits = _CAPTION_SHARPNESS * x @ params['lm_head']['kernel']
  which = is_target.astype(jnp.int32)
  label, weight = (
    jnp.take_along_axis(values[:, jnp.array(_WORDS)], which, axis=1)
    for values in (batch.labels, batch.ntp_weight)
  )
  weight = weight * begins
  picked = jnp.take_along_axis(logits, label[..., None], -1)[..., 0]
  loss = jax.nn.logsumexp(logits, axis=-1) - picked
  right = (logits.argmax(-1) == label) * weight
  return {
    'caption': ((loss * weight).sum(), weight.sum()),
    'caption_accuracy': (right.sum(), weight.sum()),
  }


def _values(model: Bagel, params, tokens: Float[Array, 'b p e']):
  """Values of the first layer, of the second and of the first key head."""
  llm = model.config.llm
  und = params['mot']['layers']['und']
  x = tokens.astype(jnp.float32)
  x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + llm.norm_eps)
  x = x * und['input_norm']['scale'][0]
  values = x @ und['v_proj']['kernel'][0] + und['v_proj']['bias'][0]
  near, far = jnp.split(values[..., : 2 * llm.head_dim], 2, axis=-1)
  return far, near


def _unit(x: Float[Array, 'b p d']) -> Float[Array, 'n d']:
  x = x.reshape(-1, x.shape[-1])
  return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6)


def _nearest(scores, asks, answers, partner):
  """Cross-entropy and hits of selecting the partner among all answers."""
  scores = jnp.where(answers.reshape(1, -1), scores, -1e9)
  place = jnp.clip(partner.reshape(-1), 0, scores.shape[1] - 1)
  picked = jnp.take_along_axis(scores, place[:, None], 1)[:, 0]
  asks = asks.reshape(-1).astype(jnp.float32)
  loss = jax.nn.logsumexp(scores, axis=1) - picked
  return (loss * asks).sum(), ((scores.argmax(1) == place) * asks).sum()
