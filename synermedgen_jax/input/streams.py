"""Distributes the rows of a batch over any number of processes, as streams.

A run has a fixed number of streams. Each stream packs its own share of the
examples into its own rows of the batch. A process reads the streams of the rows
on its devices. A batch therefore does not depend on the number of processes,
and a run can resume with another number.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any

import grain.python as grain
import jax
import numpy as np
from jaxtyping import Int

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.tasks.example import SliceRef


def streams_of(rows_here: Int[np.ndarray, ' n'], rows: int, streams: int):
  """Returns the streams that a process reads, in the order of their rows.

  Args:
    rows_here: rows on the devices of this process.
    rows: rows of the global batch.
    streams: number of streams.

  Raises:
    ValueError: streams have unequal numbers of rows, or the rows of a stream
      are on several processes.
  """
  each = rows // streams
  local = np.unique(rows_here // each) if each else rows_here
  if rows % streams or len(local) * each != len(rows_here):
    raise ValueError(
      f'{streams} for {rows} rows, {len(rows_here)} of them on this process: '
      'every stream needs as many rows as the others, and all of its rows on '
      'one process; set a multiple of the number of processes that divides '
      'config.rows.'
    )
  return local.tolist()


@dataclasses.dataclass(frozen=True)
class Share:
  """One stream's share of a sequence: one of every `streams` elements.

  A seeded permutation deals each `streams` consecutive elements out. A mixture
  of tasks is periodic; dealt out in turn, a task would fall into some streams
  alone, and streams advance by rows, of which a task may fill more.

  Attributes:
    sequence: the elements that all streams share.
    stream: number of this stream.
    streams: number of streams.
    seed: random seed of the permutations.
  """

  sequence: Sequence[Any]
  stream: int
  streams: int
  seed: int

  def __len__(self) -> int:
    return len(self.sequence) // self.streams

  def __getitem__(self, index: int):
    rng = np.random.default_rng((self.seed, index))
    place = rng.permutation(self.streams)[self.stream]
    return self.sequence[index * self.streams + int(place)]


class TrainData:
  """An endless iterable of `PackedBatch`es with the rows of this process."""

  def __init__(
    self,
    examples: grain.MapDataset,
    streams: Mapping[int, grain.IterDataset],
    layout: Mapping[str, Any] = types.MappingProxyType({}),
  ):
    """
    Args:
      examples: the sequence of examples that all streams share.
      streams: streams of this process by number, in the order of their rows;
        elements are (PackedBatch, numbers of its examples).
      layout: settings that determine the meaning of an iterator state, as JSON
        values.
    """
    self._examples = examples
    self._streams = dict(streams)
    self._layout = json.loads(json.dumps(dict(layout)))

  def __iter__(self) -> BatchIterator:
    streams = {n: iter(s) for n, s in self._streams.items()}
    return BatchIterator(streams, self._layout)

  def describe(self, numbers: Int[np.ndarray, ...]) -> list[dict[str, Any]]:
    """Describes the examples of these numbers, ignoring -1: task and images."""
    return [
      {'number': int(number), **_description(self._examples[int(number)])}
      for number in np.unique(numbers)
      if number >= 0
    ]


def _description(example) -> dict[str, Any]:
  images = [span.image for span in example.spans if span.image is not None]
  return {
    'task': example.task,
    'images': [
      f'{image.case} {image.modality.value} {image.index}'
      if isinstance(image, SliceRef)
      else str(image)
      for image in images
    ],
  }


@dataclasses.dataclass
class BatchIterator:
  """Yields batches whose rows are those of all streams, concatenated.

  Attributes:
    streams: iterators of the streams by number.
    layout: settings that determine the meaning of `get_state`.
    numbers: (rows, n) numbers of the examples in the latest batch, padded with
      -1; None before the first batch.
  """

  streams: Mapping[int, grain.DatasetIterator]
  layout: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  numbers: np.ndarray | None = None

  def __iter__(self) -> BatchIterator:
    return self

  def __next__(self) -> PackedBatch:
    parts = [next(stream) for stream in self.streams.values()]
    batch, self.numbers = jax.tree.map(
      lambda *rows: np.concatenate(rows) if len(rows) > 1 else rows[0], *parts
    )
    return batch

  def get_state(self) -> dict[str, Any]:
    """State of every stream by its number, as JSON values."""
    return {str(n): stream.get_state() for n, stream in self.streams.items()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Restores the states of these streams; `state` may have more streams."""
    for number, stream in self.streams.items():
      stream.set_state(state[str(number)])
