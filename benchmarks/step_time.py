"""How long a training step takes, beside a plain matrix product.

  python benchmarks/step_time.py --store=runs/demo/store

For every stage of the `tiny` model: seconds to compile, milliseconds a step
(median), the step's floating-point operations as XLA counts them, and the rate
that follows, as a share of what a float32 matrix product of 1024 x 1024
reaches in the same run on the same device. Batches are ready on the device:
reading them is timed apart, in one reader thread.
"""

import importlib.util
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.core.sharding import batch_sharding, make_mesh
from synermedgen_jax.input.pipeline import train_dataset
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.presets import preset
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import loop, optim
from synermedgen_jax.training.objectives import ObjectiveConfig

_STORE = flags.DEFINE_string('store', 'runs/demo/store', 'A slice store.')
_STEPS = flags.DEFINE_integer('steps', 30, 'How many steps to time.')
_STAGES = ('autoencoder', 'stage1', 'stage2', 'joint')
_CONFIGS = Path(__file__).parents[1] / 'configs'


def _config(name: str):
  spec = importlib.util.spec_from_file_location(name, _CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config('tiny')


def _seconds(function, repeats: int) -> float:
  """The median time of a call."""
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function())
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def _product_rate() -> float:
  """GFLOP/s of a matrix product."""
  x = jnp.ones((1024, 1024), jnp.float32)
  product = jax.jit(lambda x: x @ x)
  jax.block_until_ready(product(x))
  return 2 * 1024**3 / _seconds(lambda: product(x), 20) / 1e9


def _stage(name: str, store: SliceStore) -> tuple[float, ...]:
  """Seconds to compile, to read a batch and to step, and GFLOP a step."""
  config, mesh = _config(name), make_mesh((1, 1, 1))
  model = preset(config.model)
  batches = iter(
    train_dataset(
      store,
      'train',
      project_tokenizer(),
      model.image_geometry(**config.image),
      Capacity(**config.capacity),
      tasks=dict(config.tasks),
      rows=config.rows,
      seed=0,
      packing_bins=config.packing_bins,
      threads=1,
    )
  )
  batch = next(batches)
  read = _seconds(lambda: next(batches), 20)
  shapes = jax.eval_shape(
    lambda key: loop.nn.unbox(loop.init_params(model, key)), jax.random.key(0)
  )
  scales = optim.multipliers(
    optim.flatten(shapes), tuple(map(tuple, config.trainable))
  )
  tx = optim.optimizer(
    lambda step: 1e-3,
    scales,
    name=config.optimizer,
    b1=config.b1,
    b2=config.b2,
    eps=config.eps,
    weight_decay=config.weight_decay,
    clip=config.clip,
  )
  state, _ = loop.create_state(
    model, scales, tx, mesh, seed=0, ema=config.ema > 0
  )
  step_config = loop.StepConfig(
    config.stage, ObjectiveConfig(**config.objective), config.ema
  )
  batch = loop.to_devices(batch, batch_sharding(mesh))
  step = jax.jit(loop.make_train_step(model, tx, step_config))
  start = time.perf_counter()
  compiled = step.lower(state, batch).compile()
  seconds = time.perf_counter() - start
  flops = compiled.cost_analysis()['flops'] / 1e9
  return (
    seconds,
    read,
    _seconds(lambda: compiled(state, batch), _STEPS.value),
    flops,
  )


def main(_) -> None:
  store = SliceStore.open(_STORE.value)
  rate = _product_rate()
  device = jax.devices()[0]
  print(f'{device.platform} {device.device_kind}: product {rate:.0f} GFLOP/s')
  print('stage        compile s  read ms  step ms  GFLOP  GFLOP/s  of product')
  for name in _STAGES:
    seconds, read, step, flops = _stage(name, store)
    print(
      f'{name:<12} {seconds:>9.1f} {1e3 * read:>8.1f} {1e3 * step:>8.1f} '
      f'{flops:>6.2f} {flops / step:>8.1f} {flops / step / rate:>11.0%}',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
