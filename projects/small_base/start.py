"""Writes the initial weights of `tiny` or `small` as a weights folder.

  python -m projects.small_base.start --model=small --output=runs/base/start

Random weights of BAGEL's initialisation, with position tables and attention
heads for a small model (`initial_heads.py`). A run starts from them with
--config.init_from=DIR.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from projects.small_base.initial_heads import STARTS, initial_weights
from synermedgen_jax.checkpoint.weights_folder import save_weights
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.models.presets import preset

_MODEL = flags.DEFINE_enum('model', None, sorted(STARTS), 'Model shape.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to write.')
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of the weights.')


def main() -> None:
  model, output = preset(_MODEL.value), Path(_OUTPUT.value)
  params = initial_weights(model, STARTS[_MODEL.value], seed=_SEED.value)
  save_weights(output, model, params, dtype='float32')
  print(f'{output}: initial weights of {_MODEL.value}.')


if __name__ == '__main__':
  run_command(main, required=['model', 'output'])
