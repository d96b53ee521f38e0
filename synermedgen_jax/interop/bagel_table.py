"""The table of BAGEL's keys and this project's parameters, as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synermedgen_jax.interop import bagel_configs, bagel_weights
from synermedgen_jax.interop.layouts import Layout


def key_table(source: Path, dtype: np.dtype, layout: Layout) -> str:
  """A line per group of keys, and their total sizes; reads headers alone.

  Args:
    source: folder of BAGEL's files.
    dtype: type of the stored weights.
    layout: program that wrote the files.

  Raises:
    InteropError: a file is missing, or keys and shapes do not fit the configs.
  """
  model = bagel_configs.bagel_config(source, layout)
  matches = bagel_weights.match(source, model, layout, header_only=True)
  rows = [('source', 'shape', 'dtype', 'parameter', 'shape', 'layout')]
  for entry, tensors in matches:
    layers = f'{{0..{entry.layers - 1}}}'
    rows.append(
      (
        entry.source.replace('{layer}', layers),
        str(tensors[0].shape),
        '/'.join(sorted({tensor.dtype.name for tensor in tensors})),
        entry.ours,
        str(entry.to_ours(tensors, dtype).shape),
        entry.layout,
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = [cell.ljust(n) for cell, n in zip(row, widths, strict=True)]
    lines.append(f'{"  ".join(cells[:3])}  ->  {"  ".join(cells[3:]).rstrip()}')
  tensors = [tensor for _, part in matches for tensor in part]
  params = bagel_weights.parameters(matches, model, dtype).values()
  lines.append(
    f'{len(tensors)} tensors, {sum(t.nbytes for t in tensors) / 1e9:.3f} GB  '
    f'->  {len(params)} parameters, {sum(p.size for p in params) / 1e6:.2f} M '
    f'numbers, {sum(p.nbytes for p in params) / 1e9:.3f} GB in {dtype.name}'
  )
  return '\n'.join(lines)
