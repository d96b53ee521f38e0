"""Times sampling with BAGEL's three contexts, prompts included.

  python -m benchmarks.sampling --model=medium --points=50 --batch=1,8

`benchmarks.torch_rival sampling` times the same prompts from given latents.
This library also encodes the source images, each under two contexts. That time
is measured separately and subtracted from `seconds`. Images are not decoded.
"""

import functools
import json

import flax.linen as nn
import jax
import numpy as np
from absl import app, flags

from benchmarks import jax_device, shapes
from benchmarks.measuring import append_record
from synermedgen_jax.config.model import compute_of
from synermedgen_jax.inference.sampling import sample
from synermedgen_jax.models.bagel import Bagel, init_params
from synermedgen_jax.models.bagel_config import BagelConfig

_MODEL = flags.DEFINE_string('model', 'small', 'A preset, or medium.')
_POINTS = flags.DEFINE_integer(
  'points', 50, 'Timesteps from noise to data: one Euler step fewer.'
)
_BATCH = flags.DEFINE_list('batch', ['1', '8'], 'Batch sizes, in prompts.')
_REPEATS = flags.DEFINE_integer(
  'repeats', 3, 'Number of timed runs; the median is recorded.'
)
_OUTPUT = flags.DEFINE_string(
  'output', '', 'File to append one JSON object per batch size to.'
)


def _parameters(shape: BagelConfig, dtype: str):
  """Random parameters in the compute dtype, as inference keeps them."""

  @jax.jit
  def init(key):
    params = nn.unbox(init_params(shape, key))
    return jax.tree.map(lambda x: x.astype(dtype), params)

  return init(jax.random.key(0))


def _record(model: Bagel, params, batch: int) -> dict:
  shape = model.config
  config = shapes.sampling_config(_POINTS.value)
  prompts = shapes.sampling_prompts(_MODEL.value, shape, batch, config)
  prompts = jax.device_put(prompts)
  count = prompts['full'].target.gen.order.shape[1]
  noise = jax.device_put(
    np.random.default_rng(0).standard_normal(
      (batch, count, shape.latent_dim), np.float32
    )
  )

  @jax.jit
  def encode(params):
    return [
      model.apply({'params': params}, p.conditions, method=Bagel.row_latents)
      for p in prompts.values()
      if p.conditions.latent_index.shape[1]
    ]

  times = functools.partial(
    jax_device.seconds, repeats=_REPEATS.value, warmups=1
  )
  whole = times(lambda: sample(model, params, prompts, noise, config))
  encoding = times(lambda: encode(params))
  seconds = whole.wall - encoding.wall
  return {
    'benchmark': 'sampling',
    'implementation': 'jax',
    'model': _MODEL.value,
    'dtype': model.compute.dtype,
    'shapes': {
      'batch': batch,
      'points': _POINTS.value,
      'contexts': len(prompts),
      'target_tokens': count,
    },
    'seconds': seconds,
    'cpu_seconds': whole.cpu - encoding.cpu,
    'encode_seconds': encoding.wall,
    'tokens_per_second': batch * count / seconds,
    'peak_gb': jax_device.peak_gb(),
    **jax_device.description(),
  }


def main(_) -> None:
  shape = shapes.model_shape(_MODEL.value)
  model = Bagel(shape, compute_of(shapes.stage_config('stage2', _MODEL.value)))
  params = _parameters(shape, model.compute.dtype)
  for batch in map(int, _BATCH.value):
    record = _record(model, params, batch)
    print(json.dumps(record), flush=True)
    append_record(_OUTPUT.value, record)


if __name__ == '__main__':
  app.run(main)
