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
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import processes
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.interop import bagel_configs, bagel_weights, tensor_files
from synermedgen_jax.models.presets import bagel_7b

_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Folder for the checkpoints.'
)
_LAYERS = flags.DEFINE_list('layers', ['2', '4'], 'Numbers of layers to try.')


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
        cost = processes.cost(command, *arguments)
        peak = cost.peak - cost.imported
        peaks.setdefault(command, []).append((layers, peak))
        print(
          f'  {command}: peak {peak / 1e9:.2f} GB above the interpreter, '
          f'{cost.seconds:.0f} s, {cost.cpu_seconds:.0f} s of CPU'
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
