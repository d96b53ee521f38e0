"""Times attention over packed examples of increasing length.

  python -m benchmarks.attention --lengths=1024,2048,4096,8192

A row is full of synthesis examples of one length (a source's latents and ViT
tokens, an instruction, a noised target: 804 tokens), so the number of visible
pairs of a query and a key grows linearly with the row. Prints for every
implementation that runs on this device:

* milliseconds of the forward pass, and of both passes together;
* memory of temporaries, from the compiler;
* TFLOP/s over visible pairs: per pair, query head and unit of head width, 4
  operations in the forward pass and 10 in the backward pass, without
  recomputation;
* the ratio of its time to that of dense attention in the same run;
* with `--errors`, the relative errors |x - x'| / |x'| of the output, dq, dk and
  dv, where x' is from dense float32 attention.

`--tiles=all` tries every tile size of the kernels.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.measuring import append_record
from benchmarks.shapes import synthesis_row
from synermedgen_jax.models.interval_attention import (
  IMPLEMENTATIONS,
  interval_mask,
)
from synermedgen_jax.models.kernels import gpu, hopper, hopper_tiles
from synermedgen_jax.models.kernels.block_pairs import (
  NOTHING,
  what_blocks_hold,
)

_LENGTHS = flags.DEFINE_list(
  'lengths',
  ['1024', '2048', '4096', '8192', '16384', '32768'],
  'Lengths of the row, in tokens.',
)
_HEADS = flags.DEFINE_list(
  'heads', ['28', '4'], 'Numbers of query heads and of key/value heads.'
)
_DIM = flags.DEFINE_integer('dim', 128, 'Width of a head.')
_DTYPE = flags.DEFINE_enum(
  'dtype',
  'bfloat16',
  ['bfloat16', 'float32'],
  'Dtype of queries, keys and values.',
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 3, 'Number of timed runs; the median is printed.'
)
_MOST_MEMORY = flags.DEFINE_float(
  'most_memory', 8.0, 'Skip cases that need more memory for temporaries, in GB.'
)
_TILES = flags.DEFINE_enum(
  'tiles', 'default', ['default', 'all'], 'Tile sizes of the GPU kernels.'
)
_ONLY = flags.DEFINE_list('only', [], 'Implementations to time; empty = all.')
_ERRORS = flags.DEFINE_bool(
  'errors', False, 'Print errors relative to dense float32 attention.'
)
_OUTPUT = flags.DEFINE_string(
  'output', '', 'File to append one JSON object per row of the table to.'
)

_BLOCK = 512


def _cudnn(query, key, value, *layout):
  """cuDNN's flash attention; it takes the mask as a dense array."""
  return jax.nn.dot_product_attention(
    query,
    key,
    value,
    mask=interval_mask(*layout)[:, None],
    implementation='cudnn',
  )


def candidates() -> dict:
  """Implementations that run on this device, by name, the dense one first."""
  device = jax.devices()[0]
  attends = {
    name: entry.attend
    for name, entry in IMPLEMENTATIONS.items()
    if entry.platform in (None, device.platform)
  }
  if device.platform == 'gpu':
    attends['cudnn'] = _cudnn
    if device.compute_capability != '9.0' or _DTYPE.value == 'float32':
      attends.pop('pallas_hopper')
    if _TILES.value == 'all':
      attends |= {
        f'pallas_gpu {b.q}x{b.k}': functools.partial(gpu.attention, blocks=b)
        for b in (
          gpu.Blocks(128, 64),
          gpu.Blocks(64, 128),
          gpu.Blocks(128, 128),
        )
      }
    if _TILES.value == 'all' and 'pallas_hopper' in attends:
      attends |= {
        'pallas_hopper ' + '/'.join(map(str, sizes)): functools.partial(
          hopper.attention, tiles=hopper_tiles.Tiles(*sizes)
        )
        for sizes in _HOPPER_TILES
      }
  only = _ONLY.value
  return {
    name: attend
    for name, attend in attends.items()
    if not only or name.split()[0] in only
  }


# forward, dq, dk/dv, stages forward and backward.
_HOPPER_TILES = (
  (128, 64, 64, 2, 2),
  (64, 64, 64, 4, 3),
  (64, 128, 128, 3, 2),
)


def _seconds(call, *args) -> float:
  """Median time of a call; on a GPU, calls are queued in groups."""
  group = 10 if jax.default_backend() == 'gpu' else 1
  times = []
  for _ in range(_REPEATS.value):
    start = time.perf_counter()
    for _ in range(group):
      out = call(*args)
    jax.block_until_ready(out)
    times.append((time.perf_counter() - start) / group)
  return float(np.median(times))


def _both_passes(attend):
  def loss(qkv, upstream, layout):
    out = attend(*qkv, *layout)
    return (out.astype(jnp.float32) * upstream).sum(), out

  return jax.jit(jax.grad(loss, has_aux=True))


def _measure(attend, qkv, upstream, layout) -> dict:
  """Times and memory; only the memory if it exceeds `--most_memory`."""
  both = _both_passes(attend).lower(qkv, upstream, layout).compile()
  memory = both.memory_analysis().temp_size_in_bytes
  if memory > _MOST_MEMORY.value * 1e9:
    return {'temp_bytes': memory}
  forward = jax.jit(lambda qkv, layout: attend(*qkv, *layout))
  jax.block_until_ready(forward(qkv, layout))
  gradients, out = jax.block_until_ready(both(qkv, upstream, layout))
  return {
    'temp_bytes': memory,
    'forward_seconds': _seconds(forward, qkv, layout),
    'seconds': _seconds(both, qkv, upstream, layout),
    'values': (out, *gradients),
  }


def _relative_errors(values, expected) -> list[float]:
  def norm(x):
    return float(jnp.linalg.norm(x.astype(jnp.float32).ravel()))

  return [
    norm(a.astype(jnp.float32) - b) / norm(b)
    for a, b in zip(values, expected, strict=True)
  ]


def main(argv):
  del argv
  heads, kv_heads = map(int, _HEADS.value)
  device = jax.devices()[0].device_kind
  print(
    f'{device}, {heads}/{kv_heads} heads of {_DIM.value}, {_DTYPE.value}\n'
    f'{"tokens":>7} {"blocks":>7}  {"implementation":<28} {"forward":>9} '
    f'{"both ms":>9} {"memory":>9} {"TFLOP/s":>8} {"to dense":>9}  errors'
  )
  for length in map(int, _LENGTHS.value):
    layout = tuple(map(jnp.asarray, synthesis_row(length)))
    block = min(_BLOCK, length)
    holds = (
      jax.jit(what_blocks_hold, static_argnames=('block_q', 'block_k'))(
        *layout,
        block_q=block,
        block_k=block,
      )
      if length % block == 0
      else jnp.ones(1)
    )
    share = float((holds != NOTHING).mean())
    pairs = int((np.minimum(layout[2], length) - layout[1]).sum())
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value, upstream = (
      jax.random.normal(k, (1, length, n, _DIM.value), _DTYPE.value)
      for k, n in zip(keys, (heads, kv_heads, kv_heads, heads), strict=True)
    )
    qkv, upstream = (query, key, value), upstream.astype(jnp.float32)
    expected = None
    if _ERRORS.value and length <= 4096:
      exact = tuple(x.astype(jnp.float32) for x in qkv)
      with jax.default_matmul_precision('highest'):
        gradients, out = _both_passes(IMPLEMENTATIONS['xla'].attend)(
          exact, upstream, layout
        )
      expected = (out, *gradients)
    dense = None
    for name, attend in candidates().items():
      record = {
        'benchmark': 'attention',
        'implementation': name,
        'device': device,
        'dtype': _DTYPE.value,
        'shapes': {
          'tokens': length,
          'heads': heads,
          'kv_heads': kv_heads,
          'dim': _DIM.value,
        },
        'visible_pairs': pairs,
      }
      try:
        record |= _measure(attend, qkv, upstream, layout)
      except Exception as error:  # a failure is a row of the table
        record['error'] = f'{type(error).__name__}: {error}'[:400]
      values = record.pop('values', None)
      if expected and values:
        record['errors'] = _relative_errors(values, expected)
      if 'seconds' in record:
        if name == 'xla':
          dense = record['seconds']
        flops = 14 * pairs * heads * _DIM.value
        record['tflops'] = flops / record['seconds'] / 1e12
        if dense:
          record['to_dense'] = record['seconds'] / dense
      _print(record, share)
      append_record(_OUTPUT.value, record)


def _print(record: dict, share: float) -> None:
  nan = float('nan')
  errors = ' '.join(f'{e:.1e}' for e in record.get('errors', ()))
  print(
    f'{record["shapes"]["tokens"]:>7} {share:>7.1%}  '
    f'{record["implementation"]:<28} '
    f'{1e3 * record.get("forward_seconds", nan):>9.3f} '
    f'{1e3 * record.get("seconds", nan):>9.3f} '
    f'{record.get("temp_bytes", nan) / 1e6:>6.0f} MB '
    f'{record.get("tflops", nan):>8.1f} {record.get("to_dense", nan):>9.2f}  '
    f'{errors}{record.get("error", "")}',
    flush=True,
  )


if __name__ == '__main__':
  app.run(main)
