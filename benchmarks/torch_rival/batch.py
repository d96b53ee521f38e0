"""A packed batch as PyTorch takes it: tensors, and places to gather from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask

from benchmarks.torch_rival.attention import (
  Intervals,
  Spans,
  interval_block_mask,
  spans_of,
)
from synermedgen_jax.core.batch import Layout, PackedBatch

# Farther apart than the places of any row.
_ROW = 1 << 24


@dataclasses.dataclass(frozen=True)
class Batch:
  """The tensors of a packed batch of `b` rows.

  Places are indices into the flattened (rows, tokens) of a stream.

  Attributes:
    token_ids: (b, u) text tokens.
    positions: (b, u + g) RoPE positions of both streams, und first.
    intervals: who sees whom, in the same order.
    patches: (n, p, d) pixels of the n images that the ViT sees.
    patch_positions: (n, p) rows of its position table.
    patch_places: (n * p,) und tokens that the patches stand for.
    label_places, labels, label_weights: (m,) the places with a next-token
      loss, and the weight of each in the sum of the tasks' means.
    latent_positions: (b, g) rows of the latent position table.
    noise_ids: (b, g) 0 for clean latents, else the number of the noised image
      in the batch.
    noises: the highest number that `noise_ids` can hold.
    noised_places: the gen tokens with a flow loss.
    by_example: one row without padding, whose examples attend one by one.
  """

  token_ids: torch.Tensor
  positions: torch.Tensor
  intervals: Intervals
  patches: torch.Tensor
  patch_positions: torch.Tensor
  patch_places: torch.Tensor
  label_places: torch.Tensor
  labels: torch.Tensor
  label_weights: torch.Tensor
  latent_positions: torch.Tensor
  noise_ids: torch.Tensor
  noises: int
  noised_places: torch.Tensor
  by_example: bool

  def visibility(self) -> BlockMask | Spans:
    """What `attend` takes."""
    if self.by_example:
      return spans_of(self.intervals)
    return interval_block_mask(self.intervals)


def without_padding(batch: PackedBatch) -> PackedBatch:
  """All examples in one row without padding; images are left out."""
  rows = len(batch.token_ids)
  und, gen, vit = (
    np.asarray(x) > 0
    for x in (
      batch.und.example_ids,
      batch.gen.example_ids,
      batch.vit_visible_to,
    )
  )
  row = np.arange(rows)[:, None]

  def kept(values, wanted):
    return np.asarray(values)[wanted][None]

  def layout(stream: Layout, wanted) -> Layout:
    shift = row * _ROW
    return Layout(
      positions=kept(stream.positions, wanted),
      **{
        name: kept(np.asarray(getattr(stream, name)) + shift, wanted)
        for name in ('order', 'visible_from', 'visible_to', 'example_ids')
      },
    )

  before = np.cumsum(vit.sum(1)) - vit.sum(1)
  vit_index = np.asarray(batch.vit_index)
  noise_ids = np.asarray(batch.noise_ids)
  most = noise_ids.max(initial=0)
  shift = before[:, None]
  return batch.replace(
    und=layout(batch.und, und),
    gen=layout(batch.gen, gen),
    vit_index=kept(np.where(vit_index < 0, -1, vit_index + shift), und),
    noise_ids=kept(np.where(noise_ids > 0, noise_ids + row * most, 0), gen),
    vit_patches=kept(batch.vit_patches, vit),
    vit_positions=kept(batch.vit_positions, vit),
    vit_visible_from=kept(batch.vit_visible_from + shift, vit),
    vit_visible_to=kept(batch.vit_visible_to + shift, vit),
    vae_images=np.asarray(batch.vae_images)[:1, :0],
    **{
      name: kept(getattr(batch, name), und)
      for name in ('token_ids', 'labels', 'ntp_weight', 'task_ids')
    },
    **{
      name: kept(getattr(batch, name), gen)
      for name in ('latent_index', 'latent_positions')
    },
  )


def prepare(
  batch: PackedBatch,
  device: torch.device,
  *,
  by_example: bool,
  task_weights: Sequence[float] = (),
) -> Batch:
  """The batch on the device.

  Args:
    batch: packed rows.
    device: where the tensors go.
    by_example: lay all examples out in one row without padding.
    task_weights: weight of each task's next-token loss, in the order of
      `batch.task_ids`; without any, no answer has a loss.

  Raises:
    ValueError: the images for the ViT are not all of one size.
  """
  if by_example:
    batch = without_padding(batch)

  def tensor(values):
    values = np.asarray(values)
    wide = np.float32 if values.dtype.kind == 'f' else np.int64
    return torch.from_numpy(values.astype(wide)).to(device)

  def joined(name):
    parts = (getattr(batch.und, name), getattr(batch.gen, name))
    return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.int32)).to(
      device
    )

  ids = np.asarray(batch.noise_ids)
  most = int(ids.max(initial=0))
  ids = np.where(ids > 0, ids + most * np.arange(len(ids))[:, None], 0)
  weights = _label_weights(batch, task_weights).ravel()
  labelled = np.flatnonzero(weights)
  pixels, places, standing = _images(batch)
  return Batch(
    token_ids=tensor(batch.token_ids),
    positions=joined('positions'),
    intervals=Intervals(
      *(joined(field.name) for field in dataclasses.fields(Intervals))
    ),
    patches=tensor(pixels),
    patch_positions=tensor(places),
    patch_places=tensor(standing),
    label_places=tensor(labelled),
    labels=tensor(np.asarray(batch.labels).ravel()[labelled]),
    label_weights=tensor(weights[labelled]),
    latent_positions=tensor(batch.latent_positions),
    noise_ids=tensor(ids),
    noises=most * len(ids),
    noised_places=tensor(np.flatnonzero(ids)),
    by_example=by_example,
  )


def _label_weights(batch: PackedBatch, task_weights) -> np.ndarray:
  """(b, u): a task's labels share its weight."""
  weights = np.zeros(batch.labels.shape, np.float32)
  for number, weight in enumerate(task_weights):
    own = np.asarray(batch.ntp_weight) * (np.asarray(batch.task_ids) == number)
    weights += weight * own / max(own.sum(), 1.0)
  return weights


def _images(batch: PackedBatch):
  """Pixels (n, p, d), their positions (n, p), the und tokens they stand for."""
  first = np.asarray(batch.vit_visible_from)
  end = np.asarray(batch.vit_visible_to)
  sizes = np.unique((end - first)[end > 0])
  if len(sizes) > 1:
    raise ValueError(f'Images of one size are expected, got {sizes} patches.')
  size = int(sizes[0]) if len(sizes) else 1
  pixels = np.asarray(batch.vit_patches)[end > 0]
  positions = np.asarray(batch.vit_positions)[end > 0]
  index = np.asarray(batch.vit_index)
  standing = np.flatnonzero(index >= 0)
  # The i-th patch of the batch stands where the i-th index of the rows is.
  row = standing // max(index.shape[1], 1)
  standing = standing[np.lexsort((index.ravel()[standing], row))]
  return (
    pixels.reshape(-1, size, pixels.shape[-1]),
    positions.reshape(-1, size),
    standing,
  )
