"""Writes a model in BAGEL's file layout, for its users in PyTorch.

  python -m synermedgen_jax.export_bagel --checkpoint=RUN/stage2 --output=DIR

Reads the newest checkpoint of a run (averaged parameters where it kept them)
and writes `ema.safetensors`, `ae.safetensors`, the JSON configs and the
tokenizer's files. `import_bagel` reads them back to the last bit. A model with
parts that BAGEL lacks is refused.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
from absl import app, flags, logging
from tqdm import tqdm

from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.inference import bagel_workdir
from synermedgen_jax.inference.workdir import WorkdirError
from synermedgen_jax.input import vocab_files
from synermedgen_jax.interop.bagel_configs import BagelError

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


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    sys.exit(f'Unexpected argument {argv[1]!r}: options begin with --.')
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it reads
  try:
    _export(Path(_CHECKPOINT.value), Path(_OUTPUT.value))
  except (BagelError, CheckpointError, WorkdirError, OSError) as error:
    sys.exit(f'Error: {error}')


if __name__ == '__main__':
  flags.mark_flags_as_required(['checkpoint', 'output'])
  app.run(main)
