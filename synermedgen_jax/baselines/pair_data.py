"""Batches of pairs of slices, for systems that read no text.

The order of the pairs, their augmentation and the division into streams are
those of `input.pipeline`, so a system sees the pairs that Stage II would see.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import grain.python as grain
import numpy as np
from jaxtyping import Float, Int

from synermedgen_jax.core.batch import Array
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.size import Size
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.pipeline import example_dataset, slice_reader
from synermedgen_jax.input.pixels import to_pixels
from synermedgen_jax.input.streams import TrainData
from synermedgen_jax.slices.store import Case, SliceStore
from synermedgen_jax.tasks.example import Example, SliceRef, vae_image
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.registry import task_named

_NO_CHANGES = Augment()


@flax.struct.dataclass
class PairBatch:
  """A source and a target slice per row.

  Attributes:
    source, target: grey images in [-1, 1].
    source_ids, target_ids: modalities, as indices into those of the run.
  """

  source: Float[Array, 'b h w 1']
  target: Float[Array, 'b h w 1']
  source_ids: Int[Array, ' b']
  target_ids: Int[Array, ' b']


class DrawTarget(grain.RandomMapTransform):
  """Replaces the target of an example by a slice of another subject.

  Systems that learn from unpaired images must not see the pairs, although the
  slices of a store are aligned.
  """

  def __init__(self, cases: Sequence[Case]):
    self.cases = {case.id: case for case in cases}

  def random_map(self, example: Example, rng: np.random.Generator) -> Example:
    source, target = _slices(example)
    own = self.cases[source.case]
    others = [
      case
      for case in self.cases.values()
      if case.person != own.person
      and case.region == own.region
      and target.modality in case.modalities
    ]
    if not others:
      raise UserError(
        f'No subject but {own.person} has {target.modality.value} in the '
        f'region {own.region.value}: unpaired training needs two.'
      )
    case = others[rng.integers(len(others))]
    drawn = SliceRef(case.id, target.modality, int(rng.choice(case.usable)))
    return Example(
      example.task,
      (vae_image(source), vae_image(drawn, has_loss=True)),
      route=example.route,
    )


class ReadPair(grain.RandomMapTransform):
  """Example -> the arrays of one row, after augmentation."""

  def __init__(
    self,
    store: SliceStore,
    size: Size,
    modalities: Sequence[str],
    augment: Augment,
  ):
    self.store = store
    self.size = size
    self.modalities = tuple(modalities)
    self.augment = augment

  def random_map(
    self, example: Example, rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    refs = _slices(example)
    read = self.augment.reader(slice_reader(self.store, refs), example, rng)
    source, target = (to_pixels(read(ref), self.size, 1) for ref in refs)
    ids = [np.int32(self.modalities.index(r.modality.value)) for r in refs]
    return {
      'source': source.astype(np.float32),
      'target': target.astype(np.float32),
      'source_ids': ids[0],
      'target_ids': ids[1],
    }


def _slices(example: Example) -> tuple[SliceRef, SliceRef]:
  """The source and the target of an example of synthesis."""
  images = [s for s in example.spans if s.kind == 'vae_image']
  (source,) = (s.image for s in images if not s.has_loss)
  (target,) = (s.image for s in images if s.has_loss)
  return source, target


def pair_dataset(
  store: SliceStore,
  split: str,
  size: Size,
  modalities: Sequence[str],
  *,
  rows: int,
  seed: int,
  routes: Sequence[str] = (),
  route_weights: Sequence[tuple[str, float]] = (),
  augment: Augment = _NO_CHANGES,
  unpaired: bool = False,
  streams: int = 1,
  local_streams: Sequence[int] | None = None,
  threads: int = 2,
) -> TrainData:
  """An endless dataset of `PairBatch`es.

  Args:
    store: a finished slice store.
    split: 'train', 'val' or 'test'.
    size: height and width of the images; see `input.pixels`.
    modalities: names that `PairBatch.source_ids` counts.
    rows: rows of the global batch.
    seed: random seed of order, draws and augmentation.
    routes, route_weights: as of `input.pipeline.Mixture`.
    augment: random changes of both images alike.
    unpaired: take the target from another subject than the source.
    streams, local_streams, threads: as of `input.pipeline.train_dataset`.

  Raises:
    UserError: the split has no subject or no pair; or, with `unpaired`, a
      source has no other subject.
  """
  cases = store.split(split)
  if not cases:
    raise UserError(f'Store {store.path} has no subject in split {split!r}.')
  examples = example_dataset(
    Pool(cases, routes=routes),
    task_named('synthesis'),
    seed=seed,
    route_weights=route_weights,
  ).seed(seed)
  if unpaired:
    examples = examples.random_map(DrawTarget(cases))
  read = examples.random_map(ReadPair(store, size, modalities, augment))
  rows_of = read.map_with_index(
    lambda number, row: (row, np.array([number], np.int64))
  )
  rows_of[0]  # errors appear before training starts
  local_streams = range(streams) if local_streams is None else local_streams
  threads = max(1, threads // len(local_streams))

  def batches(stream: int) -> grain.IterDataset:
    return (
      rows_of[stream::streams]
      .to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
      )
      .batch(rows // streams, drop_remainder=True)
      .map(lambda batch: (PairBatch(**batch[0]), batch[1]))
    )

  layout = {  # settings that determine the meaning of an iterator state
    'streams': streams,
    'rows': rows,
    'seed': seed,
    'store': f'fingerprint {store.fingerprint}',
    'size': list(size),
    'routes': list(routes),
    'route_weights': list(route_weights),
    'unpaired': unpaired,
  }
  return TrainData(examples, {n: batches(n) for n in local_streams}, layout)
