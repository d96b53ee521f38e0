"""The only contract between data and model: what a packed batch holds.

A row packs several examples. Its tokens lie in two streams of fixed capacity:
`und` (text, image markers, ViT patches) and `gen` (VAE latent patches). Joint
attention runs over both; who sees whom is two integers per key:

  key k is visible to query q iff visible_from[k] <= order[q] < visible_to[k]

with `order` the token's place in packing order (the order in which BAGEL would
lay the row out as one sequence). A causal key has [k, end of its example), a
key of a full span [span start, end of example), a key of a noised span [span
start, span end), and padding has the empty interval [0, 0).
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import numpy as np
from jaxtyping import Float, Int

# Shapes alone stand for arrays where a step is compiled without data.
Array = jax.Array | np.ndarray | jax.ShapeDtypeStruct


@flax.struct.dataclass
class Layout:
  """Where the tokens of one stream lie and who sees them.

  All (rows, tokens), or (tokens,) while a row is on its way into a batch.

  Attributes:
    positions: RoPE position; all tokens of an image share one.
    order: place in packing order, unique among a row's real tokens.
    visible_from: first order that sees this token as a key.
    visible_to: one past the last order that sees it; 0 for padding.
    example_ids: 1, 2, ... within the row; 0 for padding.
  """

  positions: Int[Array, '*b t']
  order: Int[Array, '*b t']
  visible_from: Int[Array, '*b t']
  visible_to: Int[Array, '*b t']
  example_ids: Int[Array, '*b t']


@flax.struct.dataclass
class PackedBatch:
  """`b` rows of packed examples, every shape static.

  Attributes:
    und: layout of the und stream, `u` tokens a row.
    token_ids: text token per und token (0 where a ViT patch stands).
    vit_index: which of the row's ViT patches stands here, or -1.
    labels: the token to predict at this place.
    ntp_weight: weight of that prediction in the loss; 0 = no loss.
    task_ids: the task of the example a token belongs to, as a position in the
      sorted names of the run's tasks (`tasks.registry.task_names`); of no
      meaning where `ntp_weight` is 0.
    gen: layout of the gen stream, `g` tokens a row.
    latent_index: which latent patch of the row stands here, counted over
      (image, row, column) of the canvases' latent grids.
    latent_positions: row of the latent position table.
    noise_ids: 0 for a clean latent; k > 0 for the row's k-th noised image,
      all of whose tokens share one timestep.
    vit_patches: flattened pixels (row, column, channel) in [-1, 1].
    vit_positions: row of the ViT position table.
    vit_visible_from, vit_visible_to: a patch sees its own image only; the
      order of a patch is its index.
    vae_images: `n` canvases a row, in [-1, 1], zero-padded right and below.
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
  noise_ids: Int[Array, 'b g']
  vit_patches: Float[Array, 'b p d']
  vit_positions: Int[Array, 'b p']
  vit_visible_from: Int[Array, 'b p']
  vit_visible_to: Int[Array, 'b p']
  vae_images: Float[Array, 'b n h w c']


@dataclasses.dataclass(frozen=True)
class Capacity:
  """How much a packed row holds; a stage without images of a kind says 0."""

  und: int
  gen: int
  vit: int  # ViT patches
  images: int  # VAE canvases


@dataclasses.dataclass(frozen=True)
class ImageGeometry:
  """How a square slice becomes tokens, in pixels.

  Attributes:
    vit_side: side to which a slice is resized for the ViT.
    vit_patch: ViT patch side.
    vit_table: side of the ViT position tables, in patches.
    vae_side: side of the VAE canvas.
    latent_stride: pixels per latent token (VAE downsampling x latent patch).
    latent_table: side of the latent position table, in latent tokens.
    channels: image channels (a grey slice is repeated).
  """

  vit_side: int
  vit_patch: int
  vit_table: int
  vae_side: int
  latent_stride: int
  latent_table: int
  channels: int

  def __post_init__(self):
    for side, step, table in (
      (self.vit_side, self.vit_patch, self.vit_table),
      (self.vae_side, self.latent_stride, self.latent_table),
    ):
      if side % step:
        raise ValueError(f'Image side {side} is not a multiple of {step}.')
      if side // step > table:
        raise ValueError(
          f'{side // step} tokens a side exceed the position table of {table}.'
        )


def abstract_batch(
  rows: int, capacity: Capacity, geometry: ImageGeometry
) -> PackedBatch:
  """The shapes and dtypes of a batch of `rows` packed rows."""

  def array(*shape, dtype=np.int32):
    return jax.ShapeDtypeStruct((rows, *shape), dtype)

  def layout(tokens):
    return Layout(*[array(tokens)] * len(dataclasses.fields(Layout)))

  und, gen, vit = capacity.und, capacity.gen, capacity.vit
  side, channels = geometry.vae_side, geometry.channels
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
    noise_ids=array(gen),
    vit_patches=array(vit, geometry.vit_patch**2 * channels, dtype=np.float32),
    vit_positions=array(vit),
    vit_visible_from=array(vit),
    vit_visible_to=array(vit),
    vae_images=array(capacity.images, side, side, channels, dtype=np.float32),
  )
