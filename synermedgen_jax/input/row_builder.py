"""Collects the tokens of one example, a block of tokens per span."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from synermedgen_jax.core.batch import ImageGeometry
from synermedgen_jax.input.pixels import patchify
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.tasks.example import Span

# Columns of the integer features, which have one row per token.
LAYOUT = ('positions', 'order', 'visible_from', 'visible_to', 'example_ids')
UND = (*LAYOUT, 'token_ids', 'vit_index', 'labels', 'ntp_weight', 'task_ids')
GEN = (
  *LAYOUT,
  'latent_index',
  'latent_positions',
  'latent_offsets',
  'noise_ids',
)
VIT = ('vit_positions', 'vit_visible_from', 'vit_visible_to', 'example_ids')

# Value of visible_to for keys that the rest of their example sees.
OPEN = np.iinfo(np.int32).max


def grid_positions(height: int, width: int, table: int) -> np.ndarray:
  """Indices of a grid in the corner of a position table of `table` columns."""
  return (np.arange(height)[:, None] * table + np.arange(width)).ravel()


class RowBuilder:
  """Collects the tokens of one example, a block of tokens per span."""

  def __init__(
    self, tokenizer: Tokenizer, geometry: ImageGeometry, task_id: int
  ):
    self.tokenizer = tokenizer
    self.geometry = geometry
    self.task_id = task_id
    self.blocks: dict[str, list[np.ndarray]] = {'und': [], 'gen': [], 'vit': []}
    self.patches: list[np.ndarray] = []
    self.images: list[np.ndarray] = []
    self.order = 0
    self.position = 0
    self.noised = 0

  def add_text(self, span: Span) -> None:
    """Adds a text between its two markers."""
    t = self.tokenizer
    ids = t.encode(span.text)
    places = np.arange(len(ids) + 2)
    # <|im_start|> and the text predict the text and <|im_end|>.
    asked = span.has_loss * (places < len(ids) + 1)
    self._add_und(
      positions=self.position + places,
      order=self.order + places,
      visible_from=self.order + places,
      token_ids=[t.im_start, *ids, t.im_end],
      labels=asked * [*ids, t.im_end, t.pad],
      ntp_weight=asked,
    )
    self.order += len(places)
    self.position += len(places)

  def add_vit_image(self, pixels: Float[np.ndarray, 'h w c']) -> None:
    """Adds the ViT patches of an image in [-1, 1] between two markers."""
    g, t = self.geometry, self.tokenizer
    patches = patchify(pixels, g.vit_patch)
    height, width = (side // g.vit_patch for side in pixels.shape[:2])
    first = sum(map(len, self.patches))
    count = len(patches)
    self._add(
      'vit',
      VIT,
      vit_positions=grid_positions(height, width, g.vit_table),
      vit_visible_from=first,
      vit_visible_to=first + count,
      example_ids=1,
    )
    self.patches.append(patches)
    self._add_und(
      positions=self.position,
      order=self.order + np.arange(count + 2),
      visible_from=self.order,
      token_ids=[t.vision_start, *[0] * count, t.vision_end],
      vit_index=[-1, *range(first, first + count), -1],
    )
    self.order += count + 2
    self.position += 1

  def add_vae_image(
    self, pixels: Float[np.ndarray, 'h w c'], offset: int = 0
  ) -> None:
    """Adds the latent tokens of a clean image in [-1, 1] between two markers.

    Args:
      pixels: the image.
      offset: `Span.offset`.
    """
    self._add_latents(pixels, offset, seen=(self.order, OPEN))
    self.position += 1

  def add_noised_images(
    self, images: Sequence[tuple[Float[np.ndarray, 'h w c'], int]]
  ) -> None:
    """Adds images that are noised together and see each other.

    As in BAGEL, noised images do not advance the RoPE position.

    Args:
      images: pixels in [-1, 1] and `Span.offset` of each.
    """
    self.noised += 1
    stride = self.geometry.latent_stride
    latents = sum(math.prod(p.shape[:2]) // stride**2 for p, _ in images)
    start = None if self.geometry.causal_targets else self.order
    seen = start, self.order + latents + 2 * len(images)
    for pixels, offset in images:
      self._add_latents(pixels, offset, seen=seen, noise_id=self.noised)

  def _add_latents(
    self,
    pixels: Float[np.ndarray, 'h w c'],
    offset: int,
    *,
    seen: tuple[int | None, int],
    noise_id: int = 0,
  ) -> None:
    """Adds latent tokens between two markers.

    Args:
      pixels, offset: as of `add_vae_image`.
      seen: `visible_from` and `visible_to` of the image; a token with None is
        visible from its own order.
      noise_id: as in `PackedBatch.noise_ids`.
    """
    g, t = self.geometry, self.tokenizer
    height, width = (side // g.latent_stride for side in pixels.shape[:2])
    # Latent patches are numbered over the full canvas, including its padding.
    first = len(self.images) * g.image_latents
    latents = first + grid_positions(height, width, g.latent_grid[1])
    padding = np.subtract(g.vae_size, pixels.shape[:2])
    self.images.append(np.pad(pixels, [*((0, n) for n in padding), (0, 0)]))
    start, stop = seen
    last = self.order + len(latents) + 1
    markers, inner = [self.order, last], np.arange(self.order + 1, last)
    self._add_und(
      positions=self.position,
      order=markers,
      visible_from=markers if start is None else start,
      visible_to=stop,
      token_ids=[t.vision_start, t.vision_end],
    )
    self._add(
      'gen',
      GEN,
      positions=self.position,
      order=inner,
      visible_from=inner if start is None else start,
      visible_to=stop,
      example_ids=1,
      latent_index=latents,
      latent_positions=grid_positions(height, width, g.latent_table),
      latent_offsets=offset,
      noise_ids=noise_id,
    )
    self.order = last + 1

  def _add_und(self, **columns: ArrayLike) -> None:
    """Adds und tokens; columns that are not given have their usual values."""
    usual = {
      'visible_to': OPEN,
      'example_ids': 1,
      'vit_index': -1,
      'labels': 0,
      'ntp_weight': 0,
      'task_ids': self.task_id,
    }
    self._add('und', UND, **usual | columns)

  def _add(self, part: str, names: Sequence[str], **columns: ArrayLike) -> None:
    """Adds a block of tokens; a scalar column has one value for all."""
    block = np.broadcast_arrays(*(columns[name] for name in names))
    self.blocks[part].append(np.stack(block, axis=-1).astype(np.int32))

  def features(self) -> dict[str, np.ndarray]:
    """The features of the example; see `tokenise`."""
    g = self.geometry

    def table(part: str, names: Sequence[str]) -> np.ndarray:
      empty = np.zeros((0, len(names)), np.int32)
      rows = np.concatenate([empty, *self.blocks[part]])
      if 'visible_to' in names:  # keys never outlive their example
        column = names.index('visible_to')
        rows[:, column] = np.minimum(rows[:, column], self.order)
      return rows

    dim = g.vit_patch**2 * g.channels
    shape = (0, *g.vae_size, g.channels)
    return {
      'und': table('und', UND),
      'gen': table('gen', GEN),
      'vit': table('vit', VIT),
      'vit_patches': np.concatenate(
        [np.zeros((0, dim), np.float32), *self.patches]
      ).astype(np.float32),
      'vae_images': (
        np.stack(self.images).astype(np.float32)
        if self.images
        else np.zeros(shape, np.float32)
      ),
    }
