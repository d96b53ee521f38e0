"""Prints the tables of launch/gpu_check.sh.

  python -m benchmarks.gpu_tables docs/gpu/DEVICE.json

"x torch" is PyTorch's time divided by ours: above 1, this library is faster.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import table

Record = dict[str, Any]


def _number(value: float | None, scale: float = 1.0, digits: int = 2) -> str:
  return '' if value is None else f'{value * scale:,.{digits}f}'


def _faster(record: Record, rival: Record | None) -> str:
  """The rival's time divided by that of our record; '' for its own records."""
  if _torch(record) or not rival or 'seconds' not in record:
    return ''
  return f'{rival["seconds"] / record["seconds"]:.2f}'


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
      _faster(r, flex.get(r['shapes']['tokens'])),
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
      _faster(r, rivals.get((r['stage'], 'none'))),
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
      _faster(r, rivals.get(r['shapes']['batch'])),
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
