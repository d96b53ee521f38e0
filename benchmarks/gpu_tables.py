"""Prints the tables of launch/gpu_check.sh.

  python -m benchmarks.gpu_tables docs/gpu/DEVICE.json

"x torch" is PyTorch's time divided by ours: above 1, this library is faster.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Lines of a Markdown table with aligned columns."""
  rows = [head, *rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    '| ' + ' | '.join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + ' |'
    for r in rows
  ]
  rule = '|' + '|'.join('-' * (w + 2) for w in widths) + '|'
  return '\n'.join([lines[0], rule, *lines[1:]])


def _number(value: float | None, scale: float = 1.0, digits: int = 2) -> str:
  return '' if value is None else f'{value * scale:,.{digits}f}'


def _ratio(theirs: Record | None, ours: Record, key: str) -> str:
  if not theirs or key not in theirs or not ours.get(key):
    return ''
  return f'{theirs[key] / ours[key]:.2f}'


def _torch(record: Record) -> bool:
  return 'torch' in record


def attention(records: Sequence[Record]) -> str:
  """Forward and backward pass of every implementation."""
  flex = {}
  for r in records:
    if _torch(r) and 'seconds' in r:
      best = flex.get(r['shapes']['tokens'], r)
      flex[r['shapes']['tokens']] = min(r, best, key=lambda x: x['seconds'])
  rows = [
    [
      f'{r["shapes"]["tokens"]:,}',
      r['implementation'],
      _number(r.get('forward_seconds'), 1e3, 3),
      _number(r.get('seconds'), 1e3, 3),
      _number(r.get('tflops'), 1, 1),
      ''
      if _torch(r)
      else _ratio(flex.get(r['shapes']['tokens']), r, 'seconds'),
      ' '.join(f'{e:.0e}' for e in r.get('errors', ())),
      r.get('error', '')[:60],
    ]
    for r in sorted(records, key=lambda r: r['shapes']['tokens'])
  ]
  head = 'tokens|implementation|forward ms|both ms|TFLOP/s|x torch'
  head += '|errors of out, dq, dk, dv|failed'
  return table(head.split('|'), rows)


def steps(records: Sequence[Record]) -> str:
  """Training steps; the rival without recomputation is compared with."""
  rivals = {(r['stage'], r['remat']): r for r in records if _torch(r)}
  rows = [
    [
      r['model'],
      r['stage'],
      r['implementation'],
      r['remat'],
      _number(r['seconds'], 1e3, 1),
      _number(r['tokens_per_second'], 1, 0),
      _number(r.get('mfu'), 100, 1),
      _number(r['peak_gb'], 1, 1),
      ''
      if _torch(r)
      else _ratio(rivals.get((r['stage'], 'none')), r, 'seconds'),
    ]
    for r in sorted(records, key=lambda r: r['stage'])
  ]
  head = 'model|stage|implementation|remat|step ms|tokens/s|MFU %|peak GB'
  return table([*head.split('|'), 'x torch'], rows)


def sampling(records: Sequence[Record]) -> str:
  """Sampling by batch size."""
  rivals = {r['shapes']['batch']: r for r in records if _torch(r)}
  rows = [
    [
      r['model'],
      str(r['shapes']['batch']),
      str(r['shapes']['points']),
      r['implementation'],
      _number(r['seconds']),
      _number(r['peak_gb'], 1, 1),
      ''
      if _torch(r)
      else _ratio(rivals.get(r['shapes']['batch']), r, 'seconds'),
    ]
    for r in sorted(records, key=lambda r: r['shapes']['batch'])
  ]
  head = 'model|batch|points|implementation|seconds|peak GB|x torch'
  return table(head.split('|'), rows)


def profile(records: Sequence[Record]) -> str:
  """The operations that take longest in a traced step."""
  rows = [
    [o['name'], _number(o['seconds'], 1e3, 2), str(o['calls'])]
    for r in records
    for o in r['profile'][:12]
  ]
  return table(['operation', 'ms', 'calls'], rows)


_TABLES = (
  ('Attention, forward and backward', 'attention', attention),
  ('Training step', 'step', steps),
  ('Sampling', 'sampling', sampling),
)


def main() -> None:
  records = json.loads(Path(sys.argv[1]).read_text())
  for r in records:
    if r['benchmark'] == 'peak':
      print(
        f'{r["device"]}, jax {r["jax"]}: copies '
        f'{r["copy_bytes_per_second"] / 1e9:,.0f} GB/s, {r["dtype"]} products '
        f'{r["product_rate"] / 1e12:,.2f} TFLOP/s'
      )
  for title, name, make in _TABLES:
    rows = [r for r in records if r['benchmark'] == name and 'profile' not in r]
    if rows:
      print(f'\n{title}\n\n{make(rows)}')
  traced = [r for r in records if 'profile' in r]
  if traced:
    print(f'\nOperations of a step\n\n{profile(traced)}')


if __name__ == '__main__':
  main()
