"""Measures how much memory a BAGEL checkpoint of full width takes to import.

  python -m benchmarks.import_memory --directory=DIR

Writes checkpoints of BAGEL-7B-MoT's width with few layers of random bfloat16
numbers (7 GB with 4 of the 28 layers), imports and exports each in a process of
its own, and removes them. Needs 21 GB of disk. Prints the time, and the peak
resident size minus that of the interpreter after all imports. A line through
the measured numbers of layers gives the peak for 28 layers.
"""

import dataclasses
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import app, flags

from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.interop import bagel_configs, bagel_weights, tensor_files
from synermedgen_jax.models.presets import bagel_7b

_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Folder for the checkpoints.'
)
_LAYERS = flags.DEFINE_list('layers', ['2', '4'], 'Numbers of layers to try.')

# VmHWM is the peak of this process alone; rusage remembers its parent's.
_CHILD = """
import importlib, re, sys
from pathlib import Path

def peak():
  text = Path('/proc/self/status').read_text()
  return int(re.search(r'VmHWM:\\s+(\\d+)', text)[1]) * 1024

from synermedgen_jax.config.command_line import run_command
command = importlib.import_module('synermedgen_jax.' + sys.argv.pop(1))
before = peak()
def main():
  command.main()
  print('PEAK', before, peak())
run_command(main)
"""


def _write_checkpoint(directory: Path, layers: int) -> int:
  """Writes random weights in BAGEL's format; returns the number of bytes."""
  model = bagel_7b()
  model = dataclasses.replace(
    model, llm=dataclasses.replace(model.llm, layers=layers)
  )
  # Repeats, at a distance too long for the compressor to use.
  pool = np.random.default_rng(0).normal(scale=0.02, size=2**23)
  pool = pool.astype(jnp.bfloat16)

  def random(shape) -> LazyArray:
    def read(index):
      piece = [i.stop - i.start for i in index]
      return np.resize(pool, math.prod(piece)).reshape(piece)

    return LazyArray(shape, pool.dtype, shape, read)

  params = {n: random(s) for n, s in bagel_weights.param_shapes(model).items()}
  params |= bagel_weights.constants(model)
  directory.mkdir(parents=True)
  for name, options in bagel_configs.config_files(model).items():
    (directory / f'{name}.json').write_text(json.dumps(options))
  for name, tensors in bagel_weights.source_tensors(model, params).items():
    tensor_files.write_tensors(directory / name, tensors)
  return sum(path.stat().st_size for path in directory.iterdir())


def _run(command: str, *arguments: str) -> tuple[int, float, float]:
  """Peak resident bytes minus the interpreter's, seconds, CPU seconds."""
  start, busy = time.perf_counter(), _cpu_seconds()
  child = subprocess.run(
    [sys.executable, '-c', _CHILD, command, *arguments],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  seconds = time.perf_counter() - start
  before, peak = map(int, child.stdout.split('PEAK')[1].split())
  return peak - before, seconds, _cpu_seconds() - busy


def _cpu_seconds() -> float:
  """CPU seconds of all child processes so far."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def main(argv: list[str]) -> None:
  del argv
  peaks = {}
  for layers in map(int, _LAYERS.value):
    root = Path(_DIRECTORY.value) / f'{layers}_layers'
    source, run, back = (root / name for name in ('source', 'run', 'back'))
    try:
      size = _write_checkpoint(source, layers)
      print(f'{layers} layers, {size / 1e9:.2f} GB')
      for command, arguments in (
        ('import_bagel', (f'--source={source}', f'--output={run}')),
        ('export_bagel', (f'--checkpoint={run}', f'--output={back}')),
      ):
        peak, seconds, busy = _run(command, *arguments)
        peaks.setdefault(command, []).append((layers, peak))
        print(
          f'  {command}: peak {peak / 1e9:.2f} GB above the interpreter, '
          f'{seconds:.0f} s, {busy:.0f} s of CPU'
        )
    finally:
      shutil.rmtree(root, ignore_errors=True)
  for command, points in peaks.items():
    if len(points) > 1:
      slope, start = np.polyfit(*zip(*points, strict=True), 1)
      print(
        f'{command}: {slope / 1e6:+.0f} MB a layer, '
        f'{(start + 28 * slope) / 1e9:.2f} GB for 28 layers'
      )


if __name__ == '__main__':
  flags.mark_flag_as_required('directory')
  app.run(main)
