"""The Grain pipeline: a slice store or other examples in, packed batches out.

Deterministic given seed, step and process; its iterator is checkpointed with
the train state. Every epoch goes through all pairs of every task once, in an
order that the seed fixes (where routes weigh differently, those of each weight
have epochs of their own); of the n streams that fill a batch, each takes every
n-th example of one common sequence, draws included.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections import defaultdict
from collections.abc import Mapping, Sequence

import grain.python as grain
import numpy as np

from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Route
from synermedgen_jax.input import packing
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.streams import TrainData
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.slices.store import Case, SliceStore
from synermedgen_jax.tasks import cts, mi, synthesis, tia
from synermedgen_jax.tasks.example import (
  Example,
  ExampleSource,
  ImageRef,
  SliceRef,
  vae_image,
)

_NO_CHANGES = Augment()
_NO_SOURCES: Mapping[str, ExampleSource] = types.MappingProxyType({})
# Tasks that guidance at inference is for.
_GUIDED = ('synthesis', 'editing', 'redraw', 'copy')

# Between the seeds of two groups of one task: tasks have neighbouring ones.
_APART = 1_000_003

# Longer than any run, and short enough to add to.
_ENDLESS = 2**60


@dataclasses.dataclass(frozen=True)
class Dropout:
  """How often a condition of synthesis is left out, so guidance works."""

  text: float = 0.0
  vae: float = 0.0
  vit: float = 0.0

  def draw(self, example: Example, rng: np.random.Generator) -> frozenset[int]:
    """Indices of the spans to drop."""
    rates = {'text': self.text, 'vae_image': self.vae, 'vit_image': self.vit}
    return frozenset(
      i
      for i, span in enumerate(example.spans)
      if not span.has_loss and rng.random() < rates[span.kind]
    )


@dataclasses.dataclass(frozen=True)
class Pair:
  """A pair of slices: the raw material of every task."""

  case: Case
  route: Route
  index: int


def pairs(cases: Sequence[Case], *, routes: Sequence[str] = ()) -> list[Pair]:
  """All (case, route, slice) of these cases; `routes` keeps some by name."""
  return [
    Pair(case, route, index)
    for case in cases
    for route in case.routes
    if not routes or route.name in routes
    for index in case.usable
  ]


class TaskBuilder(grain.RandomMapTransform):
  """Pair -> Example of one task."""

  def __init__(self, task: str, cases: Sequence[Case], neighbours: int = 3):
    self.task = task
    self.neighbours = neighbours
    self.by_modality = defaultdict(list)
    for case in cases:
      for modality in case.modalities:
        self.by_modality[modality].append(case)

  def random_map(self, pair: Pair, rng: np.random.Generator) -> Example:
    args = pair.case, pair.route, pair.index, rng
    match self.task:
      case 'cts':
        return cts.build(*args, neighbours=self.neighbours)
      case 'mi':
        return mi.build(mi.draw_panels(self.by_modality, rng), rng)
      case 'tia':
        return tia.build(*args)
      case 'synthesis':
        return synthesis.build(*args)
      case 'reconstruction':
        ref = SliceRef(pair.case.id, pair.route.target, pair.index)
        return Example('reconstruction', (vae_image(ref, has_loss=True),))
      case _:
        raise ValueError(f'Unknown task {self.task!r}.')


def slice_reader(store: SliceStore | None) -> packing.ReadSlice:
  """Pixels by name: slices of the store, pictures from where they are."""

  def read(ref: ImageRef) -> np.ndarray:
    if isinstance(ref, SliceRef):
      return store.read_slice(ref.case, ref.modality, ref.index)
    return ref.read()

  return read


class ExampleTooLarge(UserError):
  """An example that no row can hold; one line naming the key of capacity."""


class Tokenise(grain.RandomMapTransform):
  """Example -> features of a packer."""

  def __init__(
    self,
    read_slice: packing.ReadSlice,
    tokenizer: Tokenizer,
    geometry: ImageGeometry,
    capacity: Capacity,
    dropout: Dropout,
    augment: Augment,
  ):
    self.read_slice = read_slice
    self.tokenizer = tokenizer
    self.geometry = geometry
    self.capacity = capacity
    self.dropout = dropout
    self.augment = augment

  def random_map(self, example: Example, rng: np.random.Generator):
    dropped = frozenset()
    if example.task in _GUIDED:
      dropped = self.dropout.draw(example, rng)
    read = self.augment.reader(self.read_slice, example, rng)
    features = packing.tokenise(
      example, self.tokenizer, self.geometry, read, dropped=dropped
    )
    _check_size(example, features, self.capacity)
    return features


def _check_size(
  example: Example, features: Mapping[str, np.ndarray], capacity: Capacity
) -> None:
  parts = {'und': 'und', 'gen': 'gen', 'vit': 'vit', 'images': 'vae_images'}
  for name, part in parts.items():
    room = getattr(capacity, name)
    if len(features[part]) > room:
      raise ExampleTooLarge(
        f'config.capacity.{name} is {room}, an example of task '
        f'{example.task!r} fills {len(features[part])}.'
      )


def example_dataset(
  cases: Sequence[Case],
  task: str,
  *,
  seed: int,
  neighbours: int = 3,
  routes: Sequence[str] = (),
  route_weights: Sequence[tuple[str, float]] = (),
) -> grain.MapDataset:
  """An endless sequence of one task's examples, shuffled anew every epoch."""
  items = pairs(cases, routes=routes)
  if task == 'cts':
    items = [p for p in items if p.index in cts.indices(p.case, neighbours)]
  if not items:
    raise ValueError(
      f'No pair for task {task!r}'
      + (f' among the routes {", ".join(routes)}' if routes else '')
      + ': prepare cases with both modalities of a route.'
    )
  weights = {p.route: _weight(p.route, route_weights) for p in items}
  alike = defaultdict(list)
  for pair in items:
    alike[weights[pair.route]].append(pair)
  builder = TaskBuilder(task, cases, neighbours)
  return grain.MapDataset.mix(
    [
      grain.MapDataset.source(group)
      .seed((seed + _APART * i) % 2**32)
      .shuffle()
      .repeat()
      .random_map(builder)
      for i, group in enumerate(alike.values())
    ],
    [weight * len(group) for weight, group in alike.items()],
  )


def _weight(route: Route, weights: Sequence[tuple[str, float]]) -> float:
  """How often its pairs come, against 1 of a route that no row matches."""
  return next((w for row, w in weights if re.fullmatch(row, route.name)), 1.0)


def train_dataset(
  store: SliceStore | None,
  split: str,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  capacity: Capacity,
  *,
  tasks: Mapping[str, float],
  first_tasks: Mapping[str, float] = types.MappingProxyType({}),
  first_examples: int = 0,
  sources: Mapping[str, ExampleSource] = _NO_SOURCES,
  rows: int,
  seed: int,
  dropout: Dropout = Dropout(),
  augment: Augment = _NO_CHANGES,
  neighbours: int = 3,
  routes: Sequence[str] = (),
  route_weights: Sequence[tuple[str, float]] = (),
  packing_bins: int = 16,
  streams: int = 1,
  here: Sequence[int] | None = None,
  threads: int = 2,
) -> TrainData:
  """An endless dataset of `PackedBatch`es.

  Args:
    store: a finished slice store; None where every task has its source.
    split: which subjects: 'train', 'val' or 'test'.
    tokenizer, geometry, capacity: how examples become rows.
    tasks: task name -> share of examples.
    first_tasks: the shares among the first examples, where they differ.
    first_examples: how many those are.
    sources: where the examples of tasks that no store holds come from.
    rows: rows of the whole batch.
    seed: fixes order, draws and packing.
    dropout: condition dropout of synthesis.
    augment: how images are changed.
    neighbours: K of CTS's negatives.
    routes: keep these routes alone; empty = all.
    route_weights: (regular expression of a route's whole name, how often its
      pairs are synthesised, against 1 of those that no row matches); the first
      row that matches decides.
    packing_bins: open rows of a stream's first-fit packer.
    streams: how many fill the batch, each its own rows with its own examples.
    here: those that this process reads; None = all.
    threads: readers of this process, at least one a stream.

  Raises:
    ValueError: a task has no examples, or one of its first cannot be read or
      fits in no row (`ExampleTooLarge`); later ones are met as they come.
  """
  tokenise = Tokenise(
    slice_reader(store), tokenizer, geometry, capacity, dropout, augment
  )
  examples = _mixture_of_tasks(
    store,
    split,
    tokenise,
    tasks=tasks,
    first_tasks=first_tasks if first_examples else {},
    first_examples=first_examples,
    sources=sources,
    seed=seed,
    neighbours=neighbours,
    routes=routes,
    route_weights=route_weights,
  )
  tokens = examples.random_map(tokenise).map_with_index(
    lambda number, features: {**features, 'numbers': np.array([number])}
  )
  here = range(streams) if here is None else here
  threads = max(1, threads // len(here))

  def packed(stream: int) -> grain.IterDataset:
    features = tokens[stream::streams].to_iter_dataset(
      grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    )
    return _pack(
      features, geometry, capacity, rows // streams, packing_bins, seed + stream
    )

  layout = {
    'streams': streams,
    'rows': rows,
    'packing_bins': packing_bins,
    'capacity': dataclasses.asdict(capacity),
    'seed': seed,
    'tasks': dict(tasks),
    'first_tasks': dict(first_tasks),
    'first_examples': first_examples,
    'routes': list(routes),
    'route_weights': list(route_weights),
  }
  return TrainData(examples, {n: packed(n) for n in here}, layout)


def _pack(
  features: grain.IterDataset,
  geometry: ImageGeometry,
  capacity: Capacity,
  rows: int,
  bins: int,
  seed: int,
) -> grain.IterDataset:
  """Features of examples -> `rows` rows and the numbers of their examples."""
  packed = grain.experimental.FirstFitPackIterDataset(
    features,
    length_struct={
      **packing.feature_capacity(capacity),
      'numbers': capacity.und + capacity.gen,  # at most one a token
    },
    num_packing_bins=max(bins, rows),
    seed=seed,
  )
  finished = packed.map(
    lambda row: (packing.finish_row(row, geometry), _numbers(row))
  )
  return finished.batch(rows, drop_remainder=True).map(
    lambda batch: (packing.to_batch(batch[0]), batch[1])
  )


def _numbers(row: Mapping[str, np.ndarray]) -> np.ndarray:
  """The numbers of a row's examples; -1 fills."""
  return np.where(row['numbers_segment_ids'] > 0, row['numbers'], -1)


def _try_some(features: grain.MapDataset, some: int = 4) -> None:
  """Raises what is wrong with the first ones, such as `ExampleTooLarge`."""
  for index in range(some):
    features[index]


def _mixture_of_tasks(
  store: SliceStore | None,
  split: str,
  tokenise: Tokenise,
  *,
  tasks: Mapping[str, float],
  first_tasks: Mapping[str, float],
  first_examples: int,
  sources: Mapping[str, ExampleSource],
  seed: int,
  neighbours: int,
  routes: Sequence[str],
  route_weights: Sequence[tuple[str, float]],
) -> grain.MapDataset:
  """The endless sequence of examples that all streams share out."""
  cases = store.split(split) if store is not None else ()
  asked = [*tasks.items(), *first_tasks.items()]
  if not cases and any(w > 0 and t not in sources for t, w in asked):
    raise ValueError(
      f'Store {store.path} has no subject in split {split!r}.'
      if store is not None
      else 'config.store is empty: name a slice store.'
    )

  def mixture(shares: Mapping[str, float], seed: int) -> grain.MapDataset:
    named = [(t, w) for t, w in sorted(shares.items()) if w > 0]
    parts = [
      sources[task](seed + i)
      if task in sources
      else example_dataset(
        cases,
        task,
        seed=seed + i,
        neighbours=neighbours,
        routes=routes,
        route_weights=route_weights if task == 'synthesis' else (),
      )
      for i, (task, _) in enumerate(named)
    ]
    for part in parts:  # A rare one would be met when the run is under way.
      _try_some(part.seed(seed).random_map(tokenise))
    return grain.MapDataset.mix(parts, [weight for _, weight in named])

  mixed = mixture(tasks, seed)
  if first_tasks:
    later = sum(share > 0 for share in tasks.values())
    first = mixture(first_tasks, seed + later)[:first_examples]
    mixed = grain.MapDataset.concatenate([first, mixed[:_ENDLESS]])
  return mixed.seed(seed)
