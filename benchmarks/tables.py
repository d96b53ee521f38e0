"""Tables of the benchmarks' pages."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table, aligned so that it can be read as text."""
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
  lines = [head, ['-' * w for w in widths], *rows]
  return '\n'.join(
    '| ' + ' | '.join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + ' |'
    for r in lines
  )
