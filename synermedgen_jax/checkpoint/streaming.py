"""Checkpoints of models larger than memory, written and read block by block.

The format is that of `checkpoint/orbax_items.py`: either module reads models
that the other one wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.checkpoint.checksums import compare_checksum, lazy_checksum
from synermedgen_jax.core.lazy_array import BLOCK_BYTES, Index, LazyArray
from synermedgen_jax.core.progress import Bar
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.shape_json import model_from_json, model_to_json

Progress = Callable[[int], object]


class _LazyHandler(ocp.type_handlers.NumpyHandler):
  """Writes a `LazyArray` block by block; it is read as a NumPy array."""

  def __init__(self, progress: Progress):
    super().__init__()
    self._progress = progress

  async def serialize(self, values, infos, args=None) -> Sequence[Any]:
    return [
      ocp.future.CommitFutureAwaitingContractedSignals(
        self._write(values, infos), name='lazy arrays'
      )
    ]

  async def _write(self, values: Sequence[LazyArray], infos) -> None:
    arrays = await asyncio.gather(*map(self._create, values, infos))
    writes, held = [], 0
    try:
      for value, array in zip(values, arrays, strict=True):
        for index in value.blocks():
          block = value.read(index)
          writes.append(array[index].write(block))
          held += block.nbytes
          # Every commit takes time: small blocks share one.
          if held >= BLOCK_BYTES:
            await asyncio.gather(*writes)
            self._progress(held)
            writes, held = [], 0
      await asyncio.gather(*writes)
      self._progress(held)
    finally:
      # After an error is raised, no write may be in progress.
      await asyncio.gather(*writes, return_exceptions=True)

  async def _create(self, value: LazyArray, info) -> ts.TensorStore:
    if hasattr(info, 'await_path_creation'):  # not before Orbax 0.12
      await info.await_path_creation()
    spec = ocp.type_handlers.get_json_tspec_write(
      info,
      use_ocdbt=True,
      global_shape=value.shape,
      local_shape=value.shape,
      dtype=value.dtype,
      process_index=0,
    )
    spec['dtype'] = value.dtype.name
    spec['metadata']['chunks'] = value.block
    # Otherwise Orbax reports chunks of zeros as missing.
    spec['store_data_equal_to_fill_value'] = True
    return await ts.open(spec, create=True, context=info.ts_context)


def save_model(
  directory: str | Path,
  model: BagelConfig,
  params: Mapping[str, LazyArray],
  progress: Progress = lambda _: None,
) -> None:
  """Writes a model as checkpoint 0, which appears once it is complete.

  Args:
    directory: the `checkpoints` directory of a run that has none yet.
    model: the model's shape.
    params: all parameters by name, 'a/b/c'.
    progress: called with the number of bytes just written.
  """
  registry = ocp.type_handlers.create_type_handler_registry(
    (LazyArray, _LazyHandler(progress)),
    # Not needed, but Orbax warns if it is absent.
    (jax.Array, ocp.type_handlers.get_type_handler(jax.Array)),
  )
  handlers = {
    'params': ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
    'model': ocp.JsonCheckpointHandler(),
  }
  options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
  with contextlib.closing(
    ocp.CheckpointManager(
      Path(directory).absolute(), options=options, item_handlers=handlers
    )
  ) as checkpoints:
    checkpoints.save(
      0,
      args=ocp.args.Composite(
        params=ocp.args.PyTreeSave(unflatten(params)),
        model=ocp.args.JsonSave(model_to_json(model)),
      ),
    )


def open_model(
  directory: str | Path,
) -> tuple[BagelConfig, dict[str, LazyArray]]:
  """Opens the newest checkpoint's model; its parameters stay on disk.

  They are read once, block by block, if the checkpoint has checksums.

  Args:
    directory: the `checkpoints` directory of a run.

  Returns:
    The model's shape, and its parameters by name: the averaged ones if the run
    kept an average.

  Raises:
    CheckpointError: there is no complete checkpoint, or it is damaged.
  """
  checkpoints, step = saved_model.latest(directory)
  with contextlib.closing(checkpoints), _read_errors(f'{directory}/{step}'):
    metadata = checkpoints.item_metadata(step)
    wanted = {'model': ocp.args.JsonRestore()}
    wanted |= saved_model.checksums_if_saved(checkpoints, step)
    read = ckpt.read_items(checkpoints, step, wanted)
    trees = {'params': metadata['params'].tree}
    if metadata.get('ema') is not None:
      trees['ema'] = metadata['ema'].tree
    saved_model.check_average(read, has_average='ema' in trees)
    # Holds the chunks of a row, so that each is decoded once.
    cache = BLOCK_BYTES + max(map(_row_bytes, jax.tree.leaves(trees)))
    context = ts.Context({'cache_pool': {'total_bytes_limit': cache}})
    stored = jax.tree.map(lambda leaf: _stored(leaf, context), trees)
    if 'checksums' in read:
      _check_sums(stored, read['checksums'])
  arrays = flatten(stored['params']) | flatten(stored.get('ema', {}))
  return model_from_json(read['model']), arrays


def _check_sums(stored: Mapping[str, Any], expected: Mapping[str, int]) -> None:
  """Raises ValueError if an item differs from its checksum."""
  total = sum(array.nbytes for array in jax.tree.leaves(stored))
  with Bar('checksums', total, 'B', delay=0.5) as bar:
    for name, tree in stored.items():
      checksum = lazy_checksum(jax.tree.leaves(tree), bar.update)
      compare_checksum(name, checksum, expected)


@contextlib.contextmanager
def _read_errors(name: str) -> Iterator[None]:
  """Raises errors of the block as one line that starts with `name`."""
  try:
    yield
  except (ValueError, KeyError, OSError) as error:
    reason = str(error).partition('\n')[0][:200]
    raise ckpt.CheckpointError(f'{name}: cannot be read ({reason}).') from error


def _chunk(leaf) -> tuple[int, ...]:
  return tuple(leaf.storage.chunk_shape)


def _row_bytes(leaf) -> int:
  """Bytes of all chunks that contain a row of the first axis."""
  shape = [*_chunk(leaf)[:1], *leaf.shape[1:]]
  return math.prod(shape) * np.dtype(leaf.dtype).itemsize


def _stored(leaf, context: ts.Context) -> LazyArray:
  """An array of a checkpoint, read on demand."""
  base = f'{leaf.directory}/'
  spec = {
    'driver': 'zarr',
    'recheck_cached_data': False,
    'recheck_cached_metadata': False,
    'kvstore': {
      'driver': 'ocdbt',
      'base': base if '://' in base else {'driver': 'file', 'path': base},
      'path': f'{leaf.name}/',
    },
  }

  def read(index: Index) -> np.ndarray:
    with _read_errors(f'{base}: {leaf.name}'):
      array = ts.open(spec, read=True, open=True, context=context).result()
      return array[index].read().result()

  return LazyArray(tuple(leaf.shape), np.dtype(leaf.dtype), _chunk(leaf), read)
