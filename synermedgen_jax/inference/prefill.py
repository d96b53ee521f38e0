"""Runs prompts once and caches their keys and values."""

from __future__ import annotations

import jax.numpy as jnp

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.mot import EXPERTS, Cache


def prefill(model: Bagel, params, batch: PackedBatch) -> Cache:
  """Returns the keys and values of packed prompts and their visible intervals.

  Args:
    model: the model.
    params: its parameters.
    batch: one prompt per row, without noised images.
  """
  variables = {'params': params}
  latents = t = None
  if batch.latent_index.shape[1]:
    latents = model.apply(variables, batch, method=Bagel.row_latents)
    t = jnp.zeros(batch.latent_index.shape)
  streams = model.apply(variables, batch, latents, t, method=Bagel.embed_batch)
  _, (keys, values) = model.apply(
    variables, streams, return_keys=True, method=Bagel.backbone
  )

  def joined(field):
    parts = [getattr(streams[n], field) for n in EXPERTS if n in streams]
    return jnp.concatenate(parts, axis=1)

  return Cache(keys, values, joined('visible_from'), joined('visible_to'))
