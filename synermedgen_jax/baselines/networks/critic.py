"""DDGAN's discriminator of large images, which sees the time.

It tells a true step of the diffusion from a generated one (Xiao et al., 2022,
DDGAN). SynDiff and SelfRDB use it beside `ncsnpp`.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from synermedgen_jax.baselines.networks import fir
from synermedgen_jax.baselines.networks.ncsnpp import (
  FAN_AVERAGE,
  NEAR_ZERO,
  TimeEmbedding,
)
from synermedgen_jax.models.convolutions import conv, leaky_relu

_LARGEST_GROUP = 4


@dataclasses.dataclass(frozen=True)
class CriticConfig:
  """The shape of the critic; by default SynDiff's, 27.74 M parameters.

  Attributes:
    channels: half of the first layer's; blocks have 4, then 8 times as many.
      SelfRDB has 32.
    down_blocks: residual blocks, each of which halves height and width.
    time: features of the time embedding.
  """

  channels: int = 64
  down_blocks: int = 6
  time: int = 256

  @property
  def stride(self) -> int:
    """Pixels per place of the last block, along each axis."""
    return 2**self.down_blocks


class DownBlock(nn.Module):
  """A residual block that halves height and width."""

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], time: Float[Array, 'b f']
  ) -> Float[Array, 'b y x d']:
    y = _conv(self.features, 3, self.dtype, 'conv1')(leaky_relu(x))
    y += nn.Dense(
      self.features, kernel_init=FAN_AVERAGE, dtype=self.dtype, name='time'
    )(time)[:, None, None]
    y = fir.downsample(leaky_relu(y))
    y = _conv(self.features, 3, self.dtype, 'conv2', init=NEAR_ZERO)(y)
    shortcut = _conv(self.features, 1, self.dtype, 'shortcut', bias=False)
    return (shortcut(fir.downsample(x)) + y) / math.sqrt(2)


class Critic(nn.Module):
  """Two successive images of the diffusion and their time to a logit.

  Attributes:
    config: the shape.
    dtype: of the computation; parameters and logits are float32.
  """

  config: CriticConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], t: Real[Array, ' b']
  ) -> Float[Array, ' b']:
    """Scores pairs of images; a high logit says that they are true.

    Args:
      x: x_t and x_{t+1} as channels, then those of a condition, if any; height
        and width are multiples of `config.stride`.
      t: the number of each pair's step.

    Returns:
      A logit for each pair. It depends on the other images of its group: see
      `with_minibatch_deviation`.

    Raises:
      ValueError: height or width is not a multiple of `config.stride`, or the
        batch does not split into groups.
    """
    c, dtype = self.config, self.dtype
    fir.require_sides(x, c.stride)
    time = TimeEmbedding(c.time, c.time, leaky_relu, dtype, name='time')(t)
    y = _conv(2 * c.channels, 1, dtype, 'conv_in')(x)
    for block in range(c.down_blocks):
      features = c.channels * (4 if block == 0 else 8)
      y = DownBlock(features, dtype, name=f'block{block}')(y, time)
    features = y.shape[-1]
    y = _conv(features, 3, dtype, 'conv_out')(with_minibatch_deviation(y))
    y = leaky_relu(y).astype(jnp.float32).sum((1, 2))
    return nn.Dense(1, kernel_init=FAN_AVERAGE, name='logit')(y)[:, 0]


def with_minibatch_deviation(
  x: Float[Array, 'b h w c'],
) -> Float[Array, 'b h w d']:
  """Adds a channel that says how much the images of a group differ.

  A group has min(b, 4) images, and there are n = b / min(b, 4) groups: image i
  belongs to group i mod n. The channel is the group's standard deviation of
  each place and channel, averaged over both (Karras et al., 2018).

  Returns:
    (b, h, w, c + 1).

  Raises:
    ValueError: the batch does not split into such groups.
  """
  b, h, w, c = x.shape
  group = min(b, _LARGEST_GROUP)
  if b % group:
    raise ValueError(
      f'The critic compares images in groups of {group}: {b} images are not a '
      'whole number of groups.'
    )
  groups = x.astype(jnp.float32).reshape(group, b // group, h, w, c)
  # The derivative of the square root is finite for equal images too.
  deviation = jnp.sqrt(groups.var(0) + 1e-8).mean((1, 2, 3))
  plane = jnp.tile(deviation, group).astype(x.dtype)[:, None, None, None]
  return jnp.concatenate([x, jnp.broadcast_to(plane, (b, h, w, 1))], axis=-1)


def _conv(features, kernel, dtype, name, *, bias=True, init=FAN_AVERAGE):
  return conv(features, kernel, bias=bias, init=init, dtype=dtype, name=name)
