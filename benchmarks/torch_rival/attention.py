"""Attention of grouped queries under the library's interval mask.

On a GPU, compiled FlexAttention with a block mask. On a CPU, scaled dot-product
attention of each example alone; examples of one length run as a batch.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import (
  BlockMask,
  create_block_mask,
  flex_attention,
)

# One compiled function for every caller; each shape is compiled once.
_compiled_mask = torch.compile(create_block_mask, dynamic=False)
_compiled_flex = torch.compile(flex_attention, dynamic=False, fullgraph=True)


@dataclasses.dataclass(frozen=True)
class Intervals:
  """Who sees whom; each (b, t), as `core.batch.Layout` has it."""

  order: torch.Tensor
  visible_from: torch.Tensor
  visible_to: torch.Tensor
  example_ids: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Span:
  """`count` examples of `length` tokens; additive mask (count, 1, q, k)."""

  count: int
  length: int
  mask: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Spans:
  """One row of examples without padding, sorted by length.

  Attributes:
    places: of the sorted tokens in the row.
    back: the inverse permutation.
    spans: examples of one length each, in order.
  """

  places: torch.Tensor
  back: torch.Tensor
  spans: tuple[Span, ...]


def spans_of(intervals: Intervals) -> Spans:
  """The examples of a row without padding, by length.

  Raises:
    ValueError: there are several rows or there is padding.
  """
  if len(intervals.order) != 1 or not intervals.example_ids.all():
    raise ValueError('Attention by examples takes one row without padding.')
  order, visible_from, visible_to, ids = (
    getattr(intervals, field.name)[0] for field in dataclasses.fields(Intervals)
  )
  _, example, sizes = ids.unique(return_inverse=True, return_counts=True)
  places = order.argsort()
  places = places[example[places].argsort(stable=True)]
  places = places[sizes[example[places]].argsort(stable=True)]
  spans, start = [], 0
  for length, count in zip(
    *(x.tolist() for x in sizes.unique(return_counts=True)), strict=True
  ):
    stop = start + count * length
    indices = places[start:stop].view(count, length)
    query = order[indices][:, :, None]
    seen = (visible_from[indices][:, None] <= query) & (
      query < visible_to[indices][:, None]
    )
    mask = torch.zeros(seen.shape).masked_fill(~seen, float('-inf'))
    spans.append(Span(count, length, mask[:, None]))
    start = stop
  return Spans(places, places.argsort(), tuple(spans))


def interval_block_mask(intervals: Intervals) -> BlockMask:
  """FlexAttention's block mask of both streams."""
  order, first, last = (
    intervals.order,
    intervals.visible_from,
    intervals.visible_to,
  )

  def seen(b, h, q, k):
    place = order[b, q]
    return (first[b, k] <= place) & (place < last[b, k])

  rows, tokens = order.shape
  return _block_mask(seen, rows, tokens, tokens, order.device)


def length_block_mask(
  lengths: torch.Tensor, queries: int, keys: int
) -> BlockMask:
  """Every query of a row sees the row's first `lengths` keys."""

  def seen(b, h, q, k):
    return k < lengths[b]

  return _block_mask(seen, len(lengths), queries, keys, lengths.device)


def _block_mask(seen, rows, queries, keys, device) -> BlockMask:
  # Compiled, the dense mask never exists.
  create = _compiled_mask if device.type == 'cuda' else create_block_mask
  return create(seen, rows, None, queries, keys, device=device)


def attend(
  query: torch.Tensor,
  key: torch.Tensor,
  value: torch.Tensor,
  visibility: BlockMask | Spans | tuple[int, ...],
) -> torch.Tensor:
  """Softmax attention, heads grouped.

  Args:
    query: (b, q, h, d).
    key, value: (b, k, n, d); h is a multiple of n.
    visibility: a block mask; the examples of one row; or, for each row, how
      many of its first keys every query sees.

  Returns:
    (b, q, h, d). A query that sees nothing gives zeros.
  """
  if isinstance(visibility, Spans):
    return _by_examples(query, key, value, visibility)
  if isinstance(visibility, BlockMask):
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    # In a compiled layer it is compiled with the layer.
    plain = torch.compiler.is_compiling() or not query.is_cuda
    flex = flex_attention if plain else _compiled_flex
    out = flex(query, key, value, block_mask=visibility, enable_gqa=True)
    return out.transpose(1, 2)
  return _by_rows(query, key, value, visibility)


def attend_densely(query, key, value, mask=None) -> torch.Tensor:
  """`attend` of batches (c, t, h, d) that share their mask or have none."""
  grouped = query.shape[2] != key.shape[2]
  query, key, value = (x.transpose(1, 2) for x in (query, key, value))
  out = F.scaled_dot_product_attention(
    query, key, value, attn_mask=mask, enable_gqa=grouped
  )
  return out.transpose(1, 2)


def _by_examples(query, key, value, spans: Spans) -> torch.Tensor:
  query, key, value = (x[0][spans.places] for x in (query, key, value))
  out, start = [], 0
  for span in spans.spans:
    stop = start + span.count * span.length
    parts = (
      x[start:stop].unflatten(0, (span.count, span.length))
      for x in (query, key, value)
    )
    out.append(attend_densely(*parts, span.mask).flatten(0, 1))
    start = stop
  return torch.cat(out)[spans.back][None]


def _by_rows(query, key, value, lengths: tuple[int, ...]) -> torch.Tensor:
  """Rows that follow each other and see as many keys run as a batch."""
  out, start = [], 0
  while start < len(lengths):
    stop = start + 1
    while stop < len(lengths) and lengths[stop] == lengths[start]:
      stop += 1
    seen = lengths[start]
    out.append(
      attend_densely(
        query[start:stop], key[start:stop, :seen], value[start:stop, :seen]
      )
    )
    start = stop
  return torch.cat(out)
