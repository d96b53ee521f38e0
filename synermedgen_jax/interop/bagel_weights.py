"""Converts BAGEL's weights to our parameters and back, by `key_table`.

Both directions are lazy: at most one block of a parameter is in memory.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
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
from synermedgen_jax.interop.layouts import BAGEL, Layout
from synermedgen_jax.models.bagel import abstract_params
from synermedgen_jax.models.bagel_config import BagelConfig

# Parameters of ours that are numbers in BAGEL's ae_config.json.
_CONSTANTS = {
  'autoencoder/latent_scale': 'scale_factor',
  'autoencoder/latent_shift': 'shift_factor',
}
# Options that give the sizes of the position tables: (option, file).
_SIDES = {
  'vit_pos_embed.pos_embed': ('vit_max_num_patch_per_side', 'config'),
  'latent_pos_embed.pos_embed': ('max_latent_size', 'config'),
  'vit_model.vision_model.embeddings.position_embedding.weight': (
    'image_size',
    'vit_config',
  ),
}
# Prefix of the keys of a batch norm of latents, which UniMedVL's program adds
# to a model whose autoencoder it trains (codes/modeling/unimedvl/bagel.py).
_LATENT_NORM = 'vae_batch_norm'
Match = tuple[Entry, list[LazyArray]]


def match(
  directory: str | Path,
  config: BagelConfig,
  layout: Layout = BAGEL,
  *,
  header_only: bool = False,
) -> list[Match]:
  """Matches the rows of both key tables to tensors.

  No tensor data is read, except where the weights repeat the autoencoder: a
  copy has to equal its tensor in `ae.safetensors`, both in the narrower of
  their two dtypes.

  Args:
    directory: folder of BAGEL's files.
    config: shape of the model, from `bagel_config`.
    layout: names of the files and prefix of copies.
    header_only: accept files that end after their headers, and compare only
      names and shapes of copies.

  Raises:
    BagelError: keys are missing or unknown, their shapes differ from the
      config, or a copy differs; the message names all of them.
    TensorFileError: a file is damaged; the message names it.
  """
  directory = Path(directory)
  shapes, tables = param_shapes(config), _tables(config)
  _check_table(tables, shapes)
  weights, autoencoder = (
    _open(directory, files, indices, header_only=header_only)
    for files, indices in (
      (layout.weights, layout.indices),
      (('ae.safetensors',), ('ae.safetensors.index.json',)),
    )
  )
  extra = tuple(filter(None, (_LATENT_NORM, layout.copies)))
  problems = _extra_problems(weights, autoencoder, layout, header_only)
  matches = []
  for file, table in zip((weights, autoencoder), tables.values(), strict=True):
    keys = {key for entry in table for key in entry.keys}
    unknown = {k for k in set(file.tensors) - keys if not k.startswith(extra)}
    problems += file.listed('lacks', keys - set(file.tensors))
    problems += file.listed('has unknown', unknown)
    for entry in table:
      expected = entry.source_shape(shapes[entry.ours])
      problems += _tensor_problems(entry, file, expected, layout)
      matches.append((entry, [file.tensors.get(key) for key in entry.keys]))
  if problems:
    raise BagelError(f'{directory}: {"; ".join(sorted(problems))}.')
  return matches


@dataclasses.dataclass(frozen=True)
class _File:
  """Tensors of a file or of its shards, by key, and the name of the file."""

  name: str
  tensors: dict[str, LazyArray]

  def listed(self, problem: str, keys: Iterable[str], why: str = '') -> list:
    """One line about these keys; none if there are no keys."""
    keys = sorted(keys)
    return [f'{self.name} {problem} {", ".join(keys)}{why}'] if keys else []


def _open(
  directory: Path,
  names: Sequence[str],
  indices: Sequence[str],
  *,
  header_only: bool,
) -> _File:
  """The first of these files that exists, or of these indices of shards."""
  for name in (*names, *indices):
    if (directory / name).is_file():
      read = (
        tensor_files.read_sharded
        if name in indices
        else tensor_files.read_tensors
      )
      return _File(name, read(directory / name, header_only=header_only))
  raise BagelError(
    f'{directory}: has no {" or ".join(names)} and no {" or ".join(indices)}.'
  )


def _extra_problems(
  weights: _File, autoencoder: _File, layout: Layout, header_only: bool
) -> list[str]:
  """What is wrong with keys that no table has: a latent norm, or copies."""
  norm = {key for key in weights.tensors if key.startswith(_LATENT_NORM)}
  copies = {
    key: autoencoder.tensors.get(key.removeprefix(layout.copies))
    for key in weights.tensors
    if layout.copies and key.startswith(layout.copies)
  }
  unknown = {key for key, original in copies.items() if original is None}
  different = {
    key
    for key, original in copies.items()
    if original is not None
    and not _equal(weights.tensors[key], original, shape_only=header_only)
  }
  return [
    *weights.listed(
      'has',
      norm,
      f', and {_LATENT_NORM}, of a model trained with enable_e2e_vae, is not '
      'supported',
    ),
    *weights.listed('has', unknown, f', which {autoencoder.name} lacks'),
    *weights.listed(
      'has', different, f', which differ from {autoencoder.name}'
    ),
  ]


def _equal(copy: LazyArray, original: LazyArray, *, shape_only: bool) -> bool:
  """Whether two tensors are equal in the narrower of their dtypes."""
  if copy.shape != original.shape:
    return False
  dtype = min(copy.dtype, original.dtype, key=lambda dtype: dtype.itemsize)
  return shape_only or all(
    np.array_equal(copy.read(i).astype(dtype), original.read(i).astype(dtype))
    for i in copy.blocks()
  )


def _tensor_problems(
  entry: Entry, file: _File, expected: tuple[int, ...], layout: Layout
) -> list[str]:
  """What is wrong with the tensors of a row of a table."""
  problems = []
  for key in entry.keys:
    tensor = file.tensors.get(key)
    if tensor is None:
      continue  # listed as missing
    if tensor.shape != expected:
      problems.append(_shape_problem(key, tensor.shape, expected, layout))
    if tensor.dtype.kind == 'i':
      problems.append(f'{key} has dtype {tensor.dtype}; weights are floats')
  return problems


def _shape_problem(key: str, shape, expected, layout: Layout) -> str:
  origin = 'the JSON files'
  if key in _SIDES and shape[1:] == expected[1:]:
    option, file = _SIDES[key]
    origin = f'{option} of {file}.json'
    if option in layout.options.get(file, {}):
      origin = f'{option} of the layout {layout.name}'
  return f'{key} has shape {shape}; expected {expected} from {origin}'


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
    expected, actual = constant.whole(), params[name].whole()
    # Training casts frozen parameters to its own dtype, and weights folders
    # round them to 16 bits.
    if not any(
      np.array_equal(actual, expected.astype(rounded).astype(actual.dtype))
      for rounded in (np.float32, np.float16, jnp.bfloat16)
    ):
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
