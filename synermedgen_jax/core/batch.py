"""The packed batch: the only contract between data and model.

A row packs several examples. Its tokens form two streams of fixed capacity:
`und` (text, image markers, ViT patches) and `gen` (VAE latent patches). Joint
attention runs over both streams. Two integers per key define its mask:

  key k is visible to query q iff visible_from[k] <= order[q] < visible_to[k]

`order` is the token's index in packing order, the order in which BAGEL would
write the row as one sequence. A key is visible over

  causal token  [its own order, end of its example)
  full span     [start of its span, end of its example)
  noised span   [start of its span, end of its span), or from its own order
                where codes are generated one after the other; the noised
                spans of a slab count as one
  padding       the empty interval [0, 0)

`input/row_builder.py` sets these numbers from the kinds of spans.

Axis letters of the array annotations, here and in the model: b rows, u und
tokens, g gen tokens, t tokens of either stream, p ViT patches, n images (in
attention, key heads), l layers, e width, d width of a head, patch or latent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import flax.struct
import jax
import numpy as np
from jaxtyping import Float, Int

from synermedgen_jax.core.size import Size

# ShapeDtypeStruct replaces arrays when a step is compiled without data.
Array = jax.Array | np.ndarray | jax.ShapeDtypeStruct


@flax.struct.dataclass
class Layout:
  """Positions and visibility intervals of the tokens of one stream.

  All fields are int32 (rows, tokens), or (tokens,) before rows are stacked.

  Attributes:
    positions: RoPE position; all tokens of an image share one.
    order: index in packing order, unique among a row's real tokens.
    visible_from: first order that may attend to this token as a key.
    visible_to: one past the last order that may; 0 for padding.
    example_ids: 1, 2, ... within the row; 0 for padding.
  """

  positions: Int[Array, '*b t']
  order: Int[Array, '*b t']
  visible_from: Int[Array, '*b t']
  visible_to: Int[Array, '*b t']
  example_ids: Int[Array, '*b t']


@flax.struct.dataclass
class PackedBatch:
  """`b` rows of packed examples; every shape is static.

  Integers are int32; weights and pixels are float32.

  Attributes:
    und: layout of the und stream, `u` tokens per row.
    token_ids: text token of each und token; 0 at a ViT patch.
    vit_index: index of the ViT patch at this token within the row, or -1.
    labels: token id to predict at this token.
    ntp_weight: weight of that prediction in the loss; 0 = no loss.
    task_ids: task of the token's example, as an index into the sorted names
      of the run's tasks (`tasks.registry.task_names`); undefined where
      `ntp_weight` is 0.
    gen: layout of the gen stream, `g` tokens per row.
    latent_index: index of this token's latent patch within the row, counted
      over (image, row, column) of the canvases' latent grids.
    latent_positions: index into the latent position table.
    latent_offsets: distance of the token's slice from the middle of its slab,
      in slices; 0 without a slab.
    noise_ids: 0 for a clean latent; k > 0 for the row's k-th noised image or
      slab of noised images, whose tokens share one timestep.
    vit_patches: flattened pixels (row, column, channel) in [-1, 1].
    vit_positions: index into the ViT position table.
    vit_visible_from, vit_visible_to: interval of patch indices that may attend
      to this patch: those of its own image.
    vae_images: `n` canvases per row in [-1, 1], zero-padded on the right and
      at the bottom.
    image_patches: ViT patches of every image, if all images have as many and
      lie one after another from the start of the row; 0 = sizes may differ.
      Static, so that the ViT attends image by image without a mask.
    image_latents: latent tokens of every image, if all images fill their
      canvas; 0 = some may be smaller. Static, so that the autoencoder needs no
      mask.
  """

  und: Layout
  token_ids: Int[Array, 'b u']
  vit_index: Int[Array, 'b u']
  labels: Int[Array, 'b u']
  ntp_weight: Float[Array, 'b u']
  task_ids: Int[Array, 'b u']
  gen: Layout
  latent_index: Int[Array, 'b g']
  latent_positions: Int[Array, 'b g']
  latent_offsets: Int[Array, 'b g']
  noise_ids: Int[Array, 'b g']
  vit_patches: Float[Array, 'b p d']
  vit_positions: Int[Array, 'b p']
  vit_visible_from: Int[Array, 'b p']
  vit_visible_to: Int[Array, 'b p']
  vae_images: Float[Array, 'b n h w c']
  image_patches: int = flax.struct.field(pytree_node=False, default=0)
  image_latents: int = flax.struct.field(pytree_node=False, default=0)


@dataclasses.dataclass(frozen=True)
class Capacity:
  """Entries per packed row; 0 for a kind that a stage does not use."""

  und: int  # tokens
  gen: int  # tokens
  vit: int  # ViT patches
  images: int  # VAE canvases

  @classmethod
  def largest(cls, sizes: Iterable[Capacity]) -> Capacity:
    """The smallest capacity that holds an example of any of these sizes."""
    rows = [dataclasses.astuple(size) for size in (cls(0, 0, 0, 0), *sizes)]
    return cls(*map(max, zip(*rows, strict=True)))


@dataclasses.dataclass(frozen=True)
class ImageGeometry:
  """Image and patch sizes that turn a slice into tokens.

  Attributes:
    vit_size: height and width of the ViT's input, pixels.
    vit_patch: side of a ViT patch, pixels.
    vit_table: side of the ViT position tables, patches.
    vae_size: height and width of the VAE canvas, pixels.
    latent_stride: side of a latent token, pixels (VAE downsampling x latent
      patch).
    latent_table: side of the latent position table, latent tokens.
    channels: image channels; a grey slice is repeated.
    causal_targets: a token of a noised image sees those before it alone.

  Raises:
    ValueError: a size is not two sides, or a side is not a positive multiple of
      its patch or stride, or gives more tokens than its position table.
  """

  vit_size: Size
  vit_patch: int
  vit_table: int
  vae_size: Size
  latent_stride: int
  latent_table: int
  channels: int
  causal_targets: bool = False

  @property
  def image_patches(self) -> int:
    """ViT patches of an image."""
    height, width = self.vit_size
    return height // self.vit_patch * (width // self.vit_patch)

  @property
  def latent_grid(self) -> Size:
    """Rows and columns of an image's latent tokens."""
    height, width = self.vae_size
    return height // self.latent_stride, width // self.latent_stride

  @property
  def image_latents(self) -> int:
    """Latent tokens of an image."""
    rows, columns = self.latent_grid
    return rows * columns

  def __post_init__(self):
    for name, size, step, table in (
      ('vit_size', self.vit_size, self.vit_patch, self.vit_table),
      ('vae_size', self.vae_size, self.latent_stride, self.latent_table),
    ):
      if len(size) != 2:
        raise ValueError(
          f'{name} {size}: expected height and width, as in (392, 392).'
        )
      for side in size:
        if side < 1 or side % step:
          raise ValueError(
            f'{name} {size}: {side} is not a positive multiple of {step}.'
          )
        if side // step > table:
          raise ValueError(
            f'{name} {size}: {side // step} tokens per side exceed the '
            f'position table of {table}.'
          )


def abstract_batch(
  rows: int, capacity: Capacity, geometry: ImageGeometry
) -> PackedBatch:
  """Returns a batch of `rows` rows of `jax.ShapeDtypeStruct`."""

  def array(*shape, dtype=np.int32):
    return jax.ShapeDtypeStruct((rows, *shape), dtype)

  def layout(tokens):
    return Layout(*[array(tokens)] * len(dataclasses.fields(Layout)))

  und, gen, vit = capacity.und, capacity.gen, capacity.vit
  channels = geometry.channels
  return PackedBatch(
    und=layout(und),
    token_ids=array(und),
    vit_index=array(und),
    labels=array(und),
    ntp_weight=array(und, dtype=np.float32),
    task_ids=array(und),
    gen=layout(gen),
    latent_index=array(gen),
    latent_positions=array(gen),
    latent_offsets=array(gen),
    noise_ids=array(gen),
    vit_patches=array(vit, geometry.vit_patch**2 * channels, dtype=np.float32),
    vit_positions=array(vit),
    vit_visible_from=array(vit),
    vit_visible_to=array(vit),
    vae_images=array(
      capacity.images, *geometry.vae_size, channels, dtype=np.float32
    ),
    image_patches=geometry.image_patches,
    image_latents=geometry.image_latents,
  )
