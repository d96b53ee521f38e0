"""A tokenizer of single letters, 4 x 4 slices and examples of any spans."""

import dataclasses

import numpy as np

from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.input import packing
from synermedgen_jax.tasks import example as spans
from synermedgen_jax.tasks.example import Example, SliceRef

# Four ViT patches and four latent tokens a slice, in larger position tables.
GEOMETRY = ImageGeometry(
  vit_size=(4, 4),
  vit_patch=2,
  vit_table=3,
  vae_size=(4, 4),
  latent_stride=2,
  latent_table=5,
  channels=1,
)
CAPACITY = Capacity(und=24, gen=12, vit=12, images=3)


class Letters:
  """a, b, c ... are 10, 11, 12 ...; markers as in the project's tokenizer."""

  pad = 0
  im_start, im_end = 1, 2
  vision_start, vision_end = 3, 4
  fingerprint = 'letters'

  def encode(self, words: str) -> list[int]:
    return [10 + ord(letter) - ord('a') for letter in words]


def read_slice(ref: SliceRef) -> np.ndarray:
  """Slice 0 counts 0, 1, ... 15 by rows, slice 1 from 100, and so on."""
  return np.arange(16, dtype=np.float32).reshape(4, 4) + 100 * ref.index


def image(index: int = 0) -> SliceRef:
  return SliceRef('case', Modality.CT, index)


def in_slab(index: int, offset: int) -> spans.Span:
  """A noised image of a slab."""
  span = spans.vae_image(image(index), has_loss=True)
  return dataclasses.replace(span, offset=offset)


SPANS = {
  'text': spans.text('ab'),
  'answer': spans.text('ab', has_loss=True),
  'vit': spans.vit_image(image(0)),
  'clean': spans.vae_image(image(1)),
  'noised': spans.vae_image(image(2), has_loss=True),
}
# Two noised images of one slab, which BAGEL does not have.
SLAB = {'above': in_slab(2, -1), 'middle': in_slab(3, 0)}


def example(*names: str, task: str = 'synthesis') -> Example:
  """An example of these `SPANS`, or of `SLAB`."""
  return Example(
    task,
    tuple((SPANS | SLAB)[name] for name in names),
    answer='ab' if 'answer' in names else '',
  )


def tokenise(*names: str, task_id: int = 4, dropped=()):
  """The features of an example of these `SPANS`."""
  return packing.tokenise(
    example(*names),
    Letters(),
    GEOMETRY,
    read_slice,
    task_id=task_id,
    dropped=frozenset(dropped),
  )


def finished_row(*examples, capacity: Capacity = CAPACITY):
  """The fields of one row that packs these features."""
  row = packing.concatenate_row(examples, capacity)
  return packing.finish_row(row, GEOMETRY)
