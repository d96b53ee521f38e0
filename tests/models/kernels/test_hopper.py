"""The Hopper kernels as far as a host without a GPU can take them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.models.kernels import hopper, hopper_tiles

_HERE = Path(__file__).parent


@pytest.mark.parametrize('dim', [128, 72])
def test_values_and_gradients_lower_to_mosaic(dim):
  length = 300

  def array(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct((1, length, *shape), dtype)

  def loss(query, key, value, *layout):
    out = hopper.attention(query, key, value, *layout)
    return out.astype(jnp.float32).sum()

  arguments = [array(4, dim), array(2, dim), array(2, dim)]
  layout = [array(dtype=jnp.int32)] * 3
  traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arguments, *layout)
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  # Forward, dq, and dk with dv.
  assert text.count('@mosaic_gpu_v2(') == 3


@pytest.mark.skipif(
  tuple(map(int, jax.__version__.split('.')[:2])) < (0, 11),
  reason="Pallas' interpreter of Mosaic GPU came with jax 0.11",
)
def test_values_and_gradients_are_the_oracles():
  root = _HERE.parents[2]
  done = subprocess.run(
    [sys.executable, _HERE / 'interpreted_hopper.py'],
    env=os.environ | {'PYTHONPATH': f'{root}:{root / "tests"}'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert not done.returncode, done.stderr[-2000:]
  errors = np.array(json.loads(done.stdout))
  assert errors.shape == (2, 4)
  # Operands of bfloat16 have eight bits: one rounding is 2e-3.
  assert (errors < 4e-3).all(), errors


def test_visits_list_tiles_without_a_mask_first():
  from synermedgen_jax.models.kernels.block_pairs import (
    NOTHING,
    PARTLY,
    WHOLLY,
  )

  holds = jnp.array([[[PARTLY, NOTHING, WHOLLY, PARTLY], [NOTHING] * 4]])
  tiles, counts = hopper_tiles.list_visits(holds)
  assert tiles[0, 0, :3].tolist() == [2, 0, 3]
  assert counts[0].tolist() == [[1, 3], [0, 0]]


def test_other_dtypes_are_refused():
  x = jnp.zeros((1, 8, 1, 64))
  layout = [jnp.zeros((1, 8), jnp.int32)] * 3
  with pytest.raises(ValueError, match='bfloat16 or float16, not float32'):
    hopper.attention(x, x, x, *layout)
