"""Losses of autoencoder and quantiser, the stages without a language model."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.canvases import used_canvases

Sums = dict[str, tuple[Array, Array]]  # term -> (sum, count)


def autoencoder_sums(
  model: Bagel, params, batch: PackedBatch, key: jax.Array, config, tasks
) -> Sums:
  """Stage 0: errors of the reconstruction and the posterior's KL."""
  del config, tasks
  bound, images = model.bind({'params': params}), _canvases(batch)
  mean, logvar = bound.moments(images)
  z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
  kl = 0.5 * (mean**2 + jnp.exp(logvar) - 1.0 - logvar)
  terms = _errors(bound.decode_raw(z), images) | {'kl': kl}
  return _per_image(terms, batch, model.config.latent_stride)


def quantiser_sums(
  model: Bagel, params, batch: PackedBatch, key: jax.Array, config, tasks
) -> Sums:
  """Errors of images through the autoencoder and codes of their latents."""
  del key, config, tasks
  bound, images = model.bind({'params': params}), _canvases(batch)
  terms = _errors(bound.reconstruct(images), images)
  return _per_image(terms, batch, model.config.latent_stride)


def images_in(batch: PackedBatch, stride: int) -> Float[Array, '']:
  """Number of images in a batch, for the ViT and for the autoencoder."""
  first = batch.vit_visible_from == jnp.arange(batch.vit_visible_from.shape[1])
  seen = (first & (batch.vit_visible_to > 0)).sum().astype(jnp.float32)
  if not batch.latent_index.shape[1]:
    return seen
  return seen + used_canvases(batch, stride).sum()


def _canvases(batch: PackedBatch) -> Float[Array, 'n h w c']:
  b, n = batch.vae_images.shape[:2]
  return batch.vae_images.reshape(b * n, *batch.vae_images.shape[2:])


def _errors(decoded: Array, images: Array) -> dict[str, Array]:
  error = decoded - images
  return {'l1': jnp.abs(error), 'l2': jnp.square(error)}


def _per_image(
  terms: Mapping[str, Float[Array, 'n h w c']], batch: PackedBatch, stride: int
) -> Sums:
  """Sums over images of the mean of each term, and the number of images."""
  used = used_canvases(batch, stride).reshape(-1)
  return {
    name: ((term.mean((1, 2, 3)) * used).sum(), used.sum())
    for name, term in terms.items()
  }
