"""The TPU kernels through the TPU's own compiler, on a host that has none."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from synermedgen_jax.models.kernels import tpu

pytest.importorskip('libtpu', reason='compiles for TPUs: requirements-dev.txt')


def compiled_memory(topology, *, length, heads, kv_heads, dim, gradients):
  """Memory of a compiled attention layer, in bytes.

  The arrays come as projections leave them, heads side by side.
  """
  device = topologies.get_topology_desc(topology, platform='tpu').devices[0]
  sharding = SingleDeviceSharding(device)

  def array(width=None, dtype=jnp.bfloat16):
    shape = (1, length) if width is None else (1, length, width)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

  def attend(query, key, value, layout):
    split = [x.reshape(1, length, -1, dim) for x in (query, key, value)]
    return tpu.attention(*split, *layout).reshape(query.shape)

  def with_gradients(query, key, value, upstream, layout):
    out, pullback = jax.vjp(
      lambda *qkv: attend(*qkv, layout), query, key, value
    )
    return out, pullback(upstream)

  qkv = array(heads * dim), array(kv_heads * dim), array(kv_heads * dim)
  layout = (array(dtype=jnp.int32),) * 3
  if gradients:
    lowered = jax.jit(with_gradients).lower(*qkv, qkv[0], layout)
  else:
    lowered = jax.jit(attend).lower(*qkv, layout)
  return lowered.compile().memory_analysis()


@pytest.mark.parametrize('dim', [128, 72])
def test_values_and_gradients_compile(dim):
  compiled_memory(
    'v5e:2x2', length=1000, heads=4, kv_heads=2, dim=dim, gradients=True
  )


@pytest.mark.slow
@pytest.mark.parametrize('gradients', [False, True])
@pytest.mark.parametrize('topology', ['v5e:2x2', 'v5p:2x2x1', 'v6e:2x2'])
def test_32k_tokens_of_bagels_heads_take_little_memory(topology, gradients):
  memory = compiled_memory(
    topology, length=32768, heads=28, kv_heads=4, dim=128, gradients=gradients
  )
  assert memory.temp_size_in_bytes < 400e6
