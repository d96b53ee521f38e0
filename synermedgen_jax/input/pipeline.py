"""The Grain pipeline: a slice store or other examples to packed batches.

A seed determines every batch, and the iterator is checkpointed with the train
state. An epoch of a task has each of its pairs once, in a seeded order. If
routes have different weights, the routes of each weight have their own epochs.
The n streams that fill a batch share one sequence of examples; each takes one
of every n, at random.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import grain.python as grain
import numpy as np

from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.input import packing
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.mixture import Dropout, Mixture
from synermedgen_jax.input.row_sizes import check_longest, check_size
from synermedgen_jax.input.streams import Share, TrainData
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.example import (
  Example,
  ImageRef,
  SliceRef,
)
from synermedgen_jax.tasks.pairs import Pair, Pool, some_subjects
from synermedgen_jax.tasks.registry import Task, task_named, task_names

_NO_CHANGES = Augment()
_NO_DROPOUT = Dropout()

# Distance of the seeds of a task's groups; tasks have consecutive seeds.
_SEED_STEP = 1_000_003


class BuildExample(grain.RandomMapTransform):
  """Pair -> Example of one task."""

  def __init__(self, task: Task, pool: Pool):
    if task.build is None:
      raise UserError(f'Task {task.name!r} is not built from pairs of slices.')
    self.task = task
    self.pool = pool

  def random_map(self, pair: Pair, rng: np.random.Generator) -> Example:
    return self.task.build(pair, self.pool, rng)


def slice_reader(
  store: SliceStore | None, ahead: Iterable[ImageRef] = ()
) -> packing.ReadSlice:
  """Returns a reader of slices in `store` and of pictures, in [-1, 1].

  Args:
    store: the slices; None if all images are pictures.
    ahead: images that will be read; their slices are read now, all at once.
  """
  refs = list({ref for ref in ahead if isinstance(ref, SliceRef)})
  known: dict[SliceRef, np.ndarray] = {}
  if refs:
    slices = store.read_slices([(r.case, r.modality, r.index) for r in refs])
    known = dict(zip(refs, slices, strict=True))

  def read(ref: ImageRef) -> np.ndarray:
    if isinstance(ref, SliceRef):
      if ref in known:
        return known[ref]
      return store.read_slice(ref.case, ref.modality, ref.index)
    return ref.read()

  return read


class Tokenise(grain.RandomMapTransform):
  """Example -> features of a packer (`packing.tokenise`).

  Attributes:
    task_names: names of all tasks, in the order of their ids.
  """

  def __init__(
    self,
    store: SliceStore | None,
    tokenizer: Tokenizer,
    geometry: ImageGeometry,
    capacity: Capacity,
    task_names: Sequence[str],
    dropout: Dropout,
    augment: Augment,
  ):
    self.store = store
    self.tokenizer = tokenizer
    self.geometry = geometry
    self.capacity = capacity
    self.task_names = task_names
    self.dropout = dropout
    self.augment = augment

  def random_map(self, example: Example, rng: np.random.Generator):
    if example.task not in self.task_names:
      raise UserError(
        f'An example of task {example.task!r} came from a source of '
        f'{", ".join(self.task_names)}: give examples the registered name.'
      )
    dropped = frozenset()
    if task_named(example.task).kind == 'synthesis':
      if any(span.kind == 'text' and span.has_loss for span in example.spans):
        raise UserError(
          f'An example of task {example.task!r} has a text with loss, which '
          'tasks of synthesis do not train: register a task of kind question.'
        )
      dropped = self.dropout.draw(example, rng)
    kept = [s for i, s in enumerate(example.spans) if i not in dropped]
    read = slice_reader(self.store, [s.image for s in kept])
    features = packing.tokenise(
      example,
      self.tokenizer,
      self.geometry,
      self.augment.reader(read, example, rng),
      task_id=self.task_names.index(example.task),
      dropped=dropped,
    )
    check_size(example.task, packing.size_of(features), self.capacity)
    return features


def example_dataset(
  pool: Pool,
  task: Task,
  *,
  seed: int,
  route_weights: Sequence[tuple[str, float]] = (),
) -> grain.MapDataset:
  """An endless sequence of one task's examples, shuffled again in every epoch.

  Args:
    pool: cases, routes and wordings.
    task: a task that is built from pairs.
    seed: random seed of the order and of all draws.
    route_weights: as in `Mixture`.

  Raises:
    UserError: no pair is eligible.
  """
  items = task.pairs(pool)
  if not items:
    raise UserError(
      f'No pair for task {task.name!r}'
      + (f' among the routes {", ".join(pool.routes)}' if pool.routes else '')
      + ': prepare cases with both modalities of a route.'
    )
  weights = {p.route: _weight(p.route.name, route_weights) for p in items}
  by_weight = defaultdict(list)
  for pair in items:
    by_weight[weights[pair.route]].append(pair)
  build = BuildExample(task, pool)
  return grain.MapDataset.mix(
    [
      grain.MapDataset.source(group)
      .seed((seed + _SEED_STEP * i) % 2**32)
      .shuffle()
      .repeat()
      .random_map(build)
      for i, group in enumerate(by_weight.values())
    ],
    [weight * len(group) for weight, group in by_weight.items()],
  )


def _weight(route: str, weights: Sequence[tuple[str, float]]) -> float:
  """The weight of the first matching row; 1 if none matches."""
  return next((w for row, w in weights if re.fullmatch(row, route)), 1.0)


def train_dataset(
  store: SliceStore | None,
  split: str,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  capacity: Capacity,
  mixture: Mixture,
  *,
  rows: int,
  seed: int,
  dropout: Dropout = _NO_DROPOUT,
  augment: Augment = _NO_CHANGES,
  packing_bins: int = 16,
  streams: int = 1,
  local_streams: Sequence[int] | None = None,
  threads: int = 2,
) -> TrainData:
  """An endless dataset of `PackedBatch`es.

  Args:
    store: a finished slice store; None if no task is built from pairs.
    split: 'train', 'val' or 'test'.
    tokenizer, geometry, capacity: conversion of examples to rows.
    mixture: tasks, wordings and routes.
    rows: rows of the global batch.
    seed: random seed of order, draws and packing.
    dropout: condition dropout of synthesis.
    augment: random changes of images.
    packing_bins: open rows of a stream's first-fit packer.
    streams: number of streams that fill the batch; each fills its own rows with
      its own examples.
    local_streams: streams that this process reads; None = all.
    threads: reader threads of this process, at least one per stream.

  Returns:
    The data, whose iterator yields the rows of this process.

  Raises:
    UserError: a task is unknown or has no examples, or one of its first four
      examples, or of `Task.longest`, cannot be read or exceeds the capacity
      (`ExampleTooLarge`). The iterator raises the errors of later examples.
  """
  tokenise = Tokenise(
    store,
    tokenizer,
    geometry,
    capacity,
    task_names(mixture.tasks),
    dropout,
    augment,
  )
  examples = _mixed_examples(store, split, tokenise, mixture, seed)
  tokens = examples.random_map(tokenise).map_with_index(
    lambda number, features: {**features, 'numbers': np.array([number])}
  )
  local_streams = range(streams) if local_streams is None else local_streams
  threads = max(1, threads // len(local_streams))

  def packed(stream: int) -> grain.IterDataset:
    share = grain.MapDataset.source(Share(tokens, stream, streams, seed))
    features = share.to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    )
    return _pack(
      features, geometry, capacity, rows // streams, packing_bins, seed + stream
    )

  layout = {  # settings that determine the meaning of an iterator state
    'streams': streams,
    'streams_shuffled': streams > 1,
    'rows': rows,
    'packing_bins': packing_bins,
    'capacity': dataclasses.asdict(capacity),
    'seed': seed,
    'store': f'fingerprint {store.fingerprint}' if store else '',
    'tokenizer': f'fingerprint {tokenizer.fingerprint}',
    'image': {
      'vit_size': list(geometry.vit_size),
      'vae_size': list(geometry.vae_size),
    },
    **mixture.to_json(),
  }
  return TrainData(examples, {n: packed(n) for n in local_streams}, layout)


def _pack(
  features: grain.IterDataset,
  geometry: ImageGeometry,
  capacity: Capacity,
  rows: int,
  bins: int,
  seed: int,
) -> grain.IterDataset:
  """Packs features into batches of `rows` rows, with the example numbers."""
  packed = grain.experimental.FirstFitPackIterDataset(
    features,
    length_struct={
      **packing.feature_capacity(capacity),
      'numbers': capacity.und + capacity.gen,  # at most one per token
    },
    num_packing_bins=max(bins, rows),
    seed=seed,
  )
  finished = packed.map(
    lambda row: (packing.finish_row(row, geometry), _numbers(row))
  )
  return finished.batch(rows, drop_remainder=True).map(
    lambda batch: (packing.to_batch(batch[0], geometry), batch[1])
  )


def _numbers(row: Mapping[str, np.ndarray]) -> np.ndarray:
  """The numbers of a row's examples, padded with -1."""
  return np.where(row['numbers_segment_ids'] > 0, row['numbers'], -1)


def _try_first(features: grain.MapDataset, count: int = 4) -> None:
  """Reads the first examples, so that errors appear before training starts."""
  for index in range(count):
    features[index]


def _mixed_examples(
  store: SliceStore | None,
  split: str,
  tokenise: Tokenise,
  mixture: Mixture,
  seed: int,
) -> grain.MapDataset:
  """The endless sequence of examples that all streams share."""
  names = task_names(mixture.tasks)
  parts = [
    _task_examples(store, split, task_named(name), tokenise, mixture, seed + i)
    for i, name in enumerate(names)
  ]
  for part in parts:  # Otherwise a rare task might fail hours into a run.
    _try_first(part.seed(seed).random_map(tokenise))
  shares = [mixture.tasks[name] for name in names]
  return grain.MapDataset.mix(parts, shares).seed(seed)


def _task_examples(
  store: SliceStore | None,
  split: str,
  task: Task,
  tokenise: Tokenise,
  mixture: Mixture,
  seed: int,
) -> grain.MapDataset:
  """The endless sequence of one task's examples."""
  if task.name in mixture.sources:
    return mixture.sources[task.name](seed)
  if task.source:
    return task.source(split)(seed)
  cases = () if store is None else store.split(split)
  pool = mixture.pool(some_subjects(cases, mixture.subjects))
  if not pool.cases:
    raise UserError(
      'config.store is empty: name a slice store.'
      if store is None
      else f'Store {store.path} has no subject in split {split!r}.'
    )
  check_longest(
    task, pool, tokenise.tokenizer, tokenise.geometry, tokenise.capacity
  )
  return example_dataset(
    pool,
    task,
    seed=seed,
    route_weights=mixture.weights_of(task),
  )
