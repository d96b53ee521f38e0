"""Scales the latents of a new autoencoder to unit variance."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from synermedgen_jax.core import trees
from synermedgen_jax.core.sharding import batch_sharding
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.training import loop
from synermedgen_jax.training.train_state import TrainState


def calibrate_latents(
  model: Bagel, state: TrainState, data, mesh, *, batches: int = 8
) -> TrainState:
  """Sets the latents' shift and scale from training images.

  Flow matching starts from noise of unit variance, so latents should have unit
  variance. FLUX's constants do this for FLUX's autoencoder only.
  """

  @jax.jit
  def moments(params, images):
    images = images.reshape(-1, *images.shape[2:])
    mean, _ = model.apply({'params': params}, images, method=Bagel.moments)
    return mean.mean((0, 1, 2)), jnp.square(mean).mean((0, 1, 2))

  params = {**state.frozen, **(state.ema or state.trainable)}
  params = trees.unflatten(params)
  rows = batch_sharding(mesh)
  sums = [
    moments(params, loop.to_devices(next(data), rows).vae_images)
    for _ in range(batches)
  ]
  mean = sum(first for first, _ in sums) / batches
  square = sum(second for _, second in sums) / batches
  scale = 1 / jnp.sqrt(jnp.maximum(square - mean**2, 1e-12))
  frozen = dict(state.frozen)
  dtype = model.compute.dtype
  frozen['autoencoder/latent_shift'] = mean.astype(dtype)
  frozen['autoencoder/latent_scale'] = scale.astype(dtype)
  return state.replace(frozen=frozen)
