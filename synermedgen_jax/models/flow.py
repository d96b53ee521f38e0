"""Timesteps of the flow: t = 0 is data, t = 1 is noise.

The loss is in `training/objectives.py`, the integration in
`inference/sampling.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def shift_timestep(t: Float[Array, ...], shift: float) -> Float[Array, ...]:
  """s t / (1 + (s - 1) t): more weight near noise for s > 1."""
  return shift * t / (1 + (shift - 1) * t)


def draw_timesteps(
  key: jax.Array, noise_ids: Int[Array, 'b g'], shift: float
) -> Float[Array, 'b g']:
  """One timestep per noised image, shift(sigmoid(n)); 0 for clean latents."""
  rows, tokens = noise_ids.shape
  normal = jax.random.normal(key, (rows, tokens + 1))
  t = shift_timestep(jax.nn.sigmoid(normal), shift)
  return jnp.where(
    noise_ids > 0, jnp.take_along_axis(t, noise_ids, axis=1), 0.0
  )
