"""Times the PyTorch implementation; writes JSON lines.

  python -m benchmarks.torch_rival attention --lengths=4096,11648,32768
  python -m benchmarks.torch_rival step --model=base_1b --stage=stage1
  python -m benchmarks.torch_rival sampling --model=base_1b --batch=1,8

On a GPU: bfloat16 with float32 weights where they are trained, compiled layers
and FlexAttention. On a CPU: float32, attention of each example alone.
"""

from __future__ import annotations

import argparse

import jax
import torch

from benchmarks.torch_rival import (
  attention_times,
  records,
  sampling_times,
  step_times,
)


def _numbers(text: str) -> list[int]:
  return [int(number) for number in text.split(',')]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  commands = parser.add_subparsers(dest='command', required=True)
  common = argparse.ArgumentParser(add_help=False)
  common.add_argument(
    '--output', default='', help='File to append the JSON lines to.'
  )
  common.add_argument(
    '--device', default='', help='cuda or cpu; a GPU if there is one.'
  )
  common.add_argument(
    '--repeats', type=int, default=10, help='Timed runs; the median is kept.'
  )

  one = commands.add_parser('attention', parents=[common])
  one.add_argument(
    '--lengths',
    type=_numbers,
    default=[4096, 11648, 32768],
    help='Tokens of a row; errors are reported at 4096.',
  )
  one.add_argument(
    '--heads', type=_numbers, default=[28, 4], help='Query and key heads.'
  )
  one.add_argument('--dim', type=int, default=128, help='Width of a head.')
  one.add_argument(
    '--variants',
    type=lambda text: text.split(','),
    default=['default'],
    help=f'Ways to compile: {", ".join(attention_times.VARIANTS)}.',
  )

  one = commands.add_parser('step', parents=[common])
  one.add_argument('--model', default='base_1b', help='A preset, or medium.')
  one.add_argument('--stage', default='stage1', choices=['stage1', 'stage2'])
  one.add_argument(
    '--rows', type=int, default=0, help="Rows per step; 0 = the shape's own."
  )
  one.add_argument('--remat', default='none', choices=['none', 'full'])
  one.add_argument(
    '--detach_und',
    action='store_true',
    help='No gradient flows through the und stream.',
  )
  _add_compile(one)

  one = commands.add_parser('sampling', parents=[common])
  one.add_argument('--model', default='base_1b', help='A preset, or medium.')
  one.add_argument(
    '--points', type=int, default=50, help='Timesteps: one Euler step fewer.'
  )
  one.add_argument(
    '--batch', type=_numbers, default=[1, 8], help='Prompts at a time.'
  )
  one.set_defaults(repeats=3)
  _add_compile(one)
  return parser


def _add_compile(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--compile',
    default='auto',
    choices=['auto', 'on', 'off'],
    help='Compile the layers; auto = on a GPU.',
  )


def main() -> None:
  # The batch is packed by NumPy; the device's memory is PyTorch's.
  jax.config.update('jax_platforms', 'cpu')
  args = _parser().parse_args()
  name = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
  device = torch.device(name)
  writer = records.Records(args.output, device)
  wish = getattr(args, 'compile', 'auto')
  compiled = wish == 'on' or (wish == 'auto' and device.type == 'cuda')
  if args.command == 'attention':
    attention_times.measure(
      writer,
      device,
      lengths=args.lengths,
      heads=tuple(args.heads),
      dim=args.dim,
      variants=args.variants,
      repeats=args.repeats,
    )
  elif args.command == 'step':
    step_times.measure(
      writer,
      device,
      model=args.model,
      stage=args.stage,
      rows=args.rows,
      remat=args.remat,
      detach=args.detach_und,
      compiled=compiled,
      repeats=args.repeats,
    )
  else:
    sampling_times.measure(
      writer,
      device,
      model=args.model,
      points=args.points,
      batches=args.batch,
      compiled=compiled,
      repeats=args.repeats,
    )


if __name__ == '__main__':
  main()
