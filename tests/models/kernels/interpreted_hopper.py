"""Relative errors of the Hopper kernels in Pallas' interpreter, as JSON.

A process of its own: the interpreter blocks a thread of the CPU client per
warpgroup, so it needs more threads than a machine may have cores
(`PJRT_NPROC`, read when JAX starts).
"""

import functools
import json
import os

os.environ['PJRT_NPROC'] = '16'
os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import jax.numpy as jnp
import mosaic_interpreter
import numpy as np
import span_packs

from synermedgen_jax.models import interval_attention
from synermedgen_jax.models.kernels import hopper

# Causal text, a clean image and a noised one; a second example in which a
# noised image is followed by text, as in a chain of edits.
_PACK = [
  [('causal', 9), ('full', 100), ('noise', 71)],
  [('full', 60), ('noise', 20), ('causal', 5)],
]
_CASES = (
  # Two streams: the noised images' tokens come after all others.
  {'heads': 2, 'kv_heads': 1, 'dim': 64, 'streams': True, 'padding': 40},
  {'heads': 2, 'kv_heads': 2, 'dim': 72, 'streams': False, 'padding': 0},
)


def _layout(streams: bool, padding: int):
  order = span_packs.order_of(_PACK)
  visible_from, visible_to = span_packs.intervals(_PACK)
  if streams:
    kinds = [k for pack in _PACK for k, n in pack for _ in range(n)]
    places = np.argsort(np.array(kinds) == 'noise', kind='stable')
    order, visible_from, visible_to = (
      x[places] for x in (order, visible_from, visible_to)
    )
  visible_from, visible_to = visible_from.copy(), visible_to.copy()
  if padding:
    visible_from[-padding:] = visible_to[-padding:] = 0
  return tuple(jnp.asarray(x)[None] for x in (order, visible_from, visible_to))


def _values_and_gradients(attend, qkv, upstream):
  def loss(*qkv):
    out = attend(*qkv)
    return (out.astype(jnp.float32) * upstream).sum(), out

  gradients, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(
    *qkv
  )
  return [np.asarray(x, np.float32) for x in (out, *gradients)]


def errors(case, interpret) -> list[float]:
  """|x - x'| / |x'| of the output, dq, dk and dv."""
  layout = _layout(case['streams'], case['padding'])
  tokens, rng = layout[0].shape[1], np.random.default_rng(0)

  def draw(heads):
    return jnp.asarray(
      rng.standard_normal((1, tokens, heads, case['dim'])), jnp.bfloat16
    )

  qkv = draw(case['heads']), draw(case['kv_heads']), draw(case['kv_heads'])
  upstream = draw(case['heads']).astype(jnp.float32)

  def attend(function, **options):
    return lambda *qkv: function(*qkv, *layout, **options)

  values = _values_and_gradients(
    attend(hopper.attention, interpret=interpret), qkv, upstream
  )
  oracle = functools.partial(
    interval_attention.interval_attention, implementation='xla'
  )
  expected = _values_and_gradients(
    attend(oracle), [x.astype(jnp.float32) for x in qkv], upstream
  )
  return [
    float(np.linalg.norm(a - b) / np.linalg.norm(b))
    for a, b in zip(values, expected, strict=True)
  ]


if __name__ == '__main__':
  with mosaic_interpreter.interpreted() as parameters:
    print(json.dumps([errors(case, parameters) for case in _CASES]))
