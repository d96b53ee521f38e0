"""ResViT's generator: a residual CNN with a vision transformer in its middle.

Source: Dalmaz et al., IEEE TMI 2022 (arXiv 2106.16031); icon-lab/ResViT,
models/residual_transformers.py. An aggregated residual transformer (ART) block
is a residual block; blocks 1 and 6 first add what one shared vision transformer
makes of the image. The first stage of training has no transformer.

Convolutions and attention start as PyTorch's do.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synermedgen_jax.models.convolutions import (
  ConvTranspose,
  batch_norm,
  conv,
  reflect_pad,
  require_sides,
)

TRANSFORMER_BLOCKS = (1, 6)
_PATCH = 16  # pixels of a token, along each axis

# PyTorch's default; it takes the output channels of a transposed convolution
# for its fan-in.
_UNIFORM = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
_UNIFORM_TRANSPOSED = nn.initializers.variance_scaling(
  1 / 3, 'fan_out', 'uniform'
)


@dataclasses.dataclass(frozen=True)
class ResViTConfig:
  """The shape of the generator; by default 123.44 M parameters at 256 pixels.

  Attributes:
    width: channels at full resolution; 4 times as many in the blocks, at a
      quarter of it.
    blocks: residual blocks.
    transformers: blocks 1 and 6 have a transformer before them; else the
      network of the first stage of training. Its parameters are among those of
      the whole network, under the same names.
    vit_layers: layers of the transformer.
    vit_hidden: features of a token.
    vit_heads: attention heads; they divide `vit_hidden`.
    vit_mlp: features within the MLP of a layer.
    dropout: rate of the embedded tokens and in the MLPs.
    out_channels: those of the output.
  """

  width: int = 64
  blocks: int = 9
  transformers: bool = True
  vit_layers: int = 12
  vit_hidden: int = 768
  vit_heads: int = 12
  vit_mlp: int = 3072
  dropout: float = 0.1
  out_channels: int = 1


class ConvNorm(nn.Module):
  """A convolution without bias and a batch normalisation."""

  features: int
  dtype: jnp.dtype
  kernel: int = 3
  stride: int = 1
  pad: int | None = None

  @nn.compact
  def __call__(self, x, condition=None):
    x = conv(
      self.features,
      self.kernel,
      stride=self.stride,
      pad=self.pad,
      bias=False,
      init=_UNIFORM,
      dtype=self.dtype,
      name='conv',
    )(x)
    return _norm(self.dtype)(x, condition)


class UpConvNorm(nn.Module):
  """A doubling convolution without bias and a batch normalisation."""

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    x = ConvTranspose(
      self.features,
      3,
      bias=False,
      kernel_init=_UNIFORM_TRANSPOSED,
      dtype=self.dtype,
      name='conv',
    )(x)
    return _norm(self.dtype)(x)


class ResidualBlock(nn.Module):
  """Two convolutions of mirrored images and a shortcut."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    layer = functools.partial(ConvNorm, x.shape[-1], self.dtype, pad=0)
    y = jax.nn.relu(layer(name='conv_0')(reflect_pad(x, 1)))
    return x + layer(name='conv_1')(reflect_pad(y, 1))


class ChannelCompression(nn.Module):
  """A residual block to fewer channels."""

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    layer = functools.partial(ConvNorm, self.features, self.dtype)
    y = layer(name='conv_1')(jax.nn.relu(layer(name='conv_0')(x)))
    return jax.nn.relu(y + layer(kernel=1, name='shortcut')(x))


class ViTLayer(nn.Module):
  """Pre-norm attention and MLP, each with a shortcut."""

  config: ResViTConfig
  train: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b n e']) -> Float[Array, 'b n e']:
    x = x + self._attention(_layer_norm(self.dtype, 'norm1')(x))
    return x + self._mlp(_layer_norm(self.dtype, 'norm2')(x))

  def _attention(self, x):
    def dense(name):
      return nn.Dense(
        x.shape[-1], kernel_init=_UNIFORM, dtype=self.dtype, name=name
      )

    query, key, value = (
      dense(name)(x).reshape(*x.shape[:2], self.config.vit_heads, -1)
      for name in ('query', 'key', 'value')
    )
    y = jax.nn.dot_product_attention(query, key, value)
    return dense('out')(y.reshape(x.shape))

  def _mlp(self, x):
    def dense(features, name):
      return nn.Dense(
        features,
        kernel_init=nn.initializers.xavier_uniform(),
        dtype=self.dtype,
        name=name,
      )

    drop = nn.Dropout(self.config.dropout, deterministic=not self.train)
    y = drop(nn.gelu(dense(self.config.vit_mlp, 'fc1')(x), approximate=False))
    return drop(dense(x.shape[-1], 'fc2')(y))


class ViTEncoder(nn.Module):
  """The layers of a vision transformer and the last norm."""

  config: ResViTConfig
  train: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b n e']) -> Float[Array, 'b n e']:
    for number in range(self.config.vit_layers):
      layer = ViTLayer(
        self.config, self.train, self.dtype, name=f'layer_{number}'
      )
      x = layer(x)
    return _layer_norm(self.dtype, 'norm_out')(x)


class TransformerHead(nn.Module):
  """Adds what the transformer makes of the features before an ART block."""

  config: ResViTConfig
  train: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], vit: ViTEncoder
  ) -> Float[Array, 'b h w c']:
    """Tokens of a quarter of the height and width, and back.

    Args:
      x: features at a quarter of the resolution of the image.
      vit: the transformer that all heads share.
    """
    channels = x.shape[-1]
    y = x
    for number, features in enumerate((2 * channels, 4 * channels)):
      y = jax.nn.relu(
        ConvNorm(features, self.dtype, stride=2, name=f'down_{number}')(y)
      )
    y = self._encoded(y, vit)
    for number, features in enumerate((2 * channels, channels)):
      up = UpConvNorm(features, self.dtype, name=f'up_{number}')
      y = jax.nn.relu(up(y))
    x = jnp.concatenate([y, x], axis=-1)
    return ChannelCompression(channels, self.dtype, name='compression')(x)

  def _encoded(self, x, vit):
    """The transformer's result for each place, in the places' order."""
    c = self.config
    x = conv(c.vit_hidden, 1, init=_UNIFORM, dtype=self.dtype, name='embed')(x)
    x = x + self._positions(x.shape[1:]).astype(self.dtype)
    x = nn.Dropout(c.dropout, deterministic=not self.train)(x)
    b, rows, columns, features = x.shape
    return vit(x.reshape(b, rows * columns, features)).reshape(x.shape)

  def _positions(self, shape):
    """Learned positions, one for each place of the images that came first."""
    if self.has_variable('params', 'positions'):
      known = self.get_variable('params', 'positions').shape
      if known != shape:
        images, learned = (
          f'{rows * _PATCH} x {columns * _PATCH}'
          for rows, columns, _ in (shape, known)
        )
        raise ValueError(
          f'images of {images} pixels; positions are learned for {learned}'
        )
    return self.param('positions', nn.initializers.zeros, shape)


class ResViT(nn.Module):
  """Images to images.

  Attributes:
    config: the shape of the network.
    dtype: of the computation; parameters, norms' statistics and output are
      float32.
  """

  config: ResViTConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    train: bool,
    condition: Float[Array, 'b k'] | None = None,
  ) -> Float[Array, 'b h w o']:
    """Generates images.

    Args:
      x: any number of channels.
      train: dropout, which takes the random key 'dropout'.
      condition: scales and shifts the norms of the first three layers.

    Returns:
      Images in [-1, 1].

    Raises:
      ValueError: if the strides do not divide the sides, if the lowest
        resolution has fewer than 2 pixels along an axis, or if images differ
        in size from those that the transformer's positions were made for.
    """
    c, dtype = self.config, self.dtype
    stride = _PATCH if c.transformers else 4
    require_sides(x, stride, 2 * stride)
    layer = functools.partial(ConvNorm, dtype=dtype)
    stem = layer(c.width, kernel=7, pad=0, name='stem')
    x = jax.nn.relu(stem(reflect_pad(x, 3), condition))
    for level in (1, 2):
      features, name = c.width * 2**level, f'down_{level}'
      x = jax.nn.relu(layer(features, stride=2, name=name)(x, condition))
    x = self._blocks(x, train)
    for level in (1, 0):
      features, name = c.width * 2**level, f'up_{level}'
      x = jax.nn.relu(UpConvNorm(features, dtype, name=name)(x))
    x = conv(c.out_channels, 7, pad=0, init=_UNIFORM, dtype=dtype, name='out')(
      reflect_pad(x, 3)
    )
    return jnp.tanh(x.astype(jnp.float32))

  def _blocks(self, x, train):
    c, dtype = self.config, self.dtype
    if c.transformers:
      vit = ViTEncoder(c, train, dtype, name='vit')
    for number in range(1, c.blocks + 1):
      if c.transformers and number in TRANSFORMER_BLOCKS:
        head = TransformerHead(c, train, dtype, name=f'head_{number}')
        x = head(x, vit)
      x = ResidualBlock(dtype, name=f'block_{number}')(x)
    return x


def _norm(dtype):
  return batch_norm(scale_init=nn.initializers.ones, dtype=dtype, name='norm')


def _layer_norm(dtype, name):
  return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)
