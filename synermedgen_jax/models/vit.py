"""SigLIP's vision transformer over patches of many images in one buffer.

NaViT-style: images of any size lie one after another; a patch attends to its
own image only, told by intervals (BAGEL, modeling/bagel/siglip_navit.py).
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from synermedgen_jax.models.interval_attention import interval_attention
from synermedgen_jax.models.layers import by_row, linear, named, rematerialised


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
  remat: str = 'none'
  attention: str | None = None  # an implementation's name; None = automatic
  unroll: int = 1  # layers per turn of the scan; all of them is fast on CPU


class ViTLayer(nn.Module):
  """Pre-norm attention and a tanh-GELU MLP."""

  config: ViTConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, intervals):
    c = self.config
    order, visible_from, visible_to = intervals
    norm = {'epsilon': c.norm_eps, 'dtype': self.dtype}
    y = nn.LayerNorm(name='norm1', **norm)(x)

    def project(name):
      z = linear(c.hidden, ('embed', 'heads'), dtype=self.dtype, name=name)(y)
      return z.reshape(*z.shape[:2], c.heads, -1)

    y = interval_attention(
      project('q_proj'),
      project('k_proj'),
      project('v_proj'),
      order,
      visible_from,
      visible_to,
      implementation=c.attention,
    )
    y = y.reshape(*x.shape)
    x = x + linear(
      c.hidden, ('heads', 'embed'), dtype=self.dtype, name='out_proj'
    )(y)
    y = nn.LayerNorm(name='norm2', **norm)(x)
    y = linear(c.mlp, ('embed', 'mlp'), dtype=self.dtype, name='fc1')(y)
    y = nn.gelu(y, approximate=True)
    x = x + linear(c.hidden, ('mlp', 'embed'), dtype=self.dtype, name='fc2')(y)
    return by_row(x), None


class ViT(nn.Module):
  """Patches to features; one scanned stack."""

  config: ViTConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    patches: Float[Array, 'b p d'],
    positions: Int[Array, 'b p'],
    visible_from: Int[Array, 'b p'],
    visible_to: Int[Array, 'b p'],
  ) -> Float[Array, 'b p e']:
    c = self.config
    table = self.param(
      'position_embedding',
      named(nn.initializers.normal(0.02), None, None),
      (c.table**2, c.hidden),
    )
    x = linear(
      c.hidden, (None, 'embed'), dtype=self.dtype, name='patch_embedding'
    )(patches)
    x = by_row(x + table[positions].astype(self.dtype))
    order = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    scanned = nn.scan(
      rematerialised(ViTLayer, c.remat),
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(nn.broadcast,),
      length=c.layers,
      unroll=c.unroll,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c, self.dtype, name='layers')
    x, _ = scanned(x, (order, visible_from, visible_to))
    return nn.LayerNorm(epsilon=c.norm_eps, dtype=self.dtype, name='post_norm')(
      x
    )
