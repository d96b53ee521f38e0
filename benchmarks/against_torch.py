"""Compares training steps and sampling with the PyTorch rival, in one run.

  python -m benchmarks.against_torch
  python -m benchmarks.against_torch --cases=medium/sampling/8 --rounds=5

Cases are MODEL/STAGE or MODEL/sampling/BATCH. Both sides have the same model,
the same packed rows, given latents and AdamW; the docstring of
`benchmarks.torch_rival` describes the rival. They run in turn, each in a
process of its own, `--rounds` times. The printed ratios are medians over
rounds: the rival's time divided by ours, so that more is faster, and our peak
memory divided by the rival's. On a CPU, time is CPU time, on which other
processes of the machine have less influence.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
from absl import app, flags

from benchmarks.measuring import append_record

_CASES = flags.DEFINE_list(
  'cases',
  [
    *('small/stage1', 'small/stage2', 'medium/stage1', 'medium/stage2'),
    *('medium/sampling/1', 'medium/sampling/8'),
  ],
  'What to compare.',
)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Runs of each side.')
_STEPS = flags.DEFINE_integer('steps', 5, 'Timed steps of a run.')
_POINTS = flags.DEFINE_integer('points', 50, 'Timesteps of sampling.')
_REMAT = flags.DEFINE_enum(
  'remat', 'none', ['none', 'full'], 'Remat policy of both sides.'
)
_OUTPUT = flags.DEFINE_string(
  'output', '', 'File to append one JSON object per run to.'
)


def _commands(case: str) -> tuple[list[str], list[str]]:
  """Modules and options of this library and of the rival."""
  model, kind, *batch = case.split('/')
  if kind == 'sampling':
    options = [
      *(f'--model={model}', f'--points={_POINTS.value}', '--repeats=1'),
      f'--batch={batch[0]}',
    ]
    return (
      ['benchmarks.sampling', *options],
      ['benchmarks.torch_rival', 'sampling', *options],
    )
  options = [f'--model={model}', f'--remat={_REMAT.value}']
  ours = [
    *('benchmarks.train_step', *options, f'--stages={kind}'),
    *('--latents=given', '--optimizer=adamw', f'--steps={_STEPS.value}'),
  ]
  theirs = [
    *('benchmarks.torch_rival', 'step', *options, f'--stage={kind}'),
    f'--repeats={_STEPS.value}',
  ]
  return ours, theirs


def _run(command: list[str]) -> dict:
  """The record that a benchmark writes."""
  with tempfile.TemporaryDirectory() as folder:
    output = Path(folder, 'record.jsonl')
    done = subprocess.run(
      [sys.executable, '-m', *command, f'--output={output}'],
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      lines = done.stderr.strip().splitlines() or ['no message']
      raise SystemExit(f'Error: {" ".join(command)}: {lines[-1]}')
    (line,) = output.read_text().splitlines()
  record = json.loads(line)
  append_record(_OUTPUT.value, record)
  return record


def main(_) -> None:
  key = 'cpu_seconds' if jax.default_backend() == 'cpu' else 'seconds'
  print(
    f'{"case":<20} {"ours s":>8} {"torch s":>8} {"faster":>7} '
    f'{"ours GB":>8} {"torch GB":>8} {"memory":>7}'
  )
  for case in _CASES.value:
    ours, theirs = _commands(case)
    pairs = [(_run(ours), _run(theirs)) for _ in range(_ROUNDS.value)]

    def median(key, side, pairs=pairs):
      return statistics.median(pair[side][key] for pair in pairs)

    faster = statistics.median(b[key] / a[key] for a, b in pairs)
    print(
      f'{case:<20} {median(key, 0):8.3f} {median(key, 1):8.3f} {faster:6.2f}x '
      f'{median("peak_gb", 0):8.2f} {median("peak_gb", 1):8.2f} '
      f'{median("peak_gb", 0) / median("peak_gb", 1):6.2f}x',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
