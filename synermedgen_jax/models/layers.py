"""Building blocks shared by the ViT, the experts and the projections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from synermedgen_jax.models.compute import Compute

Initializer = Callable[..., jax.Array]

# Activations that a layer keeps for the backward pass; it recomputes the rest.
REMAT_POLICIES = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def scanned(
  layer: type[nn.Module], compute: Compute, *, length: int, in_axes: tuple
) -> type[nn.Module]:
  """A stack of `length` layers whose parameters have a leading layers axis.

  Args:
    layer: its call takes a carry and further inputs, and returns the carry and
      the layer's output.
    compute: remat and unroll.
    length: number of layers.
    in_axes: the scanned axis of each further input, or `nn.broadcast`.

  Raises:
    ValueError: naming a remat that is not in `REMAT_POLICIES`.
  """
  if compute.remat not in REMAT_POLICIES:
    raise ValueError(
      f'Unknown remat {compute.remat!r}: expected one of '
      f'{", ".join(REMAT_POLICIES)}.'
    )
  policy = REMAT_POLICIES[compute.remat]
  if policy is not None:
    layer = nn.remat(layer, policy=policy, prevent_cse=False)
  return nn.scan(
    layer,
    variable_axes={'params': 0},
    split_rngs={'params': True},
    in_axes=in_axes,
    length=length,
    unroll=min(compute.unroll, length),
    metadata_params={nn.PARTITION_NAME: 'layers'},
  )


def named(init: Initializer, *axes: str | None) -> Initializer:
  """An initialiser whose parameter carries logical axis names."""
  return nn.with_logical_partitioning(init, axes)


def constrain_rows(x: Float[Array, 'b t e']) -> Float[Array, 'b t e']:
  """Shards activations over rows only.

  Otherwise XLA propagates the fsdp sharding of the weights and inserts
  all-gathers of whole batches.
  """
  return nn.with_logical_constraint(x, ('batch', 'length', None))


def take_in_rows(
  x: Shaped[Array, 'b t *d'], index: Int[Array, 'b q']
) -> Shaped[Array, 'b q *d']:
  """Entries of each row by their index within it."""
  return jax.vmap(lambda row, indices: row[indices])(x, index)


def _flat_dot_general(x, kernel, dimension_numbers, **options) -> jax.Array:
  """x @ kernel over flattened leading axes.

  XLA on CPU takes twice as long for the gradient of a kernel that is a
  contraction over two axes.
  """
  del dimension_numbers  # nn.Dense contracts the last axis with the first
  flat = x.reshape(-1, x.shape[-1])
  y = jax.lax.dot_general(flat, kernel, (((1,), (0,)), ((), ())), **options)
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


def linear(
  features: int,
  axes: Sequence[str | None],
  *,
  use_bias: bool = True,
  dtype: jnp.dtype,
  init: Initializer | None = None,
  name: str | None = None,
) -> nn.Dense:
  """A dense layer whose kernel (in, out) has the logical `axes`."""
  init = init or nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
  return nn.Dense(
    features,
    dot_general=_flat_dot_general,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=named(init, *axes),
    bias_init=named(nn.initializers.zeros, axes[-1]),
    name=name,
  )


class RMSNorm(nn.Module):
  """x / rms(x) * scale in float32, over the last axis (Qwen2's order)."""

  eps: float
  axis_name: str | None = 'embed'

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    scale = self.param(
      'scale', named(nn.initializers.ones, self.axis_name), (x.shape[-1],)
    )
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    return scale.astype(x.dtype) * y.astype(x.dtype)


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * up(x)), the MLP of Qwen2."""

  hidden: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b t e']) -> Float[Array, 'b t e']:
    wide = {'axes': ('embed', 'mlp'), 'use_bias': False, 'dtype': self.dtype}
    gate = linear(self.hidden, name='gate_proj', **wide)(x)
    up = linear(self.hidden, name='up_proj', **wide)(x)
    return linear(
      x.shape[-1],
      ('mlp', 'embed'),
      use_bias=False,
      dtype=self.dtype,
      name='down_proj',
    )(nn.silu(gate) * up)


def rope(
  x: Float[Array, 'b t h d'], positions: Int[Array, 'b t'], theta: float
) -> Float[Array, 'b t h d']:
  """Rotary position embedding in float32, halves rotated as in Qwen2."""
  half = x.shape[-1] // 2
  frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions.astype(jnp.float32)[..., None, None, None] * frequency
  # Both halves at once: concatenation is slow on a CPU.
  halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, half)
  turned = jnp.flip(halves, -2) * jnp.asarray([[-1.0], [1.0]])
  rotated = halves * jnp.cos(angle) + turned * jnp.sin(angle)
  return rotated.reshape(x.shape).astype(x.dtype)


def sincos_table(side: int, dim: int, base: float = 10000.0) -> np.ndarray:
  """2-D sin-cos position table, (side * side, dim) float32.

  The first half of the features encodes the column (w first), the second the
  row, each as [sin, cos] (BAGEL, modeling/bagel/modeling_utils.py).
  """
  frequency = base ** -(np.arange(dim // 4, dtype=np.float64) / (dim / 4))
  angle = np.arange(side, dtype=np.float64)[:, None] * frequency
  line = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
  rows = np.repeat(line, side, axis=0)
  columns = np.tile(line, (side, 1))
  return np.concatenate([columns, rows], axis=1).astype(np.float32)


def offset_features(
  offsets: Int[Array, ...], dim: int, base: float = 10000.0
) -> Float[Array, '... {dim}']:
  """1-D sin-cos features of a signed offset, zero at offset 0.

  [sin, cos - 1] at the frequencies of `sincos_table`, so that a slice without a
  slab has the features that BAGEL gives it.
  """
  half = dim // 2
  frequency = base ** -(jnp.arange(half, dtype=jnp.float32) / half)
  angle = offsets.astype(jnp.float32)[..., None] * frequency
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle) - 1], axis=-1)


def timestep_features(
  t: Float[Array, ...], dim: int = 256, max_period: float = 10000.0
) -> Float[Array, '... {dim}']:
  """[cos, sin] features of a timestep in [0, 1] (DiT's form)."""
  half = dim // 2
  frequency = jnp.exp(
    -np.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half
  )
  angle = t.astype(jnp.float32)[..., None] * frequency
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class Connector(nn.Module):
  """ViT features to the language model's width.

  Attributes:
    width: of the language model.
    norm_eps: of an RMS norm of the output; None = no norm.
    dtype: of the computation.
  """

  width: int
  norm_eps: float | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b p v']) -> Float[Array, 'b p e']:
    x = linear(self.width, (None, 'embed'), dtype=self.dtype, name='fc1')(x)
    x = nn.gelu(x, approximate=True)
    x = linear(self.width, ('embed', None), dtype=self.dtype, name='fc2')(x)
    if self.norm_eps is not None:
      x = RMSNorm(self.norm_eps, name='norm')(x)
    return x


class TimestepEmbedder(nn.Module):
  """A timestep in [0, 1] to a vector: 256 sinusoids and an MLP."""

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, t: Float[Array, 'b g']) -> Float[Array, 'b g e']:
    x = timestep_features(t).astype(self.dtype)
    x = linear(self.width, (None, 'embed'), dtype=self.dtype, name='fc1')(x)
    return linear(self.width, ('embed', None), dtype=self.dtype, name='fc2')(
      nn.silu(x)
    )
