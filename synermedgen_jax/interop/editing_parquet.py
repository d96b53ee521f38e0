"""BAGEL's editing format: Parquet tables of pictures and instructions.

A row is a chain of pictures, each made from the one before:

  image_list        [bytes of a PNG or JPEG file, ...]    the source first
  instruction_list  [["words", "other words"], ...]       one list a step

A step's instructions say the same in other words; one is drawn each time. A
chain may be longer than a pair. As in BAGEL, one or two steps of it are drawn;
two are one after the other, or one edit with both instructions.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import grain.python as grain
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synermedgen_jax.input.packing import ReadSlice
from synermedgen_jax.interop.image_files import (
  FormatError,
  PictureBytes,
  encode_png,
)
from synermedgen_jax.tasks.example import Example, text, vae_image, vit_image

COLUMNS = ('image_list', 'instruction_list')
SCHEMA = pa.schema(
  [
    ('image_list', pa.list_(pa.binary())),
    ('instruction_list', pa.list_(pa.list_(pa.string()))),
  ]
)
# Row groups that are shuffled together. They are in memory together, with one
# more while readers go from these to the next.
_OPEN_GROUPS = 4
_ROWS_A_GROUP = 256


@dataclasses.dataclass(frozen=True)
class Chain:
  """One row.

  Attributes:
    pictures: the source and what was made from it, step by step.
    instructions: the wordings of each step.
  """

  pictures: tuple[PictureBytes, ...]
  instructions: tuple[tuple[str, ...], ...]


class EditingRows:
  """The rows of Parquet files by index; a row group is read as a whole."""

  def __init__(self, paths: Sequence[Path]):
    """Reads the files' footers.

    Raises:
      FormatError: naming a file that is no Parquet or has other columns.
    """
    self._groups = []  # (path, group, number of its first row in the file)
    self.sizes = []  # rows per group
    for path in paths:
      metadata = _read_footer(path)
      first = 0
      for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        self._groups.append((path, group, first))
        self.sizes.append(rows)
        first += rows
    self._ends = np.cumsum(self.sizes, dtype=np.int64)
    self._lock = threading.Lock()
    self._table = functools.lru_cache(_OPEN_GROUPS + 1)(self._read_group)
    if not len(self):
      raise FormatError(f'{paths[0]}: holds no row.')

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: int) -> Chain:
    """One row.

    Raises:
      FormatError: naming file, row (from 0) and what is wrong with it.
    """
    group = int(np.searchsorted(self._ends, index, side='right'))
    path, _, first = self._groups[group]
    row = int(index - self._ends[group] + self.sizes[group])
    with self._lock:  # Or two readers would read one group twice.
      table = self._table(group)
    return _parse_row(
      *(table.column(name)[row].as_py() for name in COLUMNS),
      f'{path}: row {first + row}',
    )

  def _read_group(self, group: int) -> pa.Table:
    path, number, _ = self._groups[group]
    try:
      with pq.ParquetFile(path) as file:
        return file.read_row_group(number, columns=COLUMNS)
    except (pa.ArrowException, OSError) as error:
      raise FormatError(
        f'{path}: row group {number} cannot be read: {_first_line(error)}.'
      ) from None


def _first_line(error: Exception) -> str:
  return str(error).partition('\n')[0].rstrip('. ')


def _read_footer(path: Path) -> pq.FileMetaData:
  try:
    with pq.ParquetFile(path) as file:
      schema, metadata = file.schema_arrow, file.metadata
  except (pa.ArrowException, OSError) as error:
    raise FormatError(
      f'{path}: is not a whole Parquet file: {_first_line(error)}.'
    ) from None
  for name, depth, is_leaf, leaf in (
    ('image_list', 1, _is_bytes, 'bytes'),
    ('instruction_list', 2, _is_string, 'strings'),
  ):
    if name not in schema.names:
      raise FormatError(f'{path}: has no column {name}.')
    kind = schema.field(name).type
    for _ in range(depth):
      kind = kind.value_type if _is_list(kind) else pa.null()
    if not is_leaf(kind):
      raise FormatError(
        f'{path}: column {name} is {schema.field(name).type}, expected '
        f'{"lists of " * depth}{leaf}.'
      )
  return metadata


def _is_list(kind: pa.DataType) -> bool:
  return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_bytes(kind: pa.DataType) -> bool:
  return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_string(kind: pa.DataType) -> bool:
  return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _parse_row(
  images: list[bytes | None] | None,
  instructions: list[list[str | None] | None] | None,
  where: str,
) -> Chain:
  images, instructions = images or [], instructions or []
  if len(images) < 2:
    raise FormatError(
      f'{where}: image_list has {len(images)} picture(s), an edit needs two.'
    )
  if len(instructions) != len(images) - 1:
    raise FormatError(
      f'{where}: instruction_list has {len(instructions)} step(s) for '
      f'{len(images)} pictures, expected {len(images) - 1}.'
    )
  for step, wordings in enumerate(instructions):
    if not wordings or not all(wordings):
      raise FormatError(
        f'{where}: step {step} of instruction_list has an empty instruction.'
      )
  return Chain(
    tuple(
      PictureBytes(data or b'', f'{where}: picture {i} of image_list')
      for i, data in enumerate(images)
    ),
    tuple(map(tuple, instructions)),
  )


def build(chain: Chain, rng: np.random.Generator) -> Example:
  """Source, instruction -> noised target, once or twice over.

  Source VAE, source ViT, instruction, noised target; with a second step, that
  target VAE, that target ViT, instruction, noised target.

  Args:
    chain: a row.
    rng: draws the steps and the wordings.
  """
  last = len(chain.pictures) - 1
  start = int(rng.integers(last))
  stop = int(rng.integers(start + 1, min(start + 2, last) + 1))
  words = [str(rng.choice(w)) for w in chain.instructions[start:stop]]
  pictures = list(chain.pictures[start : stop + 1])
  if len(words) == 2 and rng.random() < 0.5:
    words = [' '.join(f'{w.rstrip(".")}.' for w in words)]
    del pictures[1]
  spans = []
  for source, instruction, target in zip(
    pictures[:-1], words, pictures[1:], strict=True
  ):
    spans += [
      vae_image(source),
      vit_image(source),
      text(instruction),
      vae_image(target, has_loss=True),
    ]
  return Example('editing', tuple(spans))


class _GroupwiseOrder:
  """Every epoch all rows once, a few row groups at a time."""

  def __init__(self, sizes: Sequence[int], seed: int):
    self._starts = np.cumsum([0, *sizes], dtype=np.int64)
    self._seed = seed
    self._lock = threading.Lock()
    self._epoch = functools.lru_cache(2)(self._shuffle)

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: int) -> int:
    epoch, place = divmod(index, int(self._starts[-1]))
    with self._lock:
      order = self._epoch(epoch)
    return int(order[place])

  def _shuffle(self, epoch: int) -> np.ndarray:
    rng = np.random.default_rng((self._seed, epoch))
    groups = rng.permutation(len(self._starts) - 1)
    parts = []
    for i in range(0, len(groups), _OPEN_GROUPS):
      rows = np.concatenate(
        [
          np.arange(self._starts[group], self._starts[group + 1])
          for group in groups[i : i + _OPEN_GROUPS]
        ]
      )
      parts.append(rng.permutation(rows))
    return np.concatenate(parts)


class _Build(grain.RandomMapTransform):
  """Index of a row -> Example."""

  def __init__(self, rows: EditingRows):
    self._rows = rows

  def random_map(self, index: int, rng: np.random.Generator) -> Example:
    return build(self._rows[index], rng)


def editing_dataset(rows: EditingRows, seed: int) -> grain.MapDataset:
  """An endless sequence of examples, shuffled anew every epoch.

  Row groups come in any order and the rows of four at a time in any order: a
  row that is far from the last one would cost a whole row group's reading.
  """
  order = grain.MapDataset.source(_GroupwiseOrder(rows.sizes, seed))
  return order.seed(seed).random_map(_Build(rows))


def write_editing(
  examples: Iterable[Example], read_slice: ReadSlice, path: str | os.PathLike
) -> Path:
  """Writes examples of synthesis as one Parquet file.

  Reading them back gives the same spans.

  Args:
    examples: source VAE, source ViT, instruction, noised target.
    read_slice: pixels by name, as `pipeline.slice_reader(store)`.
    path: of the file, which is there once it is whole; PNG of 8 bits a pixel.

  Raises:
    FormatError: there is one already, or an example is of another kind.
  """
  path = Path(path)
  if path.exists():
    raise FormatError(f'{path}: is there already; name a new file.')
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.part')
  # PNG files do not become smaller by compressing them again.
  with pq.ParquetWriter(part, SCHEMA, compression='none') as writer:
    rows = []
    for example in examples:
      rows.append(_row(example, read_slice))
      if len(rows) == _ROWS_A_GROUP:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        rows = []
    if rows:
      writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
  part.replace(path)
  return path


def _row(example: Example, read_slice: ReadSlice) -> dict[str, list]:
  kinds = [(span.kind, span.has_loss) for span in example.spans]
  pair = [('vae_image', False), ('vit_image', False)]
  pair += [('text', False), ('vae_image', True)]
  source, seen, words, target = (*example.spans, *[None] * 4)[:4]
  if kinds != pair or source.image != seen.image:
    raise FormatError(
      f'An example of task {example.task!r} is not a source, an instruction '
      'and a target, which the editing format holds.'
    )
  images = (source.image, target.image)
  return {
    'image_list': [encode_png(read_slice(image)) for image in images],
    'instruction_list': [[words.text]],
  }
