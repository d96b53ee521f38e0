"""BAGEL's editing format: Parquet tables of pictures and instructions.

A row is a chain of pictures, each an edit of the previous one:

  image_list        [bytes of a PNG or JPEG file, ...]    the source first
  instruction_list  [["words", "other words"], ...]       one list per step

The instructions of a step are alternative wordings; one is drawn each time. As
in BAGEL, an example has one or two consecutive steps of the chain. Two steps
are either two edits, or one edit with both instructions.

Three pictures or more with a single list of instructions are several sources
and their one target, the last picture. This extension is SynerMedGen's
(github.com/piooip/SynerMedGen, data/interleave_datasets/edit_dataset_new.py);
BAGEL's own reader takes such a row for a chain.
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
# Row groups whose rows are shuffled together. All of them are in memory, and
# one more while readers proceed to the next groups.
_OPEN_GROUPS = 4
_ROWS_PER_GROUP = 256


@dataclasses.dataclass(frozen=True)
class Step:
  """One edit.

  Attributes:
    sources: the pictures to edit.
    instructions: alternative wordings.
    target: the result.
  """

  sources: tuple[PictureBytes, ...]
  instructions: tuple[str, ...]
  target: PictureBytes


@dataclasses.dataclass(frozen=True)
class Chain:
  """One row of a table.

  Attributes:
    steps: in a chain of several, the target of each is the source of the next.
  """

  steps: tuple[Step, ...]


class EditingRows:
  """The rows of Parquet files by index; reads one row group at a time."""

  def __init__(self, paths: Sequence[Path]):
    """Reads the footers of the files.

    Raises:
      FormatError: a file is not Parquet or has other columns, or the first has
        no row.
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
    """Reads one row.

    Raises:
      FormatError: the row is invalid; the message names file, row (from 0) and
        problem.
    """
    group = int(np.searchsorted(self._ends, index, side='right'))
    path, _, first = self._groups[group]
    row = int(index - self._ends[group] + self.sizes[group])
    with self._lock:  # Prevents two threads from reading the same group.
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
      f'{path}: is not a complete Parquet file: {_first_line(error)}.'
    ) from None
  if 'combined_instruction' in schema.names:
    raise FormatError(
      f'{path}: has a column combined_instruction, which is not read; write '
      'its wordings as the only list of instruction_list.'
    )
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
      f'{where}: image_list has {len(images)} picture(s); an edit needs two.'
    )
  if len(instructions) not in (1, len(images) - 1):
    raise FormatError(
      f'{where}: instruction_list has {len(instructions)} step(s) for '
      f'{len(images)} pictures, expected {len(images) - 1}, or 1 for several '
      'sources of one target.'
    )
  for step, wordings in enumerate(instructions):
    if not wordings or not all(wordings):
      raise FormatError(
        f'{where}: step {step} of instruction_list has an empty instruction.'
      )
  pictures = [
    PictureBytes(data or b'', f'{where}: picture {i} of image_list')
    for i, data in enumerate(images)
  ]
  # All pictures but the last are the sources of a single instruction.
  each = len(pictures) - len(instructions)
  return Chain(
    tuple(
      Step(tuple(pictures[i : i + each]), tuple(wordings), pictures[i + each])
      for i, wordings in enumerate(instructions)
    )
  )


def build(chain: Chain, rng: np.random.Generator) -> Example:
  """Builds an example of one or two edits.

  An edit has the spans VAE and ViT of each source, instruction, noised target.
  The target of the first edit is the source of the second.

  Args:
    chain: a row.
    rng: draws the steps and the wordings.
  """
  last = len(chain.steps)
  start = int(rng.integers(last))
  stop = int(rng.integers(start + 1, min(start + 2, last) + 1))
  edits = [
    (step.sources, str(rng.choice(step.instructions)), step.target)
    for step in chain.steps[start:stop]
  ]
  if len(edits) == 2 and rng.random() < 0.5:
    (sources, first, _), (_, second, target) = edits
    words = ' '.join(f'{w.rstrip(".")}.' for w in (first, second))
    edits = [(sources, words, target)]
  spans = []
  for sources, words, target in edits:
    spans += [s(image) for image in sources for s in (vae_image, vit_image)]
    spans += [text(words), vae_image(target, has_loss=True)]
  return Example('editing', tuple(spans))


class _GroupwiseOrder:
  """Row indices, each once per epoch, shuffled within a few row groups."""

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
  """An endless sequence of examples, shuffled again in every epoch.

  Row groups are shuffled, and rows within every four groups: a full shuffle
  would read a row group for every row.

  Args:
    rows: the rows.
    seed: random seed of the order and of all draws.
  """
  order = grain.MapDataset.source(_GroupwiseOrder(rows.sizes, seed))
  return order.seed(seed).random_map(_Build(rows))


def write_editing(
  examples: Iterable[Example], read_slice: ReadSlice, path: str | os.PathLike
) -> Path:
  """Writes synthesis examples as one Parquet file, atomically.

  `EditingRows` and `build` read the same spans back. Pictures are PNG with 8
  bits per pixel and channel.

  Args:
    examples: examples with the spans VAE and ViT of each source, instruction,
      noised target.
    read_slice: pixels of an image, as `pipeline.slice_reader(store)`.
    path: the new file.

  Returns:
    The path of the file.

  Raises:
    FormatError: the file exists, or an example has other spans.
  """
  path = Path(path)
  if path.exists():
    raise FormatError(f'{path}: already exists; name a new file.')
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.part')
  # PNG is already compressed.
  with pq.ParquetWriter(part, SCHEMA, compression='none') as writer:
    rows = []
    for example in examples:
      rows.append(_row(example, read_slice))
      if len(rows) == _ROWS_PER_GROUP:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        rows = []
    if rows:
      writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
  part.replace(path)
  return path


def _row(example: Example, read_slice: ReadSlice) -> dict[str, list]:
  conditions, ends = example.spans[:-2], example.spans[-2:]
  sources = [span.image for span in conditions[::2]]
  edit = [
    (kind, False, image)
    for image in sources
    for kind in ('vae_image', 'vit_image')
  ]
  if (
    not sources
    or [(s.kind, s.has_loss, s.image) for s in conditions] != edit
    or [(s.kind, s.has_loss) for s in ends]
    != [('text', False), ('vae_image', True)]
  ):
    raise FormatError(
      f'An example of task {example.task!r} is not a source or several, an '
      'instruction and a target; the editing format holds nothing else.'
    )
  words, target = ends
  return {
    'image_list': [
      encode_png(read_slice(image)) for image in (*sources, target.image)
    ],
    'instruction_list': [[words.text]],
  }
