"""Images as codes: a quantiser of latent tokens, and which codes are hidden.

Finite scalar quantisation (arXiv 2309.15505): five numbers per latent token,
each bounded and rounded to one of its levels, so that every token is one of
8192 codes. There is no codebook and no loss of one.

A model of codes sees latents that the quantiser returns. A hidden code is a
latent of zeros at timestep 1, a known one has timestep 0: the embedding of the
timestep is the mask token. 'masked' hides codes at random and predicts them,
all at once (MaskGIT, arXiv 2202.04200; Show-o). 'autoregressive' shows every
token the code of the token before it, row by row (Janus-Pro).
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from synermedgen_jax.models.layers import linear

GENERATIONS = ('flow', 'masked', 'autoregressive')
LEVELS = (8, 8, 8, 4, 4)
CODES = math.prod(LEVELS)
_HIDDEN = 128


class Quantiser(nn.Module):
  """Latent tokens to codes and back, in float32.

  Attributes:
    width: numbers of a latent token.
  """

  width: int

  def setup(self):
    def dense(features):
      return linear(features, (None, None), dtype=jnp.float32)

    self.down1, self.down2 = dense(_HIDDEN), dense(len(LEVELS))
    self.up1, self.up2 = dense(_HIDDEN), dense(self.width)

  def digits(self, latents: Float[Array, '*t d']) -> Float[Array, '*t k']:
    """Whole numbers from 0 to each level less one; rounding has gradient 1."""
    x = self.down2(nn.gelu(self.down1(latents)))
    bounded = nn.sigmoid(x) * (np.asarray(LEVELS, np.float32) - 1)
    return bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)

  def from_digits(self, digits: Float[Array, '*t k']) -> Float[Array, '*t d']:
    """Latents of digits."""
    x = 2 * digits / (np.asarray(LEVELS, np.float32) - 1) - 1
    return self.up2(nn.gelu(self.up1(x)))

  def codes(self, latents: Float[Array, '*t d']) -> Int[Array, '*t']:
    """The code of every latent, from 0 to `CODES` - 1."""
    digits = jnp.round(self.digits(latents)).astype(jnp.int32)
    return jnp.ravel_multi_index(
      tuple(jnp.moveaxis(digits, -1, 0)), LEVELS, mode='clip'
    )

  def from_codes(self, codes: Int[Array, '*t']) -> Float[Array, '*t d']:
    """Latents of codes."""
    digits = jnp.stack(jnp.unravel_index(codes, LEVELS), axis=-1)
    return self.from_digits(digits.astype(jnp.float32))

  def __call__(self, latents: Float[Array, '*t d']) -> Float[Array, '*t d']:
    """Latents as their codes keep them."""
    return self.from_digits(self.digits(latents))


def masked_share(t: Float[Array, ...]) -> Float[Array, ...]:
  """MaskGIT's cosine schedule: the share of hidden codes; 1 at t = 1."""
  return jnp.sin(0.5 * jnp.pi * t)


def draw_hidden(
  key: jax.Array, noise_ids: Int[Array, 'b g']
) -> Bool[Array, 'b g']:
  """Codes to hide in training: each image has a share, t uniform."""
  rows, tokens = noise_ids.shape
  share_key, token_key = jax.random.split(key)
  share = masked_share(jax.random.uniform(share_key, (rows, tokens + 1)))
  drawn = jax.random.uniform(token_key, (rows, tokens))
  return (noise_ids > 0) & (
    drawn < jnp.take_along_axis(share, noise_ids, axis=1)
  )


def shift_right(
  latents: Float[Array, 'b g d'], noise_ids: Int[Array, 'b g']
) -> tuple[Float[Array, 'b g d'], Bool[Array, 'b g']]:
  """The latent before each one, and the first tokens of images, without one."""
  before = jnp.pad(latents[:, :-1], ((0, 0), (1, 0), (0, 0)))
  ids = jnp.pad(noise_ids[:, :-1], ((0, 0), (1, 0)))
  return before, (noise_ids > 0) & (ids != noise_ids)


def with_hidden(
  latents: Float[Array, 'b g d'], hidden: Bool[Array, 'b g']
) -> tuple[Float[Array, 'b g d'], Float[Array, 'b g']]:
  """Latents and timesteps that a model of codes sees."""
  shown = jnp.where(hidden[..., None], 0.0, latents)
  return shown, hidden.astype(jnp.float32)
