"""Writes the start of the model `desk`: `weights/small` with finer ViT tokens.

  python -m projects.ablations.desk_start --output=DIR
  python -m synermedgen_jax.main --config=configs/small/stage1.py \\
      --config.model=desk --config.capacity.und=400 --config.capacity.vit=320 \\
      --config.init_from=DIR --config.store=STORE --workdir=RUN/stage1

The ViT of `small` sees a slice as 2 x 2 patches of 32 x 32 pixels, that of
`desk` as 8 x 8 patches of 8 x 8. The patch embedding and the positions are
parts of the base's, and all other parameters are its own. Stage I adapts them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import Float

from synermedgen_jax.checkpoint.weights_folder import load_weights, save_weights
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.layers import sincos_table
from synermedgen_jax.models.presets import preset

_BASE = flags.DEFINE_string('base', 'weights/small', 'Weights of `small`.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to write.')
_POSITION_BASE = 2.0  # of the tables of `small`, projects/small_base

Flat = dict[str, np.ndarray]


def finer_tokens(params: Flat, old: BagelConfig, new: BagelConfig) -> Flat:
  """Parameters for a ViT with smaller patches.

  Args:
    params: by name, 'a/b/c'.
    old: their shape.
    new: the same shape with a ViT patch that divides the old one, and position
      tables that cover as many pixels.

  Raises:
    ValueError: the shapes differ in anything else.
  """
  vit = dataclasses.replace(new.vit, patch=old.vit.patch, table=old.vit.table)
  alike = dataclasses.replace(new, vit=vit, vit_table=old.vit_table)
  if alike != old or old.vit.patch % new.vit.patch:
    raise ValueError('The models differ in more than the ViT patch.')
  times = old.vit.patch // new.vit.patch
  kernel = params['vit/patch_embedding/kernel']
  positions = params['vit/position_embedding']
  return params | {
    'vit/patch_embedding/kernel': _smaller(kernel, old.vit.patch, times),
    'vit/position_embedding': _repeated(positions, old.vit.table, times),
    'vit_pos_embed': sincos_table(
      new.vit_table, new.llm.hidden, _POSITION_BASE
    ),
  }


def _smaller(
  kernel: Float[np.ndarray, 'd e'], patch: int, times: int
) -> Float[np.ndarray, 'p e']:
  """Sums a kernel over the places of a small patch, in units of its variance.

  Args:
    kernel: rows are the pixels of a patch, row by row, of one channel.
    patch: side of the patch.
    times: how often the side of the small patch fits.
  """
  small = patch // times
  blocks = kernel.reshape(times, small, times, small, -1)
  return blocks.sum(axis=(0, 2)).reshape(small * small, -1) / times


def _repeated(
  table: Float[np.ndarray, 'p e'], side: int, times: int
) -> Float[np.ndarray, 'q e']:
  """Every place of a square of vectors, `times` x `times` times."""
  grid = table.reshape(side, side, -1)
  return grid.repeat(times, 0).repeat(times, 1).reshape(-1, table.shape[-1])


def main() -> None:
  base, output = Path(_BASE.value), Path(_OUTPUT.value)
  old, params = load_weights(base)
  new = preset('desk')
  flat = {k: np.asarray(v, np.float32) for k, v in flatten(params).items()}
  save_weights(output, new, unflatten(finer_tokens(flat, old, new)))
  print(f'{output}: {base} with ViT tokens of {new.vit.patch} pixels.')


if __name__ == '__main__':
  run_command(main, required=['output'])
