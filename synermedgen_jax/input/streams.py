"""The rows of a batch as streams, which any number of processes can share out.

A run's data are a fixed number of streams, each of which packs its own share of
the examples into its own rows of the batch. A process reads the streams whose
rows lie on its devices, so a batch is the same however many processes there
are, and a run goes on with another number of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import grain.python as grain
import jax
import numpy as np
from jaxtyping import Int

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.tasks.example import SliceRef


def streams_of(rows_here: Int[np.ndarray, ' n'], rows: int, streams: int):
  """The streams whose rows a process holds, in the order of the rows.

  Args:
    rows_here: the rows on the devices of this process.
    rows: of the whole batch.
    streams: how many there are.

  Raises:
    ValueError: rows or processes cut through a stream; what to set instead.
  """
  each = rows // streams
  found = np.unique(rows_here // each) if each else rows_here
  if rows % streams or len(found) * each != len(rows_here):
    raise ValueError(
      f'{streams} for {rows} rows, {len(rows_here)} of them on this process: '
      'every stream needs as many rows as the others, and all of its rows on '
      'one process; set a multiple of the number of processes that divides '
      'config.rows.'
    )
  return found.tolist()


class TrainData:
  """An endless iterable of `PackedBatch`es, the rows of this process."""

  def __init__(
    self,
    examples: grain.MapDataset,
    streams: Mapping[int, grain.IterDataset],
  ):
    """
    Args:
      examples: the sequence that all processes share out.
      streams: of this process, by their number, in the order of their rows;
        elements are (PackedBatch, numbers of its examples).
    """
    self._examples = examples
    self._streams = dict(streams)

  def __iter__(self) -> BatchIterator:
    return BatchIterator({n: iter(s) for n, s in self._streams.items()})

  def describe(self, numbers: Int[np.ndarray, ...]) -> list[dict[str, Any]]:
    """What the examples of these numbers are; -1 stands for none."""
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
  """The rows of several streams, one stream after another.

  Attributes:
    streams: iterators of them by number.
    numbers: (rows, places) of the examples in the batch last given; -1 fills.
  """

  streams: Mapping[int, grain.DatasetIterator]
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
    """Where every stream is, as JSON values by the stream's number."""
    return {str(n): stream.get_state() for n, stream in self.streams.items()}

  def set_state(self, state: Mapping[str, Any]) -> None:
    """Goes to where these streams were; there may be others among them."""
    for number, stream in self.streams.items():
      stream.set_state(state[str(number)])
