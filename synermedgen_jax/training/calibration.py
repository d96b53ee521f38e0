"""Scales the latents of a new autoencoder to unit variance."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from synermedgen_jax.core import trees
from synermedgen_jax.core.sharding import batch_sharding
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.canvases import used_canvases
from synermedgen_jax.training import loop
from synermedgen_jax.training.train_state import TrainState


def calibrate_latents(
  model: Bagel, state: TrainState, data, mesh, *, batches: int = 8
) -> TrainState:
  """Sets the latents' shift and scale from training images.

  Flow matching starts from noise of unit variance, so latents should have unit
  variance. FLUX's constants do this for FLUX's autoencoder only. Canvases
  without an image do not count.
  """

  @jax.jit
  def sums(params, batch):
    images = batch.vae_images.reshape(-1, *batch.vae_images.shape[2:])
    mean, _ = model.apply({'params': params}, images, method=Bagel.moments)
    used = used_canvases(batch, model.config.latent_stride).reshape(-1, 1)
    first, second = (
      (moment.mean((1, 2)) * used).sum(0) for moment in (mean, jnp.square(mean))
    )
    return first, second, used.sum()

  params = {**state.frozen, **(state.ema or state.trainable)}
  params = trees.unflatten(params)
  rows = batch_sharding(mesh)
  parts = [
    sums(params, loop.to_devices(next(data), rows)) for _ in range(batches)
  ]
  first, second, count = (sum(part) for part in zip(*parts, strict=True))
  mean, square = first / count, second / count
  scale = 1 / jnp.sqrt(jnp.maximum(square - mean**2, 1e-12))
  frozen = dict(state.frozen)
  dtype = model.compute.dtype
  frozen['autoencoder/latent_shift'] = mean.astype(dtype)
  frozen['autoencoder/latent_scale'] = scale.astype(dtype)
  return state.replace(frozen=frozen)
