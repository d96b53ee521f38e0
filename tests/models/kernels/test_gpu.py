"""The GPU kernels as far as a host without a GPU can take them."""

import jax
import jax.numpy as jnp
import pytest

from synermedgen_jax.models.kernels import gpu


@pytest.mark.parametrize('dim', [128, 72])
def test_values_and_gradients_lower_to_triton(dim):
  length = 256

  def array(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct((1, length, *shape), dtype)

  def loss(query, key, value, *layout):
    return gpu.attention(query, key, value, *layout).astype(jnp.float32).sum()

  arguments = [array(4, dim), array(2, dim), array(2, dim)]
  layout = [array(dtype=jnp.int32)] * 3
  traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arguments, *layout)
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  # Forward, dq, and dk with dv.
  assert text.count('@__gpu$xla.gpu.triton') == 3
