"""Writes the initial weights of `tiny` or `small` as a weights folder.

  python -m projects.small_base.start --model=small --output=runs/base/start

Random weights as BAGEL's initialisation draws them, with position tables and
attention heads for a small model (`initial_heads.py`). A run starts from them
with --config.init_from=DIR.
"""

from __future__ import annotations

import functools
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from absl import flags

from projects.small_base.initial_heads import STARTS, Start, with_heads
from synermedgen_jax.checkpoint.weights_folder import save_weights
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.models.bagel import BagelConfig, init_params
from synermedgen_jax.models.presets import preset

_MODEL = flags.DEFINE_enum('model', None, sorted(STARTS), 'Model shape.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to write.')
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of the weights.')


def initial_weights(model: BagelConfig, start: Start, *, seed: int = 0):
  """Nested float32 parameters, a function of the arguments alone."""
  init = jax.jit(functools.partial(init_params, model))
  params = flatten(nn.unbox(init(jax.random.key(seed))))
  fresh = {name: np.asarray(value) for name, value in params.items()}
  return unflatten(with_heads(fresh, model, start))


def main() -> None:
  model, output = preset(_MODEL.value), Path(_OUTPUT.value)
  params = initial_weights(model, STARTS[_MODEL.value], seed=_SEED.value)
  save_weights(output, model, params, dtype='float32')
  print(f'{output}: initial weights of {_MODEL.value}.')


if __name__ == '__main__':
  run_command(main, required=['model', 'output'])
