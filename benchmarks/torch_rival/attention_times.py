"""Times and errors of attention alone, on a full row of synthesis examples."""

from __future__ import annotations

import functools

import torch
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.shapes import synthesis_row
from benchmarks.torch_rival import attention, records

# Ways to compile FlexAttention; `max-autotune` tries tile sizes and keeps the
# fastest.
VARIANTS = {
  'default': {},
  'autotuned': {'mode': 'max-autotune-no-cudagraphs'},
}
_ERRORS_AT = 4096


def intervals_of_row(length: int, device: torch.device) -> attention.Intervals:
  """The layout of the row that all attention benchmarks share."""
  order, visible_from, visible_to = (
    torch.from_numpy(x).to(device) for x in synthesis_row(length)
  )
  # The noised span is an example's last, so all of an example end together.
  return attention.Intervals(order, visible_from, visible_to, visible_to)


def attend_with(variant: str, intervals: attention.Intervals):
  """(query, key, value) -> output, compiled as the variant says."""
  if intervals.order.device.type == 'cpu':
    return functools.partial(
      attention.attend, visibility=attention.spans_of(intervals)
    )
  flex = torch.compile(
    flex_attention, dynamic=False, fullgraph=True, **VARIANTS[variant]
  )
  mask = attention.interval_block_mask(intervals)

  def attend(query, key, value):
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    out = flex(*heads_first, block_mask=mask, enable_gqa=True)
    return out.transpose(1, 2)

  return attend


def reference(query, key, value, intervals: attention.Intervals):
  """Dense attention in the arrays' dtype, one key head at a time."""
  order = intervals.order[0][:, None]
  seen = (intervals.visible_from <= order) & (order < intervals.visible_to)
  group = query.shape[2] // key.shape[2]
  parts = []
  for head in range(key.shape[2]):
    q = query[0, :, head * group : (head + 1) * group]
    scores = torch.einsum('qhd,kd->hqk', q, key[0, :, head])
    scores = (scores * q.shape[-1] ** -0.5).masked_fill(~seen, float('-inf'))
    parts.append(
      torch.einsum('hqk,kd->qhd', scores.softmax(-1), value[0, :, head])
    )
  return torch.cat(parts, dim=1)[None]


def gradients(attend, inputs, upstream):
  """The output and the gradients of query, key and value."""
  out = attend(*inputs)
  return out, *torch.autograd.grad(out, inputs, upstream)


def relative_errors(attend, inputs, upstream, intervals) -> dict[str, float]:
  """Frobenius norms of the differences to float32, over float32's norms."""
  wide = [x.detach().float().requires_grad_() for x in inputs]
  exact = gradients(
    functools.partial(reference, intervals=intervals), wide, upstream.float()
  )
  computed = gradients(attend, inputs, upstream)
  return {
    name: ((a.float() - b).norm() / b.norm()).item()
    for name, a, b in zip(
      ('out', 'dq', 'dk', 'dv'), computed, exact, strict=True
    )
  }


def measure(
  writer: records.Records,
  device: torch.device,
  *,
  lengths: list[int],
  heads: tuple[int, int],
  dim: int,
  variants: list[str],
  repeats: int,
) -> None:
  """Writes one record for each length and variant, and one of the errors."""
  dtype = torch.float32 if device.type == 'cpu' else torch.bfloat16
  for length in lengths:
    intervals = intervals_of_row(length, device)
    generator = torch.Generator(device).manual_seed(0)
    inputs = [
      torch.randn((1, length, n, dim), generator=generator, device=device)
      .to(dtype)
      .requires_grad_()
      for n in (heads[0], heads[1], heads[1])
    ]
    upstream = torch.randn(
      inputs[0].shape, generator=generator, device=device
    ).to(dtype)
    for variant in variants:
      common = {
        'benchmark': 'attention',
        'implementation': (
          'torch_sdpa' if device.type == 'cpu' else f'torch_flex_{variant}'
        ),
        'dtype': str(dtype).removeprefix('torch.'),
        'shapes': {
          'tokens': length,
          'heads': heads[0],
          'kv_heads': heads[1],
          'dim': dim,
        },
      }
      try:
        times = _times(variant, intervals, inputs, upstream, repeats)
      except Exception as error:  # one variant must not end the others
        writer.add(**common, error=f'{type(error).__name__}: {error}'[:500])
        continue
      writer.add(**common, **times)


def _times(variant, intervals, inputs, upstream, repeats: int) -> dict:
  device, length = upstream.device, upstream.shape[1]
  attend = attend_with(variant, intervals)
  out = {}
  if length == _ERRORS_AT:
    out['errors'] = relative_errors(attend, inputs, upstream, intervals)
  records.reset_peak(device)

  timed = functools.partial(
    records.kernel_seconds, device=device, repeats=repeats
  )
  forward_seconds = timed(lambda: attend(*inputs))
  seconds = timed(lambda: gradients(attend, inputs, upstream))
  mask_seconds = None
  if device.type != 'cpu':
    mask_seconds = timed(lambda: attention.interval_block_mask(intervals))
  return out | {
    'forward_seconds': forward_seconds,
    'seconds': seconds,
    'backward_seconds': seconds - forward_seconds,
    'mask_seconds': mask_seconds,
    'tokens_per_second': length / seconds,
    'peak_gb': records.peak_gb(device),
  }
