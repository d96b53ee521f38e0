"""Times a training step against a plain matrix product.

  python -m benchmarks.train_step --model=tiny
  python -m benchmarks.train_step --model=base_1b --stages=stage1,stage2 \\
      --remat=dots --latents=given --output=steps.jsonl

Prints for every stage: seconds to compile, milliseconds per step (median), real
tokens per second, the step's floating-point operations (matrix products and
convolutions, attention by active blocks, without recomputation), the resulting
rate, and its share of the rate of a product of two large matrices in the
model's compute dtype, on the same devices in the same run. Rows are packed from
blank slices and stay on the device: reading is not timed. `--model=medium` and
`base_1b` have rows and a recipe of their own (`benchmarks/shapes.py`), which
`benchmarks.torch_rival` times too.

With `--latents=given` the step starts from random latents instead of encoding
its images: the frozen autoencoder is neither run nor counted, as in
`benchmarks.torch_rival`.
"""

import dataclasses
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import jax_device, profiles, shapes, stages
from benchmarks.measuring import Seconds, append_record
from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.core.sharding import LOGICAL_RULES, batch_sharding
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.presets import PRESETS
from synermedgen_jax.planning.rows import sample_rows_of
from synermedgen_jax.training import loop
from synermedgen_jax.training.build import build
from synermedgen_jax.training.flops import needed_shares, step_flops
from synermedgen_jax.training.objectives import (
  OBJECTIVES,
  Objective,
  draw_timesteps,
  flow_and_text_sums,
  multimodal_sums,
)

_MODEL = flags.DEFINE_string('model', 'tiny', 'A preset, or medium.')
_STAGES = flags.DEFINE_list('stages', list(stages.STAGES), 'Stages to time.')
_STEPS = flags.DEFINE_integer('steps', 30, 'Number of steps to time.')
_OPTIMIZER = flags.DEFINE_string(
  'optimizer', '', "adamw or muon; '' = the config's own."
)
_ROWS = flags.DEFINE_integer('rows', 0, "Rows per step; 0 = the config's own.")
_REMAT = flags.DEFINE_enum(
  'remat',
  'config',
  ['none', 'dots', 'full', 'config'],
  "Remat policy of the layers; config = the config's own.",
)
_LATENTS = flags.DEFINE_enum(
  'latents',
  'encoded',
  ['encoded', 'given'],
  'Whether the step encodes its images or starts from random latents.',
)
_PEAK = flags.DEFINE_float(
  'peak', 0.0, 'Peak TFLOP/s of a device; 0 = measure a matrix product.'
)
_OUTPUT = flags.DEFINE_string(
  'output', '', 'File to append one JSON object per stage to.'
)
_PROFILE = flags.DEFINE_bool(
  'profile', False, 'Trace a step; record the operations that take longest.'
)
_GIVEN = 'given_latents'  # the objective of --latents=given


@dataclasses.dataclass(frozen=True)
class Measurement:
  """Measurement of one stage's step.

  Attributes:
    compile_seconds: time to compile the step.
    seconds: times of the step.
    tokens: tokens of a batch without padding.
    operations: floating-point operations of the step.
    peak_gb: peak memory so far, earlier stages included.
    config: config of the stage.
    profile: operations that take longest, of `profiles.top_operations`.
  """

  compile_seconds: float
  seconds: Seconds
  tokens: int
  operations: float
  peak_gb: float
  config: dict
  profile: list[dict]


def _config(stage: str):
  config = shapes.stage_config(stage, _MODEL.value)
  config.rows = _ROWS.value or config.rows
  config.optimizer = _OPTIMIZER.value or config.optimizer
  if _REMAT.value != 'config':
    config.compute.remat = _REMAT.value
  return config


def _register_given_latents(batch: PackedBatch, model: BagelConfig) -> None:
  """Adds the objective of the multimodal stages for fixed random latents."""
  shape = (*batch.latent_index.shape, model.latent_dim)
  latents = np.random.default_rng(0).standard_normal(shape, np.float32)

  def sums(module, params, batch, key, config, tasks):
    noise_key, t_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, latents.shape)
    t = draw_timesteps(t_key, batch.noise_ids, config.train_shift)
    return flow_and_text_sums(
      module,
      params,
      batch,
      jnp.asarray(latents),
      noise,
      t,
      tasks,
      chunk=config.logit_chunk,
      detach_und=config.freeze_und == 'detach',
    )

  OBJECTIVES[_GIVEN] = Objective(sums, ('ntp', 'flow'))


def _measure(stage: str) -> Measurement:
  run = build(_config(stage), data=False)
  batch = sample_rows_of(run, rows=run.rows)
  tokens = sum(int((x.example_ids > 0).sum()) for x in (batch.und, batch.gen))
  state, settings = run.create(), run.step
  has_latents = (
    OBJECTIVES[settings.stage].sums is multimodal_sums
    and batch.latent_index.shape[1] > 0
  )
  if _LATENTS.value == 'given' and has_latents:
    _register_given_latents(batch, run.model.config)
    settings = dataclasses.replace(settings, stage=_GIVEN)
  operations = sum(
    step_flops(
      run.model, run.tx, settings, state, batch, needed_shares(batch)
    ).values()
  )
  batch = loop.to_devices(batch, batch_sharding(run.mesh))
  step = jax.jit(
    loop.make_train_step(run.model, run.tx, settings),
    out_shardings=(jax.tree.map(lambda x: x.sharding, state), None),
    donate_argnums=0,
  )
  start = time.perf_counter()
  with jax.set_mesh(run.mesh), nn.logical_axis_rules(LOGICAL_RULES):
    compiled = step.lower(state, batch).compile()
  compiling = time.perf_counter() - start

  def update():
    nonlocal state
    state, terms = compiled(state, batch)
    return terms

  seconds = jax_device.seconds(update, repeats=_STEPS.value, warmups=1)
  return Measurement(
    compiling,
    seconds,
    tokens,
    operations,
    jax_device.peak_gb(),
    run.config,
    profiles.top_operations(update) if _PROFILE.value else [],
  )


def _record(stage: str, step: Measurement, rate: float) -> dict:
  """A record with the same keys as those of the rival."""
  return {
    'benchmark': 'step',
    'implementation': 'jax',
    'model': _MODEL.value,
    'stage': stage,
    'remat': _REMAT.value,
    'latents': _LATENTS.value,
    'dtype': step.config['compute']['dtype'],
    'shapes': {
      'rows': step.config['rows'],
      'tokens': step.tokens,
      **step.config['capacity'],
    },
    'compile_seconds': step.compile_seconds,
    'seconds': step.seconds.wall,
    'cpu_seconds': step.seconds.cpu,
    'tokens_per_second': step.tokens / step.seconds.wall,
    'operations': step.operations,
    'peak_rate': rate,
    'mfu': step.operations / step.seconds.wall / rate,
    'peak_gb': step.peak_gb,
    **({'profile': step.profile} if step.profile else {}),
    **jax_device.description(),
  }


def main(_) -> None:
  if _MODEL.value == 'medium':
    PRESETS['medium'] = shapes.medium
  dtype = _config(_STAGES.value[0]).compute.dtype
  each = _PEAK.value * 1e12 or jax_device.product_rate(dtype)
  rate = each * jax.device_count()
  device = jax.devices()[0]
  source = 'the given peak is' if _PEAK.value else 'a matrix product reaches'
  print(
    f'{_MODEL.value} on {jax.device_count()} x {device.device_kind}; {source} '
    f'{rate / 1e9:,.0f} GFLOP/s'
  )
  print(
    'stage        compile s  step ms   tokens/s   GFLOP  GFLOP/s  of product'
  )
  for stage in _STAGES.value:
    step = _measure(stage)
    achieved = step.operations / step.seconds.wall
    print(
      f'{stage:<12} {step.compile_seconds:>9.1f} '
      f'{1e3 * step.seconds.wall:>8.1f} '
      f'{step.tokens / step.seconds.wall:>10,.0f} '
      f'{step.operations / 1e9:>7.2f} '
      f'{achieved / 1e9:>8.1f} {achieved / rate:>11.0%}',
      flush=True,
    )
    append_record(_OUTPUT.value, _record(stage, step, rate))


if __name__ == '__main__':
  app.run(main)
