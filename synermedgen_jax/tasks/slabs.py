"""Slabs: neighbouring slices of a volume that are synthesised together.

An example of one slice becomes one of a slab by repeating its images: the
sources of every slice, the text, and the targets of every slice. Targets are
noised together and see each other (`input/row_builder.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from synermedgen_jax.tasks.example import Example, Span


def slab_around(index: int, usable: range, size: int) -> range:
  """The slab with a slice near its middle.

  Args:
    index: the slice.
    usable: slices of the volume, with `index` among them.
    size: slices of a slab.

  Returns:
    `size` neighbouring slices of `usable`; all of them, if there are fewer.
  """
  last_start = max(usable.stop - size, usable.start)
  start = min(max(index - size // 2, usable.start), last_start)
  return range(start, min(start + size, usable.stop))


def cover(count: int, size: int) -> list[range]:
  """Slabs of equal size that cover `count` slices.

  A slab shares `size // 2` slices with the one before; the last one ends at the
  last slice and may share more.
  """
  size = min(size, count)
  step = max(size - size // 2, 1)
  starts = [*range(0, count - size, step), count - size] if count else []
  return [range(start, start + size) for start in starts]


def widen(example: Example, slab: range) -> Example:
  """The example of one slice, for all slices of a slab.

  Args:
    example: its images are slices (`SliceRef`).
    slab: indices of the slices; a single one is no slab.
  """
  spans = itertools.groupby(
    example.spans, lambda span: (span.image is None, span.has_loss)
  )
  wide: list[Span] = []
  for (is_text, _), group in spans:
    group = list(group)
    wide += group if is_text else _repeat(group, slab)
  return dataclasses.replace(example, spans=tuple(wide))


def _repeat(spans: list[Span], slab: range) -> Iterator[Span]:
  middle = slab.start + len(slab) // 2
  for index in slab:
    for span in spans:
      image = dataclasses.replace(span.image, index=index)
      in_slab = len(slab) > 1 and span.kind == 'vae_image'
      offset = index - middle if in_slab else None
      yield dataclasses.replace(span, image=image, offset=offset)
