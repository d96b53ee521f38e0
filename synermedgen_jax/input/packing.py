"""Converts examples to tokens, and the tokens of several examples to a row.

`tokenise` numbers the tokens of one example from its own start. A packer then
concatenates the features of several examples, and `finish_row` shifts the
numbers of every example by its start in the row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.batch import (
  Capacity,
  ImageGeometry,
  Layout,
  PackedBatch,
)
from synermedgen_jax.input.pixels import to_pixels
from synermedgen_jax.input.row_builder import GEN, LAYOUT, UND, VIT, RowBuilder
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.tasks.example import Example, ImageRef, Span

ReadSlice = Callable[[ImageRef], Float[np.ndarray, 'h w *channels']]


def tokenise(
  example: Example,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  read_slice: ReadSlice,
  *,
  task_id: int = 0,
  dropped: frozenset[int] = frozenset(),
) -> dict[str, np.ndarray]:
  """Converts an example to tokens, numbered from its own start.

  Args:
    example: the typed spans.
    tokenizer: text to ids.
    geometry: sizes of images and patches.
    read_slice: reads a slice or picture, pixels in [-1, 1].
    task_id: id of the task in `PackedBatch.task_ids`; inference ignores it.
    dropped: indices of condition spans to drop, for guidance. A dropped image
      still advances the RoPE position, a dropped text does not (BAGEL,
      data/dataset_base.py).

  Returns:
    Features for a packer: `und`, `gen`, `vit` (int32 tables with the columns
    `UND`, `GEN`, `VIT`), `vit_patches` and `vae_images` (float32).
  """
  row = RowBuilder(tokenizer, geometry, task_id)

  def pixels(span, size):
    return to_pixels(read_slice(span.image), size, geometry.channels)

  for (i, span), *others in _slabs(enumerate(example.spans)):
    if i in dropped:
      row.position += span.kind != 'text'
    elif span.kind == 'text':
      row.add_text(span)
    elif span.kind == 'vit_image':
      row.add_vit_image(pixels(span, geometry.vit_size))
    elif span.has_loss:
      noised = span, *(other for _, other in others)
      row.add_noised_images(
        [(pixels(s, geometry.vae_size), s.offset or 0) for s in noised]
      )
    else:
      row.add_vae_image(pixels(span, geometry.vae_size), span.offset or 0)
  return row.features()


def _slabs(
  numbered: Iterable[tuple[int, Span]],
) -> Iterator[list[tuple[int, Span]]]:
  """Spans one by one, except the noised ones of a slab, which come together."""

  def is_noised_slab(item):
    return item[1].mode == 'noise' and item[1].offset is not None

  for together, spans in itertools.groupby(numbered, is_noised_slab):
    if together:
      yield list(spans)
    else:
      yield from ([item] for item in spans)


def measure(
  example: Example,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  *,
  dropped: frozenset[int] = frozenset(),
) -> Capacity:
  """The number of entries that `tokenise` would return; reads no pixels.

  Args:
    example, tokenizer, geometry, dropped: as in `tokenise`.
  """
  kept = [s for i, s in enumerate(example.spans) if i not in dropped]
  text = sum(len(tokenizer.encode(s.text)) for s in kept if s.kind == 'text')
  vit = sum(geometry.image_patches for s in kept if s.kind == 'vit_image')
  images = sum(s.kind == 'vae_image' for s in kept)
  # Every span has two markers, all of them und tokens.
  return Capacity(
    2 * len(kept) + text + vit, images * geometry.image_latents, vit, images
  )


def size_of(features: Mapping[str, np.ndarray]) -> Capacity:
  """The number of entries of the results of `tokenise`."""
  names = ('und', 'gen', 'vit', 'vae_images')
  return Capacity(*(len(features[name]) for name in names))


def split_target(
  features: Mapping[str, np.ndarray], geometry: ImageGeometry
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Separates the conditions of an example from its noised images.

  Args:
    features: result of `tokenise`; noised images must be the last spans.
    geometry: the argument of `tokenise`.

  Returns:
    The features of the conditions, and those of the noised spans (two markers
    and the latent tokens of each, without canvases). Positions are unchanged.

  Raises:
    ValueError: the example does not end with its only slab of noised images.
  """
  index, noise_ids = (
    features['gen'][:, GEN.index(name)]
    for name in ('latent_index', 'noise_ids')
  )
  count = int((noise_ids > 0).sum())
  if noise_ids.max(initial=0) != 1 or not noise_ids[-1]:
    raise ValueError(
      'Sampling needs an example with one noised image or slab, at its end.'
    )
  images = len(np.unique(index[-count:] // geometry.image_latents))
  cut = {
    'und': 2 * images,
    'gen': count,
    'vit': 0,
    'vit_patches': 0,
    'vae_images': images,
  }
  stop = {name: len(part) - cut[name] for name, part in features.items()}
  target = {name: part[stop[name] :] for name, part in features.items()}
  target['vae_images'] = target['vae_images'][:0]
  return {n: part[: stop[n]] for n, part in features.items()}, target


def feature_capacity(capacity: Capacity) -> dict[str, int]:
  """Capacity of a row for every feature of `tokenise`."""
  return {
    'und': capacity.und,
    'gen': capacity.gen,
    'vit': capacity.vit,
    'vit_patches': capacity.vit,
    'vae_images': capacity.images,
  }


def concatenate_row(
  examples: Sequence[Mapping[str, np.ndarray]], capacity: Capacity
) -> dict[str, np.ndarray]:
  """Packs all given examples into one row, for inference and tests.

  Args:
    examples: results of `tokenise`.
    capacity: entries of the row.

  Returns:
    Padded features and their `*_segment_ids`, the arguments of `finish_row`.

  Raises:
    ValueError: the examples exceed the capacity.
  """
  row = {}
  for name, size in feature_capacity(capacity).items():
    parts = [example[name] for example in examples]
    data = np.concatenate(parts)
    if len(data) > size:
      raise ValueError(
        f'{len(data)} entries of {name!r} exceed the capacity of {size}: '
        'raise config.capacity.'
      )
    ids = np.repeat(np.arange(1, len(parts) + 1), [len(p) for p in parts])
    pad = size - len(data)
    row[name] = np.pad(data, [(0, pad)] + [(0, 0)] * (data.ndim - 1))
    row[f'{name}_segment_ids'] = np.pad(ids, (0, pad)).astype(np.int32)
  return row


def finish_row(row: Mapping[str, np.ndarray], geometry: ImageGeometry) -> dict:
  """Shifts the indices of every example by the start of the example in the row.

  Args:
    row: packed features and their `*_segment_ids` (1, 2, ...; 0 = padding).
    geometry: the argument of `tokenise`.

  Returns:
    The fields of a `PackedBatch`, without the rows axis.
  """
  segments = {
    name: row[f'{name}_segment_ids']
    for name in ('und', 'gen', 'vit', 'vae_images')
  }
  examples = max((int(s.max(initial=0)) for s in segments.values()), default=0)

  def starts(*names):
    """Start of each example, counting entries of these features."""
    counts = sum(
      np.bincount(segments[n], minlength=examples + 1)[1:] for n in names
    )
    return np.concatenate([[0, 0], np.cumsum(counts)[:-1]]).astype(np.int32)

  order_start = starts('und', 'gen')
  vit_start = starts('vit')
  image_start = starts('vae_images') * geometry.image_latents
  und, gen, vit = (
    dict(zip(columns, row[name].T, strict=True))
    for name, columns in (('und', UND), ('gen', GEN), ('vit', VIT))
  )
  for stream, name in ((und, 'und'), (gen, 'gen')):
    shift = order_start[segments[name]]  # 0 for padding
    for column in ('order', 'visible_from', 'visible_to'):
      stream[column] = stream[column] + shift
    stream['example_ids'] = segments[name].astype(np.int32)
  in_image = (und['vit_index'] >= 0) & (und['example_ids'] > 0)
  und['vit_index'] = np.where(
    in_image, und['vit_index'] + vit_start[segments['und']], -1
  )
  gen['latent_index'] = gen['latent_index'] + image_start[segments['gen']]
  gen['noise_ids'] = _number_noises(gen['noise_ids'], segments['gen'])
  shift = vit_start[segments['vit']]
  return {
    'und': Layout(**{name: und.pop(name) for name in LAYOUT}),
    'gen': Layout(**{name: gen.pop(name) for name in LAYOUT}),
    **und,
    'ntp_weight': und['ntp_weight'].astype(np.float32),
    **gen,
    'vit_patches': row['vit_patches'],
    'vit_positions': vit['vit_positions'],
    'vit_visible_from': vit['vit_visible_from'] + shift,
    'vit_visible_to': vit['vit_visible_to'] + shift,
    'vae_images': row['vae_images'],
  }


def _number_noises(noise_ids, segment_ids):
  """Numbers the noised images of a row 1, 2, ... across its examples."""
  noised = noise_ids > 0
  # Each (example, image) pair is one noised image; `unique` sorts the pairs.
  pairs = segment_ids.astype(np.int64) * 2**20 + noise_ids
  _, number = np.unique(pairs[noised], return_inverse=True)
  out = np.zeros_like(noise_ids)
  out[noised] = number + 1
  return out


def pack_rows(
  examples: Sequence[Mapping[str, np.ndarray]],
  capacity: Capacity,
  geometry: ImageGeometry,
) -> PackedBatch:
  """Packs one example per row, for inference.

  Args:
    examples: results of `tokenise`.
    capacity: entries of a row.
    geometry: the argument of `tokenise`.

  Raises:
    ValueError: an example exceeds the capacity.
  """
  rows = [
    finish_row(concatenate_row([e], capacity), geometry) for e in examples
  ]
  return to_batch(jax.tree.map(lambda *parts: np.stack(parts), *rows), geometry)


def to_batch(
  rows: Mapping[str, np.ndarray], geometry: ImageGeometry
) -> PackedBatch:
  """Makes a batch from the stacked results of `finish_row`."""
  size = rows['vit_visible_to'] - rows['vit_visible_from']
  alike = (size[rows['vit_visible_to'] > 0] == geometry.image_patches).all()
  # A token for every latent of every canvas that is used.
  used = rows['gen'].example_ids > 0
  latents = geometry.image_latents
  canvases = rows['latent_index'] // latents
  full = all(
    len(np.unique(row[real])) * latents == real.sum()
    for row, real in zip(canvases, used, strict=True)
  )
  return PackedBatch(
    **rows,
    image_patches=geometry.image_patches if alike else 0,
    image_latents=latents if full else 0,
  )
