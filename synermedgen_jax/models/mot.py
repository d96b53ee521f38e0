"""The Mixture of Transformers: two experts, one self-attention.

Every layer holds two sets of weights, `und` for text and ViT tokens and `gen`
for latent tokens. Each expert runs on its own stream; attention runs on both
streams together, and on cached keys where there are any.

With `experts='shared'` the model is dense: `und` runs on both streams, and
there is no `gen`. A token needs as many operations as with two experts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TypeVar

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from synermedgen_jax.models import interval_attention
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.layers import (
  RMSNorm,
  SwiGLU,
  constrain_rows,
  linear,
  rope,
  scanned,
)

T = TypeVar('T')

# The order of the streams wherever they are joined. A scan sorts the keys of a
# dict, so the order of insertion would not last.
EXPERTS = ('und', 'gen')
# `MoTConfig.experts` -> the expert of each stream.
EXPERT_OF = {
  'mot': {'und': 'und', 'gen': 'gen'},
  'shared': {'und': 'und', 'gen': 'und'},
}


@dataclasses.dataclass(frozen=True)
class MoTConfig:
  """The shape of the language model (Qwen2.5's terms).

  `experts` is a key of `EXPERT_OF`: 'mot' is BAGEL's, 'shared' a dense model,
  as JanusFlow and Show-o2 have.

  Raises:
    ValueError: `experts` has another value.
  """

  hidden: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: int
  vocab: int
  norm_eps: float = 1e-6
  rope_theta: float = 1e6
  qk_norm: bool = True
  experts: str = 'mot'

  def __post_init__(self):
    if self.experts not in EXPERT_OF:
      raise ValueError(
        f'{self.experts!r}: expected one of {", ".join(EXPERT_OF)}.'
      )


@flax.struct.dataclass
class Tokens:
  """One stream between two layers."""

  x: Float[Array, 'b t e']
  positions: Int[Array, 'b t']
  order: Int[Array, 'b t']
  visible_from: Int[Array, 'b t']
  visible_to: Int[Array, 'b t']


@flax.struct.dataclass
class Cache:
  """Keys and values of earlier tokens, per layer, with their intervals."""

  keys: Float[Array, 'l b s n d']
  values: Float[Array, 'l b s n d']
  visible_from: Int[Array, 'b s']
  visible_to: Int[Array, 'b s']


class Expert(nn.Module):
  """One expert's weights in one layer, before and after the attention."""

  config: MoTConfig
  dtype: jnp.dtype

  def setup(self):
    c = self.config

    def projection(heads, axis):
      return linear(heads * c.head_dim, ('embed', axis), dtype=self.dtype)

    self.input_norm = RMSNorm(c.norm_eps)
    self.q_proj = projection(c.heads, 'heads')
    self.k_proj = projection(c.kv_heads, 'kv_heads')
    self.v_proj = projection(c.kv_heads, 'kv_heads')
    self.o_proj = linear(
      c.hidden, ('heads', 'embed'), use_bias=False, dtype=self.dtype
    )
    if c.qk_norm:
      self.q_norm = RMSNorm(c.norm_eps, axis_name='head_dim')
      self.k_norm = RMSNorm(c.norm_eps, axis_name='head_dim')
    self.post_norm = RMSNorm(c.norm_eps)
    self.mlp = SwiGLU(c.mlp, self.dtype)

  def project(self, tokens: Tokens):
    """Queries, keys and values of a stream, normalised and rotated."""
    c = self.config
    x = self.input_norm(tokens.x)

    def split(y):
      return y.reshape(*y.shape[:2], -1, c.head_dim)

    query, key = split(self.q_proj(x)), split(self.k_proj(x))
    value = split(self.v_proj(x))
    if c.qk_norm:
      query, key = self.q_norm(query), self.k_norm(key)
    query = rope(query, tokens.positions, c.rope_theta)
    key = rope(key, tokens.positions, c.rope_theta)
    return query, key, value

  def finish(self, x, attended):
    x = x + self.o_proj(attended.reshape(*attended.shape[:2], -1))
    return x + self.mlp(self.post_norm(x))


class MoTLayer(nn.Module):
  """One layer: a carry of streams by expert name, scanned over layers.

  Attributes:
    config: shape.
    compute: compute settings.
    detach_und: the und stream is a constant of the backward pass.
  """

  config: MoTConfig
  compute: Compute
  detach_und: bool = False

  @nn.compact
  def __call__(self, streams: dict[str, Tokens], cache):
    """Returns the streams and this layer's new keys and values.

    Args:
      streams: the tokens of each expert that has any.
      cache: (keys, values, visible_from, visible_to) of earlier tokens, or
        None.
    """
    streams = {name: streams[name] for name in EXPERTS if name in streams}
    dtype = jnp.dtype(self.compute.dtype)
    experts = _by_stream(
      self.config, streams, lambda e: Expert(self.config, dtype, name=e)
    )
    projected = {n: experts[n].project(streams[n]) for n in streams}
    if self.detach_und:
      projected['und'] = lax.stop_gradient(projected['und'])
    query, new_keys, new_values = (
      jnp.concatenate(parts, axis=1)
      for parts in zip(*projected.values(), strict=True)
    )

    def joined(field):
      return jnp.concatenate(
        [getattr(s, field) for s in streams.values()], axis=1
      )

    keys, values = new_keys, new_values
    visible_from, visible_to = joined('visible_from'), joined('visible_to')
    if cache is not None:
      keys = jnp.concatenate([cache[0], keys], axis=1)
      values = jnp.concatenate([cache[1], values], axis=1)
      visible_from = jnp.concatenate([cache[2], visible_from], axis=1)
      visible_to = jnp.concatenate([cache[3], visible_to], axis=1)
    attended = self._attend(
      query,
      keys,
      values,
      joined('order'),
      visible_from,
      visible_to,
      constant=streams['und'].x.shape[1] if self.detach_und else 0,
    )
    out, start = {}, 0
    for name, tokens in streams.items():
      stop = start + tokens.x.shape[1]
      x = experts[name].finish(tokens.x, attended[:, start:stop])
      if self.detach_und and name == 'und':
        x = lax.stop_gradient(x)
      out[name] = tokens.replace(x=constrain_rows(x))
      start = stop
    return out, (new_keys, new_values)

  def _attend(self, query, key, value, order, *visible, constant: int):
    """Attention; the first `constant` queries have no gradient.

    They are attended to apart, so that they cost nothing in the backward pass.
    """

    def attend(query, key, value, order):
      return interval_attention.interval_attention(
        query,
        key,
        value,
        order,
        *visible,
        implementation=self.compute.attention,
      )

    if not constant:
      return attend(query, key, value, order)
    first = attend(
      query[:, :constant],
      *lax.stop_gradient((key, value)),
      order[:, :constant],
    )
    rest = attend(query[:, constant:], key, value, order[:, constant:])
    return jnp.concatenate([first, rest], axis=1)


def _by_stream(
  config: MoTConfig, streams: Iterable[str], make: Callable[[str], T]
) -> dict[str, T]:
  """{stream: make(expert)}; streams with the same expert share the result."""
  expert_of = EXPERT_OF[config.experts]
  made = {e: make(e) for e in dict.fromkeys(map(expert_of.get, streams))}
  return {name: made[expert_of[name]] for name in streams}


class MoT(nn.Module):
  """The scanned stack of layers and each expert's final norm."""

  config: MoTConfig
  compute: Compute

  @nn.compact
  def __call__(
    self,
    streams: dict[str, Tokens],
    cache: Cache | None = None,
    *,
    return_keys: bool = False,
    detach_und: bool = False,
  ):
    """Runs the experts that have tokens.

    Args:
      streams: {'und': Tokens, 'gen': Tokens}, either may be absent.
      cache: keys and values of earlier tokens.
      return_keys: also return the new tokens' (keys, values), each
        (layers, b, t, kv_heads, head_dim), streams in the order of `EXPERTS`.
      detach_und: und states are constants of the backward pass (`freeze_und` of
        BAGEL, modeling/bagel/qwen2_navit.py).

    Returns:
      {name: normalised hidden states}, and the keys and values or None.
    """
    per_layer, cache_axes = None, nn.broadcast
    if cache is not None:
      per_layer = (
        cache.keys,
        cache.values,
        cache.visible_from,
        cache.visible_to,
      )
      cache_axes = (0, 0, nn.broadcast, nn.broadcast)
    stack = scanned(
      MoTLayer,
      self.compute,
      length=self.config.layers,
      in_axes=(cache_axes,),
    )
    layers = stack(self.config, self.compute, detach_und, name='layers')
    streams, new = layers(streams, per_layer)
    norms = _by_stream(
      self.config,
      streams,
      lambda e: RMSNorm(self.config.norm_eps, name=f'{e}_norm'),
    )
    hidden = {name: norms[name](tokens.x) for name, tokens in streams.items()}
    return hidden, (new if return_keys else None)
