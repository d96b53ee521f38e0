"""Two steps on several meshes of four devices; prints the losses as JSON.

Run in a process of its own, with four fake devices: python mesh_losses.py STORE
"""

import itertools
import json
import sys

import flax.linen as nn
import jax
import nano
import numpy as np
import optax

from synermedgen_jax.core.sharding import (
  LOGICAL_RULES,
  batch_sharding,
  make_mesh,
)
from synermedgen_jax.input.pipeline import train_dataset
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.bagel import init_params
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import loop
from synermedgen_jax.training.objectives import ObjectiveConfig

MESHES = {
  'one device': (1, 1, 1),
  'data': (4, 1, 1),
  'data and fsdp': (2, 2, 1),
  'fsdp and tensor': (1, 2, 2),
}
FROZEN = 'autoencoder/'


def batches(store: str):
  """Two batches of four rows, with losses of both kinds."""
  dataset = train_dataset(
    SliceStore.open(store),
    'train',
    project_tokenizer(),
    nano.GEOMETRY,
    nano.CAPACITY,
    tasks={'mi': 1, 'tia': 1, 'synthesis': 2},
    rows=4,
    seed=0,
    packing_bins=4,
  )
  return list(itertools.islice(dataset, 2))


def parameters():
  """Drawn at random, none of them zero."""
  shapes = jax.eval_shape(lambda: init_params(nano.MODEL, jax.random.key(0)))
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), nn.unbox(shapes)
  )


def losses(shape, data) -> dict:
  """The losses of both steps, and how many devices hold the parameters."""
  params = parameters()
  mesh = make_mesh(shape, jax.devices()[: int(np.prod(shape))])
  scales = {
    name: 0.0 if name.startswith(FROZEN) else 1.0
    for name in loop.flatten(params)
  }
  tx = optax.sgd(0.02)
  state, shardings = loop.create_state(
    nano.MODEL, scales, tx, mesh, seed=0, ema=False, initial=params
  )
  step = jax.jit(
    loop.make_train_step(
      nano.MODEL, tx, loop.StepConfig('joint', ObjectiveConfig())
    ),
    out_shardings=(shardings, None),
  )
  found = []
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_RULES):
    for batch in data:
      state, sums = step(state, loop.to_devices(batch, batch_sharding(mesh)))
      meter = loop.Meter()
      meter.add(sums)
      found.append(meter.means())
  kernel = state.trainable['mot/layers/und/q_proj/kernel']
  shard = kernel.addressable_shards[0].data
  return {'steps': found, 'parts': kernel.size // shard.size}


def main() -> None:
  jax.config.update('jax_disable_most_optimizations', True)
  data = batches(sys.argv[1])
  print(json.dumps({name: losses(s, data) for name, s in MESHES.items()}))


if __name__ == '__main__':
  main()
