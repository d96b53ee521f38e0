"""Writes a model in BAGEL's file layout, for its users in PyTorch.

  python -m synermedgen_jax.export_bagel --checkpoint=RUN/stage2 --output=DIR

Reads the newest checkpoint of a run (averaged parameters where it kept them)
and writes `ema.safetensors`, `ae.safetensors`, the JSON configs and the
tokenizer's files. `import_bagel` reads them back to the last bit. A model with
parts that BAGEL lacks is refused.
"""

from pathlib import Path

import jax.numpy as jnp
from absl import flags
from tqdm import tqdm

from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.inference import bagel_workdir
from synermedgen_jax.input import vocab_files

_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'The workdir of a run, or of import_bagel.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'A new folder.')
_DTYPE = flags.DEFINE_enum(
  'dtype',
  None,
  ['bfloat16', 'float32'],
  'Of all weights; by default each as the checkpoint has it.',
)


def _export(workdir: Path, output: Path) -> None:
  dtype = jnp.dtype(_DTYPE.value) if _DTYPE.value else None
  with tqdm(desc='export', unit='B', unit_scale=True, delay=0.5) as bar:

    def progress(done: int, total: int) -> None:
      bar.total = total
      bar.update(done)

    tensors = bagel_workdir.export_bagel(workdir, output, dtype, progress)
  total = sum(tensor.nbytes for tensor in tensors.values())
  print(f'{output}: {len(tensors)} tensors, {total / 1e9:.3f} GB.')
  if not vocab_files.holds_tokenizer(output):
    print(f'{workdir} holds no tokenizer: {output} has none.')


def main() -> None:
  _export(Path(_CHECKPOINT.value), Path(_OUTPUT.value))


if __name__ == '__main__':
  run_command(main, required=['checkpoint', 'output'])
