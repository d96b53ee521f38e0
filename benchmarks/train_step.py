"""How fast a training step is, beside a plain matrix product.

  python -m benchmarks.train_step --model=tiny

For every stage: seconds to compile, milliseconds a step (median), real tokens
a second, the step's floating-point operations (matrix products and
convolutions, attention by active blocks, recomputation left out), the rate
that follows, and its share of what a product of two large matrices of the
model's compute dtype reaches on the same devices in the same run. Rows are
packed from blank slices and lie on the device: reading is not timed.
"""

import importlib.util
import statistics
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import app, flags

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.core.sharding import (
  LOGICAL_RULES,
  batch_sharding,
  make_mesh,
)
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.presets import preset
from synermedgen_jax.planning.rows import sample_rows
from synermedgen_jax.tasks.prompts import PROMPTS
from synermedgen_jax.training import loop, run
from synermedgen_jax.training.flops import active_blocks, step_flops
from synermedgen_jax.training.train_state import create_state

_MODEL = flags.DEFINE_string('model', 'tiny', 'A preset.')
_STAGES = flags.DEFINE_list(
  'stages', ['autoencoder', 'stage1', 'stage2', 'joint'], 'Configs.'
)
_STEPS = flags.DEFINE_integer('steps', 30, 'How many steps to time.')
_OPTIMIZER = flags.DEFINE_string(
  'optimizer', '', 'adamw or muon; what the config says by default.'
)
_ROWS = flags.DEFINE_integer('rows', 0, 'Rows a step; 0 = the config says.')
_CONFIGS = Path(__file__).parents[1] / 'configs'
_SIDE = 2048  # of the matrices


def _config(name: str):
  spec = importlib.util.spec_from_file_location(name, _CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(_MODEL.value)
  config.mesh = (-1, 1, 1)
  config.rows = _ROWS.value or config.rows
  config.optimizer = _OPTIMIZER.value or config.optimizer
  return config


def _seconds(function, repeats: int) -> float:
  """The median time of a call."""
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function())
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def _product_rate(dtype: str) -> float:
  """Operations a second of a matrix product, on one device."""
  x = jnp.ones((_SIDE, _SIDE), dtype)
  product = jax.jit(lambda x: x @ x)
  jax.block_until_ready(product(x))
  return 2 * _SIDE**3 / _seconds(lambda: product(x), 10)


def _measure(name: str) -> tuple[float, float, float, float]:
  """Seconds to compile and to step; tokens and operations a step."""
  config = _config(name)
  model, mesh = preset(config.model), make_mesh(config.mesh)
  batch = sample_rows(
    config.tasks,
    PROMPTS[config.prompts],
    project_tokenizer(),
    model.image_geometry(**config.image),
    Capacity(**config.capacity),
    rows=config.rows,
  )
  tokens = sum(int((x.example_ids > 0).sum()) for x in (batch.und, batch.gen))
  active = active_blocks(batch)
  scales, tx = run.optimiser(config, model)
  state, shardings = create_state(
    model, scales, tx, mesh, seed=0, ema=config.ema > 0
  )
  settings = run.step_config(config)
  operations = sum(
    step_flops(model, tx, settings, state, batch, active).values()
  )
  batch = loop.to_devices(batch, batch_sharding(mesh))
  step = jax.jit(
    loop.make_train_step(model, tx, settings),
    out_shardings=(shardings, None),
  )
  start = time.perf_counter()
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_RULES):
    compiled = step.lower(state, batch).compile()
  compiling = time.perf_counter() - start
  seconds = _seconds(lambda: compiled(state, batch), _STEPS.value)
  return compiling, seconds, tokens, operations


def main(_) -> None:
  rate = _product_rate(preset(_MODEL.value).dtype) * jax.device_count()
  device = jax.devices()[0]
  print(
    f'{_MODEL.value} on {jax.device_count()} x {device.device_kind}; a matrix '
    f'product reaches {rate / 1e9:,.0f} GFLOP/s'
  )
  print(
    'stage        compile s  step ms   tokens/s   GFLOP  GFLOP/s  of product'
  )
  for name in _STAGES.value:
    compiling, seconds, tokens, operations = _measure(name)
    achieved = operations / seconds
    print(
      f'{name:<12} {compiling:>9.1f} {1e3 * seconds:>8.1f} '
      f'{tokens / seconds:>10,.0f} {operations / 1e9:>7.2f} '
      f'{achieved / 1e9:>8.1f} {achieved / rate:>11.0%}',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
