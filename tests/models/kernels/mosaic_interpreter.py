"""Runs Mosaic GPU kernels on a CPU, in Pallas' interpreter.

The interpreter runs every warpgroup in a thread of its own and simulates
shared memory and barriers, so a deadlock or a wrong tile shows. It lacks two
things, which are replaced here: a left operand in registers, and accumulators
that start at a value.
"""

import contextlib
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import callback
from jax._src.pallas.mosaic_gpu.interpret import (
  gpu_callbacks,
  jaxpr_interpret,
  shared_memory,
)
from jax._src.state import types as state_types
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

_Interpreter = jaxpr_interpret.JaxprInterpreter
_interpret_wgmma = _Interpreter._interpret_wgmma_ref_p


def _wgmma(self, eqn, token, get_invals):
  """A matrix product, its left operand in registers or in shared memory."""
  if isinstance(eqn.invars[1].aval, state_types.AbstractRef):
    return _interpret_wgmma(self, eqn, token, get_invals)
  sums, left, right, *leaves = get_invals()
  empty = jax.tree.structure([])
  sums_at, _, right_at = jax.tree.unflatten(
    jax.tree_util.treedef_tuple(
      [
        eqn.params[f'{name}_transforms_tree'] or empty
        for name in ('acc', 'a', 'b')
      ]
    ),
    leaves,
  )
  resolve = jaxpr_interpret.resolve_ref
  sums, sums_at = resolve(eqn.invars[0].aval, sums, sums_at)
  right, right_at = resolve(eqn.invars[2].aval, right, right_at)
  return callback.io_callback(
    functools.partial(_add_product, self.mesh_location, self.thread),
    gpu_callbacks.TOKEN_SHAPE_DTYPE,
    token,
    left,
    (sums, sums_at),
    (right, right_at),
  ), []


def _add_product(mesh_location, thread, token, left, sums, right):
  memory = gpu_callbacks._get_shared_memory()
  logging = shared_memory.GPULoggingInfo(mesh_location, thread, None)

  def place(ref):
    key = gpu_callbacks.HostAllocationKey.from_array(ref[0])
    at = jax.tree.map(int, gpu_callbacks._remove_noop_transforms(ref[1]))
    return key, memory.access(key, at)

  def content(key, at):
    return memory.get_buffer_content(key, at, thread, logging_info=logging)[0]

  key, at = place(sums)
  product = np.matmul(
    np.asarray(left, np.float32),
    np.asarray(content(*place(right)), np.float32),
  )
  memory.store_buffer_content(
    key, at, content(key, at) + product, thread, logging_info=logging
  )
  return token


def _run_state(body):
  """`pl.run_state` of one accumulator: its sums from zero, then the value."""

  def run(init):
    value = init._init

    def from_zero(sums):
      body(sums)
      return sums[...]

    return value + pl.run_scoped(from_zero, plgpu.ACC(value.shape, jnp.float32))

  return run


@contextlib.contextmanager
def interpreted():
  """Within it, kernels with `interpret=PARAMETERS` run."""
  with (
    mock.patch.object(_Interpreter, '_interpret_wgmma_ref_p', _wgmma),
    mock.patch.object(pl, 'run_state', _run_state),
  ):
    yield plgpu.InterpretGPUParams()
