"""Losses of critics and generators, and the pool of earlier images."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from synermedgen_jax.core.trees import Flat


def logistic(logits: Float[Array, ...], real: bool) -> Float[Array, ...]:
  """Binary cross-entropy of logits that should say real or fake."""
  return optax.sigmoid_binary_cross_entropy(
    logits, jnp.full_like(logits, float(real))
  )


def least_squares(values: Float[Array, ...], real: bool) -> Float[Array, ...]:
  """Squared error from 1 (real) or 0 (fake), as of LSGAN (arXiv 1611.04076)."""
  return jnp.square(values - float(real))


def softplus(logits: Float[Array, ...], real: bool) -> Float[Array, ...]:
  """The non-saturating loss of DDGAN; equal to `logistic`."""
  return jax.nn.softplus(-logits if real else logits)


def penalty(
  judge: Callable[[Array], Array],
  real: Float[Array, 'b h w c'],
  key: jax.Array,
  *,
  share: float = 0.1,
) -> Float[Array, ' b']:
  """The squared gradient of a critic at real images (R1, arXiv 1801.04406).

  Args:
    judge: images to a logit each.
    real: the images.
    key: decides, with probability `share`, whether the penalty applies; else it
      is zero and costs nothing.
    share: of the steps with a penalty.
  """

  def norms():
    gradient = jax.grad(lambda image: judge(image).sum())(real)
    return jnp.square(gradient).sum((1, 2, 3))

  with jax.named_scope(f'share={share}'):  # read by `training.flops`
    return jax.lax.cond(
      jax.random.bernoulli(key, share), norms, lambda: jnp.zeros(len(real))
    )


def new_pool(size: int, shape: tuple[int, ...]) -> Flat:
  """An empty pool of `size` images of `shape`."""
  return {
    'images': jnp.zeros((size, *shape)),
    'count': jnp.zeros((), jnp.int32),
  }


def exchange(
  pool: Flat, images: Float[Array, 'b h w c'], key: jax.Array
) -> tuple[Flat, Float[Array, 'b h w c']]:
  """Exchanges new images with those of a pool (arXiv 1612.07828).

  Until the pool is full, an image is stored and returned. Afterwards, with
  probability 0.5, an image takes the place of a random one of the pool, which
  is returned instead.

  Args:
    pool: from `new_pool` or this function.
    images: new images.
    key: random key.

  Returns:
    The changed pool, and one image for each new one.
  """
  size = len(pool['images'])

  def one(pool, inputs):
    image, key = inputs
    swap_key, place_key = jax.random.split(key)
    filling = pool['count'] < size
    swap: Bool[Array, ''] = jax.random.bernoulli(swap_key)
    place = jnp.where(
      filling, pool['count'], jax.random.randint(place_key, (), 0, size)
    )
    old = pool['images'][place]
    stored = jnp.where(filling | swap, image, old)
    returned = jnp.where(filling | ~swap, image, old)
    changed = {
      'images': pool['images'].at[place].set(stored),
      'count': jnp.minimum(pool['count'] + 1, size),
    }
    return changed, returned

  return jax.lax.scan(one, pool, (images, jax.random.split(key, len(images))))
