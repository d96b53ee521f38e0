"""Reads and writes safetensors files block by block, with bounded memory.

A file is a JSON header followed by raw numbers. The safetensors library is not
used: its reader maps files, whose pages count as memory of the process, and its
writer needs all tensors at once.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.lazy_array import Index, LazyArray, block_shape

DTYPES = {
  'F64': np.dtype('float64'),
  'F32': np.dtype('float32'),
  'F16': np.dtype('float16'),
  'BF16': jnp.dtype('bfloat16'),
  'I64': np.dtype('int64'),  # of counters and indices beside the weights
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100 * 2**20


class TensorFileError(UserError):
  """A file that is not a complete safetensors file; one line naming it."""


def read_tensors(
  path: Path, *, header_only: bool = False
) -> dict[str, LazyArray]:
  """Reads the header of a file; tensor data is read on demand.

  Args:
    path: the file.
    header_only: accept a file that lacks the data after its header.

  Returns:
    Key -> tensor.

  Raises:
    TensorFileError: the file is not a safetensors file, or is truncated.
  """
  header, start = _read_header(path)
  tensors, end = {}, 0
  try:
    entries = sorted(header.items(), key=lambda e: e[1]['data_offsets'])
    for key, entry in entries:
      dtype, shape = DTYPES.get(entry['dtype']), tuple(entry['shape'])
      if dtype is None:
        raise TensorFileError(
          f'{path}: {key} has dtype {entry["dtype"]}; expected one of '
          f'{", ".join(DTYPES)}.'
        )
      begin, stop = entry['data_offsets']
      if begin != end or stop - begin != math.prod(shape) * dtype.itemsize:
        raise TensorFileError(
          f'{path}: the header has wrong offsets of {key}; download it again.'
        )
      tensors[key] = _tensor(path, start + begin, shape, dtype)
      end = stop
  except (AttributeError, KeyError, TypeError, IndexError):
    raise TensorFileError(f'{path}: is not a safetensors file.') from None
  size = path.stat().st_size
  if not header_only and size != start + end:
    raise TensorFileError(
      f'{path}: has {size} bytes, but {start + end} by its header; it is '
      'damaged or truncated, download it again.'
    )
  return tensors


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
  """The header, and the offset of the data in bytes."""
  with path.open('rb') as file:
    prefix = file.read(8)
    length = struct.unpack('<Q', prefix)[0] if len(prefix) == 8 else 0
    text = file.read(length) if length <= _MAX_HEADER else b''
  try:
    header = json.loads(text)
    header.pop('__metadata__', None)
  except (ValueError, AttributeError, TypeError):
    raise TensorFileError(
      f'{path}: is not a safetensors file, or is truncated in its header.'
    ) from None
  return header, 8 + length


def _tensor(path: Path, offset: int, shape, dtype: np.dtype) -> LazyArray:
  row = math.prod(shape[1:]) * dtype.itemsize

  def read(index: Index) -> np.ndarray:
    # Rows of the first axis are contiguous in the file.
    first, last = (index[0].start, index[0].stop) if shape else (0, 1)
    data = np.fromfile(
      path, np.uint8, (last - first) * row, offset=offset + first * row
    )
    rows = data.view(dtype).reshape((last - first, *shape[1:]))
    if not shape:
      return rows[0]
    return rows[(slice(None), *index[1:])]

  return LazyArray(
    shape, dtype, block_shape(shape, dtype, [0][: len(shape)]), read
  )


def read_sharded(
  index: Path, *, header_only: bool = False
) -> dict[str, LazyArray]:
  """Reads the headers of all files that an index lists.

  Args:
    index: JSON file whose `weight_map` maps keys to file names.
    header_only: as in `read_tensors`.

  Returns:
    Key -> tensor.

  Raises:
    TensorFileError: a file is missing, or its keys differ from the index.
  """
  try:
    places = json.loads(index.read_text('utf-8'))['weight_map']
    names = sorted(set(places.values()))
  except (ValueError, KeyError, TypeError, AttributeError):
    raise TensorFileError(f'{index}: is not an index of shards.') from None
  tensors, actual = {}, set()
  for name in names:
    path = index.parent / name
    if not path.is_file():
      raise TensorFileError(f'{index}: lists {name}, which is missing.')
    shard = read_tensors(path, header_only=header_only)
    tensors |= shard
    actual |= {(key, name) for key in shard}
  wrong = actual ^ set(places.items())
  if wrong:
    raise TensorFileError(
      f'{index}: differs from its files in '
      f'{", ".join(sorted({key for key, _ in wrong}))}.'
    )
  return tensors


def write_tensors(
  path: Path,
  tensors: Mapping[str, LazyArray],
  progress: Callable[[int], object] = lambda _: None,
) -> None:
  """Writes a safetensors file block by block, atomically.

  Args:
    path: the file.
    tensors: key -> tensor, in the order of the file.
    progress: called after each block with its number of bytes.
  """
  # PyTorch's loaders require the format in the metadata.
  header, end = {'__metadata__': {'format': 'pt'}}, 0
  for key, tensor in tensors.items():
    header[key] = {
      'dtype': _NAMES[tensor.dtype],
      'shape': tensor.shape,
      'data_offsets': [end, end + tensor.nbytes],
    }
    end += tensor.nbytes
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  partial = path.with_name(f'.{path.name}.partial')
  try:
    with partial.open('wb') as file:
      file.write(struct.pack('<Q', len(text)) + text)
      for tensor in tensors.values():
        for index in tensor.blocks():
          block = np.ascontiguousarray(tensor.read(index))
          file.write(block.reshape(-1).view(np.uint8).data)
          progress(block.nbytes)
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
