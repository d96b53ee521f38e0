"""Exports a model in BAGEL's file layout, for use in PyTorch.

  python -m synermedgen_jax.export_bagel --checkpoint=RUN/stage2 --output=DIR

Reads the newest checkpoint of a run (averaged parameters if the run has them)
and writes `ema.safetensors`, `ae.safetensors`, the JSON configs and the
tokenizer's files. `import_bagel` reads them back exactly. A model with parts
that BAGEL lacks is an error.
"""

from absl import flags

from synermedgen_jax.config.command_line import local_path, run_command

_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'Workdir of a run or of import_bagel.', short_name='i'
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'New folder for the files.', short_name='o'
)
_DTYPE = flags.DEFINE_enum(
  'dtype',
  None,
  ['bfloat16', 'float32'],
  'Type of all weights; by default that of each weight in the checkpoint.',
)


def main() -> None:
  import jax.numpy as jnp

  from synermedgen_jax.inference import bagel_workdir
  from synermedgen_jax.input import vocab_files

  workdir = local_path('checkpoint', _CHECKPOINT.value)
  output = local_path('output', _OUTPUT.value)
  dtype = jnp.dtype(_DTYPE.value) if _DTYPE.value else None
  tensors = bagel_workdir.export_bagel(workdir, output, dtype)
  total = sum(tensor.nbytes for tensor in tensors.values())
  print(f'{len(tensors)} tensors, {total / 1e9:.3f} GB.')
  if not vocab_files.holds_tokenizer(output):
    print(f'{workdir} has no tokenizer, so {output} has none either.')
  print(output)


if __name__ == '__main__':
  run_command(main, required=['checkpoint', 'output'])
