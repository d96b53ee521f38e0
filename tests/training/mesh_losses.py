"""Steps of stages on meshes of eight devices; prints differences as JSON.

Run in a process of its own: python mesh_losses.py STORE '8,1,1 2,2,2' STAGE ...
"""

import functools
import itertools
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import nano
import numpy as np
import optax
import span_packs

from synermedgen_jax.core import trees
from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.core.sharding import (
  LOGICAL_RULES,
  batch_sharding,
  make_mesh,
)
from synermedgen_jax.input.mixture import Mixture
from synermedgen_jax.input.pipeline import train_dataset
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models import presets
from synermedgen_jax.models.bagel import abstract_params
from synermedgen_jax.models.interval_attention import (
  interval_attention,
  per_device,
)
from synermedgen_jax.models.kernels import tpu
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.prompts import SHORT
from synermedgen_jax.training import build, loop, optim
from synermedgen_jax.training.metrics_log import Meter
from synermedgen_jax.training.train_state import create_state

ALONE = '1,1,1'
ROWS = 8
STEPS = 3


def mesh_of(name):
  shape = tuple(map(int, name.split(',')))
  return make_mesh(shape, jax.devices()[: int(np.prod(shape))])


def batches(store: str, config) -> list:
  dataset = train_dataset(
    SliceStore.open(store),
    'train',
    project_tokenizer(),
    nano.GEOMETRY,
    Capacity(**config.capacity),
    Mixture(dict(config.tasks), prompts=SHORT),
    rows=ROWS,
    seed=0,
    packing_bins=ROWS,
  )
  return list(itertools.islice(dataset, STEPS))


def parameters():
  """Drawn at random, none of them zero."""
  shapes = abstract_params(nano.MODEL)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), nn.unbox(shapes)
  )


def steps(mesh_name, config, data):
  """Losses and gradients of some steps, and the last state."""
  params, mesh = parameters(), mesh_of(mesh_name)
  scales = optim.multipliers(
    trees.flatten(params), tuple(map(tuple, config.trainable))
  )
  tx = optax.sgd(0.02, momentum=0.0)  # the momentum is the last gradient
  state, shardings = create_state(
    nano.BAGEL, scales, tx, mesh, seed=0, ema=False, initial=params
  )
  run = build.build(config, devices=jax.devices()[:1], data=False)
  step = jax.jit(
    loop.make_train_step(nano.BAGEL, tx, run.step),
    out_shardings=(shardings, None),
  )
  losses, gradients = [], []
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_RULES):
    for batch in data:
      state, sums = step(state, loop.to_devices(batch, batch_sharding(mesh)))
      meter = Meter()
      meter.add(sums)
      losses.append(meter.means())
      gradients.append(jax.device_get(state.opt_state[0].trace))
  return losses, gradients, state


def furthest(actual, expected) -> float:
  """The largest difference, beside the largest number of its array.

  Or beside a thousandth of the largest of all: some gradients are zero but for
  rounding, as that of a bias to all scores of a softmax.
  """
  pairs = list(
    zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
  )
  least = 1e-3 * max(np.abs(b).max() for _, b in pairs)
  return max(
    float(np.abs(a - b).max() / max(np.abs(b).max(), least)) for a, b in pairs
  )


def parts(state) -> int:
  """In how many parts its most divided parameter lies."""
  return max(
    x.size // x.addressable_shards[0].data.size
    for x in state.trainable.values()
  )


def compare(stage: str, store: str, meshes) -> dict:
  """Every mesh beside one device."""
  config = nano.config(stage, store)
  data = batches(store, config)
  losses, gradients, _ = steps(ALONE, config, data)
  by_mesh = {'alone': losses}
  for name in meshes:
    other_losses, other_gradients, state = steps(name, config, data)
    by_mesh[name] = {
      'losses': other_losses,
      'gradients_off': furthest(other_gradients, gradients),
      'parts': parts(state),
    }
  return by_mesh


def attention(meshes) -> dict:
  """The TPU kernel on each device's rows and heads, beside dense attention."""
  pack = [[('full', 5), ('causal', 3), ('noise', 5)], [('causal', 7)]]
  order = span_packs.order_of(pack)
  layout = [
    jnp.tile(x, (ROWS, 1)) for x in (order, *span_packs.intervals(pack))
  ]
  keys = jax.random.split(jax.random.key(0), 3)
  query, key, value = (
    jax.random.normal(k, (ROWS, len(order), heads, 8))
    for k, heads in zip(keys, (4, 2, 2), strict=True)
  )
  kernel = functools.partial(tpu.attention, interpret=True)

  def loss(attend):
    return jax.value_and_grad(
      lambda q, k, v: (attend(q, k, v, *layout) ** 2).sum(), argnums=(0, 1, 2)
    )

  dense = functools.partial(interval_attention, implementation='xla')
  expected = jax.device_get(loss(dense)(query, key, value))
  values = {}
  for name in meshes:
    with jax.set_mesh(mesh_of(name)):
      run_kernel = jax.jit(loss(per_device(kernel, heads=2)))
      values[name] = furthest(run_kernel(query, key, value), expected)
  return values


def main() -> None:
  jax.config.update('jax_num_cpu_devices', 8)
  jax.config.update('jax_disable_most_optimizations', True)
  presets.PRESETS['nano'] = lambda: nano.MODEL
  store, meshes, *stages = sys.argv[1:]
  meshes = meshes.split()
  by_stage = {stage: compare(stage, store, meshes) for stage in stages}
  print(json.dumps(by_stage | {'attention': attention(meshes)}))


if __name__ == '__main__':
  main()
