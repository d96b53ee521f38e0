"""Attention under an interval mask: two integers per key say who sees it.

  key k is visible to query q iff visible_from[k] <= order[q] < visible_to[k]

This carries BAGEL's causal, full and noised spans of packed examples exactly
(see `core/batch.py`), in any order of tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from synermedgen_jax.core.sharding import BATCH_AXES, HEAD_AXIS
from synermedgen_jax.models.kernels import cpu, gpu, tpu

_MASKED = -1e30  # finite, so that a row that sees nothing gives no NaN


def interval_mask(
  order: Int[Array, 'b q'],
  visible_from: Int[Array, 'b k'],
  visible_to: Int[Array, 'b k'],
) -> Bool[Array, 'b q k']:
  """The dense mask that the intervals stand for."""
  order = order[:, :, None]
  return (visible_from[:, None] <= order) & (order < visible_to[:, None])


def _dense(query, key, value, order, visible_from, visible_to):
  b, q_len, heads, dim = query.shape
  kv_heads = key.shape[2]
  # With heads as leading axes, XLA does not transpose the scores on a CPU.
  query = (query * dim**-0.5).reshape(b, q_len, kv_heads, -1, dim)
  query = query.transpose(0, 2, 3, 1, 4).reshape(b, kv_heads, -1, dim)
  scores = jnp.einsum(
    'bnqd,bnkd->bnqk',
    query,
    key.swapaxes(1, 2),
    preferred_element_type=jnp.float32,
  )
  mask = interval_mask(order, visible_from, visible_to)[:, None, None]
  grouped = scores.reshape(b, kv_heads, heads // kv_heads, q_len, -1)
  scores = jnp.where(mask, grouped, _MASKED).reshape(scores.shape)
  # The values are divided and not the weights, of which there are more.
  top = lax.stop_gradient(scores.max(-1, keepdims=True))
  weights = jnp.exp(scores - top)
  # A query that sees nothing is padding: its output is zero, not a mean.
  total = jnp.where(top > _MASKED, weights.sum(-1, keepdims=True), jnp.inf)
  out = jnp.einsum(
    'bnqk,bnkd->bnqd',
    weights.astype(value.dtype),
    value.swapaxes(1, 2),
    preferred_element_type=jnp.float32,
  )
  out = (out / total).reshape(b, kv_heads, -1, q_len, dim)
  out = out.transpose(0, 3, 1, 2, 4).reshape(b, q_len, heads, dim)
  return out.astype(value.dtype)


def _hopper(*args):
  # Mosaic GPU takes as long to import as JAX; only Hopper GPUs need it.
  from synermedgen_jax.models.kernels import hopper

  return hopper.attention(*args)


@dataclasses.dataclass(frozen=True)
class Implementation:
  """A way to compute it, and where it runs.

  Attributes:
    attend: takes the arguments of `interval_attention`, less the name.
    platform: the one it is written for; None = any.
    per_device: whether XLA cannot divide it over the devices of a mesh.
  """

  attend: Callable[..., jax.Array]
  platform: str | None = None
  per_device: bool = False


IMPLEMENTATIONS = {
  'xla': Implementation(_dense),
  'xla_blocks': Implementation(cpu.attention, per_device=True),
  'pallas_tpu': Implementation(tpu.attention, 'tpu', per_device=True),
  'pallas_gpu': Implementation(gpu.attention, 'gpu', per_device=True),
  'pallas_hopper': Implementation(_hopper, 'gpu', per_device=True),
}

# Queries up to which dense attention is faster than the kernels.
_FEW_QUERIES = {'tpu': 512, 'gpu': 64, 'cpu': 512}


def preferred(platform: str, queries: int, dtype) -> str:
  """The implementation that a platform takes by itself.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
    queries: number of queries in a row.
    dtype: dtype of the queries.
  """
  if queries <= _FEW_QUERIES.get(platform, _FEW_QUERIES['cpu']):
    return 'xla'
  if platform == 'gpu':
    half = jnp.dtype(dtype).itemsize == 2
    return 'pallas_hopper' if half and _is_hopper() else 'pallas_gpu'
  return 'pallas_tpu' if platform == 'tpu' else 'xla_blocks'


def _is_hopper() -> bool:
  return getattr(jax.devices()[0], 'compute_capability', '') == '9.0'


def interval_attention(
  query: Float[Array, 'b q h d'],
  key: Float[Array, 'b k n d'],
  value: Float[Array, 'b k n d'],
  order: Int[Array, 'b q'],
  visible_from: Int[Array, 'b k'],
  visible_to: Int[Array, 'b k'],
  *,
  implementation: str | None = None,
) -> Float[Array, 'b q h d']:
  """Softmax attention of grouped queries under an interval mask.

  Args:
    query: `h` heads, a multiple of the `n` key/value heads; scaled by d**-0.5
      here.
    key: keys. There may be more keys than queries (cached decoding).
    value: values.
    order: place of each query in packing order.
    visible_from: per key, the first order that sees it.
    visible_to: per key, one past the last order that sees it.
    implementation: a name in `IMPLEMENTATIONS`; None picks by platform, and
      `xla` for few queries.

  Returns:
    The attended values in `value`'s dtype, softmax in float32. A query that
    sees no key gives zeros.

  Raises:
    ValueError: the heads do not divide, or the implementation is unknown or
      for another platform.
  """
  if query.shape[2] % key.shape[2]:
    raise ValueError(
      f'{query.shape[2]} query heads are not a multiple of '
      f'{key.shape[2]} key/value heads.'
    )
  platform = _platform()
  if implementation is None:
    implementation = preferred(platform, query.shape[1], query.dtype)
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f'Unknown attention implementation {implementation!r}: expected one of '
      f'{", ".join(IMPLEMENTATIONS)}.'
    )
  chosen = IMPLEMENTATIONS[implementation]
  if chosen.platform not in (None, platform):
    raise ValueError(
      f'Attention implementation {implementation!r} is for '
      f'{chosen.platform}, and this runs on {platform}: leave it None, or '
      'take one for any platform, xla or xla_blocks.'
    )
  attend = chosen.attend
  if chosen.per_device:
    attend = per_device(attend, heads=key.shape[2])
  with jax.named_scope('interval_attention'):
    return attend(query, key, value, order, visible_from, visible_to)


def per_device(
  attend: Callable[..., jax.Array], *, heads: int
) -> Callable[..., jax.Array]:
  """`attend` on each device's rows and heads, where there is a mesh.

  The compiler cannot split a kernel. No device needs another's rows or heads.

  Args:
    attend: takes the arguments of `interval_attention`, less the name.
    heads: key/value heads.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return attend
  if heads % mesh.shape[HEAD_AXIS]:
    raise ValueError(
      f'{heads} key/value heads do not divide over the '
      f'{mesh.shape[HEAD_AXIS]} devices of the mesh axis {HEAD_AXIS!r}.'
    )
  by_head = PartitionSpec(BATCH_AXES, None, HEAD_AXIS)
  by_row = PartitionSpec(BATCH_AXES)
  return jax.shard_map(
    attend,
    in_specs=(by_head,) * 3 + (by_row,) * 3,
    out_specs=by_head,
    check_vma=False,  # Pallas does not say over which axes its outputs vary
  )


def _platform() -> str:
  """Platform on which the traced code will run: that of the mesh, if any.

  A step compiled ahead of time runs on other devices than the host's own.
  """
  device = getattr(jax.sharding.get_abstract_mesh(), 'abstract_device', None)
  return getattr(device, 'platform', None) or jax.default_backend()
