"""Times attention over packed examples, against its length.

  python -m benchmarks.attention --lengths=1024,2048,4096,8192

A row is full of synthesis examples of one length (a source's latents and ViT
tokens, an instruction, a noised target: 804 tokens), so what is visible grows
linearly with the row. Prints for every implementation that runs on this
platform: seconds of forward and backward together, the compiler's figure of
the memory for temporaries, and the time's ratio to dense attention in the same
run; and the share of blocks of 512 x 512 that hold anything visible, which is
the share of the work that the Pallas kernels do.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from synermedgen_jax.models.interval_attention import (
  IMPLEMENTATIONS,
  interval_attention,
)
from synermedgen_jax.models.kernels.block_pairs import (
  NOTHING,
  what_blocks_hold,
)

_LENGTHS = flags.DEFINE_list(
  'lengths', ['1024', '2048', '4096', '8192', '16384', '32768'], 'Tokens.'
)
_HEADS = flags.DEFINE_list('heads', ['28', '4'], 'Query and key/value heads.')
_DIM = flags.DEFINE_integer('dim', 128, 'Of a head.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'bfloat16', ['bfloat16', 'float32'], 'Of the arrays.'
)
_REPEATS = flags.DEFINE_integer('repeats', 3, 'The fastest run counts.')
_MOST_MEMORY = flags.DEFINE_float(
  'most_memory', 8.0, 'GB of temporaries beyond which a case is left out.'
)

# (mode, tokens): source latents, source ViT tokens, instruction, target.
_EXAMPLE = (('full', 258), ('full', 258), ('causal', 30), ('noise', 258))
_BLOCK = 512


def synthesis_row(length: int) -> list[np.ndarray]:
  """(order, visible_from, visible_to), each (1, length), in packing order."""
  bounds, start = [], 0
  end_of_example = sum(tokens for _, tokens in _EXAMPLE)
  while start < length:
    end = start + end_of_example
    for mode, tokens in _EXAMPLE:
      for place in range(start, start + tokens):
        bounds.append(
          (
            place if mode == 'causal' else start,
            start + tokens if mode == 'noise' else end,
          )
        )
      start += tokens
  visible_from, visible_to = np.asarray(bounds[:length], np.int32).T
  order = np.arange(length, dtype=np.int32)
  return [x[None] for x in (order, visible_from, visible_to)]


def _step(implementation: str):
  def loss(qkv, layout):
    out = interval_attention(*qkv, *layout, implementation=implementation)
    return out.astype(jnp.float32).sum()

  return jax.jit(jax.value_and_grad(loss))


def _measure(implementation: str, qkv, layout) -> tuple[float, float]:
  """(seconds, bytes); nan seconds where the memory would not do."""
  compiled = _step(implementation).lower(qkv, layout).compile()
  memory = compiled.memory_analysis().temp_size_in_bytes
  if memory > _MOST_MEMORY.value * 1e9:
    return float('nan'), memory
  seconds = []
  for _ in range(_REPEATS.value):
    start = time.perf_counter()
    jax.block_until_ready(compiled(qkv, layout))
    seconds.append(time.perf_counter() - start)
  return min(seconds), memory


def main(argv):
  del argv
  platform = jax.default_backend()
  names = [
    name
    for name, found in IMPLEMENTATIONS.items()
    if found.platform in (None, platform)
  ]
  heads, kv_heads = map(int, _HEADS.value)
  print(
    f'{jax.devices()[0].device_kind}, {heads}/{kv_heads} heads of '
    f'{_DIM.value}, {_DTYPE.value}; forward and backward\n'
    f'{"tokens":>7} {"blocks":>7}  {"implementation":<14} {"seconds":>9} '
    f'{"memory":>9} {"to dense":>9}'
  )
  for length in map(int, _LENGTHS.value):
    layout = synthesis_row(length)
    block = min(_BLOCK, length)
    holds = jax.jit(what_blocks_hold, static_argnames=('block_q', 'block_k'))(
      *layout, block_q=block, block_k=block
    )
    share = float((holds != NOTHING).mean())
    key = jax.random.key(0)
    qkv = tuple(
      jax.random.normal(k, (1, length, n, _DIM.value), _DTYPE.value)
      for k, n in zip(
        jax.random.split(key, 3), (heads, kv_heads, kv_heads), strict=True
      )
    )
    dense = None
    for name in names:
      seconds, memory = _measure(name, qkv, layout)
      dense = dense or seconds
      print(
        f'{length:>7} {share:>7.1%}  {name:<14} {seconds:>9.4f} '
        f'{memory / 1e6:>6.0f} MB {seconds / dense:>9.2f}',
        flush=True,
      )


if __name__ == '__main__':
  app.run(main)
