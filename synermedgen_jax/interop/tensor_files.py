"""Safetensors files, tensor by tensor: a JSON header, then raw numbers.

Read and written with plain file operations: the pages of a mapped file count
as this process's memory, and the library's writer wants all tensors at once.
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
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100 * 2**20


class TensorFileError(UserError):
  """A file that is no whole safetensors file; one line that names it."""


def read_tensors(
  path: Path, *, header_only: bool = False
) -> dict[str, LazyArray]:
  """The tensors of a file by key; their numbers stay on disk.

  Args:
    path: the file.
    header_only: do not ask whether the data that the header tells of is there.

  Raises:
    TensorFileError: no safetensors file, or one that is cut off.
  """
  header, start = _read_header(path)
  tensors, end = {}, 0
  try:
    entries = sorted(header.items(), key=lambda e: e[1]['data_offsets'])
    for key, entry in entries:
      dtype, shape = DTYPES.get(entry['dtype']), tuple(entry['shape'])
      if dtype is None:
        raise TensorFileError(
          f'{path}: {key} is {entry["dtype"]}; expected one of '
          f'{", ".join(DTYPES)}.'
        )
      begin, stop = entry['data_offsets']
      if begin != end or stop - begin != math.prod(shape) * dtype.itemsize:
        raise TensorFileError(f'{path}: the header misplaces {key}.')
      tensors[key] = _tensor(path, start + begin, shape, dtype)
      end = stop
  except (AttributeError, KeyError, TypeError, IndexError):
    raise TensorFileError(f'{path}: is not a safetensors file.') from None
  size = path.stat().st_size
  if not header_only and size != start + end:
    raise TensorFileError(
      f'{path}: has {size} bytes where its header says {start + end}; '
      'it is damaged or cut off, fetch it again.'
    )
  return tensors


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
  """What stands before the data, and where the data begins."""
  with path.open('rb') as file:
    prefix = file.read(8)
    length = struct.unpack('<Q', prefix)[0] if len(prefix) == 8 else 0
    text = file.read(length) if length <= _MAX_HEADER else b''
  try:
    header = json.loads(text)
    header.pop('__metadata__', None)
  except (ValueError, AttributeError, TypeError):
    raise TensorFileError(
      f'{path}: is not a safetensors file, or is cut off within its header.'
    ) from None
  return header, 8 + length


def _tensor(path: Path, offset: int, shape, dtype: np.dtype) -> LazyArray:
  row = math.prod(shape[1:]) * dtype.itemsize

  def read(index: Index) -> np.ndarray:
    # Whole rows of the first axis lie together.
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
  """The tensors of the files that an index lists.

  Args:
    index: JSON whose `weight_map` says which file holds which key.
    header_only: as in `read_tensors`.

  Raises:
    TensorFileError: a file is missing, or holds other keys than the index
      says.
  """
  try:
    places = json.loads(index.read_text())['weight_map']
    names = sorted(set(places.values()))
  except (ValueError, KeyError, TypeError, AttributeError):
    raise TensorFileError(f'{index}: is not an index of shards.') from None
  tensors, found = {}, set()
  for name in names:
    path = index.parent / name
    if not path.is_file():
      raise TensorFileError(f'{index}: lists {name}, which is not there.')
    shard = read_tensors(path, header_only=header_only)
    tensors |= shard
    found |= {(key, name) for key in shard}
  wrong = found ^ set(places.items())
  if wrong:
    raise TensorFileError(
      f'{index}: does not agree with its files about '
      f'{", ".join(sorted({key for key, _ in wrong}))}.'
    )
  return tensors


def write_tensors(
  path: Path,
  tensors: Mapping[str, LazyArray],
  progress: Callable[[int], object] = lambda _: None,
) -> None:
  """Writes a safetensors file block by block; it is whole or not there.

  Args:
    path: the file.
    tensors: by key, in the order of the file.
    progress: called with the number of bytes just written.
  """
  # PyTorch's loaders refuse a file that does not say whose layout it has.
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
