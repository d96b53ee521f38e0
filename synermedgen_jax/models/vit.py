"""SigLIP's vision transformer over patches of many images in one buffer.

NaViT-style: images of any size lie one after another. Visibility intervals
keep a patch's attention within its own image (BAGEL,
modeling/bagel/siglip_navit.py). Images of one size become rows of their own,
which need no mask.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.interval_attention import interval_attention
from synermedgen_jax.models.layers import (
  constrain_rows,
  linear,
  named,
  scanned,
)


@dataclasses.dataclass(frozen=True)
class ViTConfig:
  """The shape of the vision transformer."""

  hidden: int
  layers: int
  heads: int
  mlp: int
  patch: int
  channels: int
  table: int  # side of the learned position table, in patches
  norm_eps: float = 1e-6


class ViTLayer(nn.Module):
  """Pre-norm attention and a tanh-GELU MLP."""

  config: ViTConfig
  compute: Compute

  @nn.compact
  def __call__(self, x, intervals):
    c, dtype = self.config, jnp.dtype(self.compute.dtype)
    order, visible_from, visible_to = intervals
    norm = {'epsilon': c.norm_eps, 'dtype': dtype}
    y = nn.LayerNorm(name='norm1', **norm)(x)

    def project(name):
      z = linear(c.hidden, ('embed', 'heads'), dtype=dtype, name=name)(y)
      return z.reshape(*z.shape[:2], c.heads, -1)

    y = interval_attention(
      project('q_proj'),
      project('k_proj'),
      project('v_proj'),
      order,
      visible_from,
      visible_to,
      implementation=self.compute.attention,
    )
    y = y.reshape(*x.shape)
    x = x + linear(c.hidden, ('heads', 'embed'), dtype=dtype, name='out_proj')(
      y
    )
    y = nn.LayerNorm(name='norm2', **norm)(x)
    y = linear(c.mlp, ('embed', 'mlp'), dtype=dtype, name='fc1')(y)
    y = nn.gelu(y, approximate=True)
    x = x + linear(c.hidden, ('mlp', 'embed'), dtype=dtype, name='fc2')(y)
    return constrain_rows(x), None


def _in_rows(x: Float[Array, 'b p e'], length: int) -> Float[Array, 'c q e']:
  """The same patches in rows of another length."""
  # libtpu fails to fuse some of these reshapes with their neighbours.
  x = lax.optimization_barrier(x).reshape(-1, length, x.shape[-1])
  return constrain_rows(lax.optimization_barrier(x))


class ViT(nn.Module):
  """Patches to features; one scanned stack."""

  config: ViTConfig
  compute: Compute

  @nn.compact
  def __call__(
    self,
    patches: Float[Array, 'b p d'],
    positions: Int[Array, 'b p'],
    visible_from: Int[Array, 'b p'],
    visible_to: Int[Array, 'b p'],
    image_patches: int = 0,
  ) -> Float[Array, 'b p e']:
    """Encodes the patches of all images.

    Args:
      patches, positions, visible_from, visible_to: fields `vit_*` of a
        `PackedBatch`.
      image_patches: patches of every image, or 0; see `PackedBatch`. Entries
        after the last whole image are zero.
    """
    c, dtype = self.config, jnp.dtype(self.compute.dtype)
    table = self.param(
      'position_embedding',
      named(nn.initializers.normal(0.02), None, None),
      (c.table**2, c.hidden),
    )
    x = linear(c.hidden, (None, 'embed'), dtype=dtype, name='patch_embedding')(
      patches
    )
    x = constrain_rows(x + table[positions].astype(dtype))
    length = x.shape[1]
    if image_patches:
      whole = length - length % image_patches
      x = _in_rows(x[:, :whole], image_patches)
      visible_from = jnp.zeros(x.shape[:2], jnp.int32)
      visible_to = visible_from + image_patches
    order = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    stack = scanned(
      ViTLayer, self.compute, length=c.layers, in_axes=(nn.broadcast,)
    )
    layers = stack(c, self.compute, name='layers')
    x, _ = layers(x, (order, visible_from, visible_to))
    x = nn.LayerNorm(epsilon=c.norm_eps, dtype=dtype, name='post_norm')(x)
    if image_patches:
      x = _in_rows(x, whole)
      x = jnp.pad(x, ((0, 0), (0, length - whole), (0, 0)))
    return x
