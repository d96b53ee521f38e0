"""Converts BAGEL's weights to our parameters and back, by `key_table`.

Both directions are lazy: at most one block of a parameter is in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.interop import tensor_files
from synermedgen_jax.interop.bagel_configs import BagelError
from synermedgen_jax.interop.key_table import (
  Entry,
  autoencoder_table,
  bagel_table,
)
from synermedgen_jax.models.bagel import BagelConfig, abstract_params

# Parameters of ours that are numbers in BAGEL's ae_config.json.
_CONSTANTS = {
  'autoencoder/latent_scale': 'scale_factor',
  'autoencoder/latent_shift': 'shift_factor',
}
# Options that give the sizes of the position tables.
_SIDES = {
  'vit_pos_embed.pos_embed': 'vit_max_num_patch_per_side of config.json',
  'latent_pos_embed.pos_embed': 'max_latent_size of config.json',
  'vit_model.vision_model.embeddings.position_embedding.weight': (
    'image_size of vit_config.json'
  ),
}
Match = tuple[Entry, list[LazyArray]]


def match(
  directory: str | Path, config: BagelConfig, *, header_only: bool = False
) -> list[Match]:
  """Matches the rows of both key tables to tensors; reads no tensor data.

  Args:
    directory: folder of BAGEL's files.
    config: shape of the model, from `bagel_config`.
    header_only: accept files that end after their headers.

  Raises:
    BagelError: keys are missing or unknown, or their shapes differ from the
      config; the message names all of them.
    TensorFileError: a file is damaged; the message names it.
  """
  directory = Path(directory)
  shapes, tables = param_shapes(config), _tables(config)
  _check_table(tables, shapes)
  matches, problems = [], []
  for file, table in tables.items():
    tensors = _open(directory, file, header_only=header_only)
    keys = {key for entry in table for key in entry.keys}
    for problem, wrong in (
      ('lacks', keys - set(tensors)),
      ('has unknown', set(tensors) - keys),
    ):
      if wrong:
        problems.append(f'{file} {problem} {", ".join(sorted(wrong))}')
    for entry in table:
      expected = entry.source_shape(shapes[entry.ours])
      problems += [
        _shape_problem(key, tensors[key].shape, expected)
        for key in entry.keys
        if key in tensors and tensors[key].shape != expected
      ]
      matches.append((entry, [tensors.get(key) for key in entry.keys]))
  if problems:
    raise BagelError(f'{directory}: {"; ".join(sorted(problems))}.')
  return matches


def _shape_problem(key: str, shape, expected) -> str:
  option = 'the JSON files'
  if key in _SIDES and shape[1:] == expected[1:]:
    option = _SIDES[key]
  return f'{key} has shape {shape}; expected {expected} from {option}'


def _tables(config: BagelConfig) -> dict[str, list[Entry]]:
  return {
    'ema.safetensors': bagel_table(config),
    'ae.safetensors': autoencoder_table(config),
  }


def _check_table(tables: Mapping[str, list[Entry]], params) -> None:
  """Checks that the tables list each parameter, and no others."""
  known = {entry.ours for table in tables.values() for entry in table}
  wrong = set(params) ^ (known | set(_CONSTANTS))
  if wrong:
    raise BagelError(f'BAGEL has no such model: {", ".join(sorted(wrong))}.')


def _open(directory: Path, file: str, *, header_only: bool):
  """Reads the tensors of a file or of its shards."""
  if (directory / file).is_file():
    return tensor_files.read_tensors(directory / file, header_only=header_only)
  indices = [f'{file}.index.json']
  if file == 'ema.safetensors':
    indices.append('model.safetensors.index.json')
  for name in indices:
    if (directory / name).is_file():
      return tensor_files.read_sharded(
        directory / name, header_only=header_only
      )
  raise BagelError(f'{directory}: has no {file} and no {" or ".join(indices)}.')


@functools.cache
def param_shapes(config: BagelConfig) -> Mapping[str, tuple[int, ...]]:
  """The shape of every parameter by name, 'a/b/c'."""
  abstract = nn.unbox(abstract_params(config))
  flat = traverse_util.flatten_dict(abstract, sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def parameters(
  matches: Sequence[Match], config: BagelConfig, dtype: np.dtype | None = None
) -> dict[str, LazyArray]:
  """All parameters by name.

  Args:
    matches: result of `match`.
    config: shape of the model.
    dtype: dtype of all parameters except the autoencoder's constants, which are
      float32; None = that of the files.
  """
  params = {e.ours: e.to_ours(tensors, dtype) for e, tensors in matches}
  return params | constants(config)


def constants(config: BagelConfig) -> dict[str, LazyArray]:
  """The parameters that BAGEL keeps in JSON instead of weights, float32."""
  ae = config.autoencoder
  return {
    name: LazyArray.of(np.full(ae.z_channels, getattr(ae, field), np.float32))
    for name, field in _CONSTANTS.items()
  }


def load_params(directory: str | Path, config: BagelConfig) -> dict[str, Any]:
  """Reads all parameters of a directory of BAGEL's files into memory.

  Args:
    directory: folder of BAGEL's files.
    config: shape of the model, from `bagel_config`.

  Returns:
    Nested dict of NumPy arrays in the dtypes of the files.

  Raises:
    BagelError, TensorFileError: as in `match`.
  """
  params = parameters(match(directory, config), config)
  return traverse_util.unflatten_dict(
    {name: array.whole() for name, array in params.items()}, sep='/'
  )


def source_tensors(
  config: BagelConfig,
  params: Mapping[str, LazyArray],
  dtype: np.dtype | None = None,
) -> dict[str, dict[str, LazyArray]]:
  """Converts parameters to the tensors of BAGEL's files.

  Args:
    config: shape of the model.
    params: all parameters by name.
    dtype: dtype of all tensors; None = that of each parameter.

  Returns:
    File name -> key -> tensor.

  Raises:
    BagelError: BAGEL has no key for a parameter; the message lists all.
  """
  tables = _tables(config)
  _check_table(tables, params)
  for name, constant in constants(config).items():
    # Training casts frozen parameters to its own dtype.
    expected = constant.whole().astype(params[name].dtype)
    if (params[name].whole() != expected).any():
      raise BagelError(
        f'BAGEL has no such model: {name} is not {_CONSTANTS[name]} '
        f'({expected[0]}) in every channel.'
      )
  return {
    file: {
      key: tensor
      for entry in table
      for key, tensor in zip(
        entry.keys, entry.to_source(params[entry.ours], dtype), strict=True
      )
    }
    for file, table in tables.items()
  }
