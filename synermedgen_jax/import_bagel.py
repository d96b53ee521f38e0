"""Imports BAGEL's files as a workdir to start from.

  python -m synermedgen_jax.import_bagel --source=DIR --dry_run
  python -m synermedgen_jax.import_bagel --source=DIR --output=RUN/bagel
  python -m synermedgen_jax.main --config=configs/stage1.py \\
      --config.init_from=RUN/bagel --config.store=STORE --workdir=RUN/stage1
  python -m synermedgen_jax.import_bagel --layout=unimedvl --source=UNIMEDVL \\
      --output=RUN/unimedvl

Reads `ema.safetensors` (or shards with an index), `ae.safetensors`, the JSON
configs and the tokenizer's files. Missing keys, unknown keys and shapes that
differ from the configs are reported before any weight is read. The weights are
converted block by block. `--dry_run` reads only headers and prints the table of
keys and parameters.

--layout=unimedvl reads the files of UniMedVL: `ema.safetensors`, or else
`ema_bf16.safetensors` or `model.safetensors`, and no `config.json`. Copies of
the autoencoder in that file have to equal `ae.safetensors`. The workdir samples
as UniMedVL does.

To train a model of another size than BAGEL-7B-MoT, use
--config=configs/stage1.py:init_from and set image sides and capacities. The
workdir includes the tokenizer and can be copied anywhere, such as to
gs://BUCKET/bagel.
"""

from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  local_path,
  run_command,
)
from synermedgen_jax.interop.layouts import LAYOUTS

_SOURCE = flags.DEFINE_string(
  'source', None, "Folder of BAGEL's files.", short_name='i'
)
_LAYOUT = flags.DEFINE_enum(
  'layout',
  'bagel',
  LAYOUTS,
  'Program whose file names, model options and settings of sampling apply.',
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'New workdir, which gets the checkpoint, the config and the tokenizer.',
  short_name='o',
)
_DTYPE = flags.DEFINE_enum(
  'dtype',
  'bfloat16',
  ['bfloat16', 'float32'],
  'Type of the stored weights and of computations with them.',
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run',
  False,
  'Print the table of keys and parameters; read no weights, write nothing.',
)


def main() -> None:
  import jax.numpy as jnp

  from synermedgen_jax.config.tokenizer import FOLDER
  from synermedgen_jax.inference import bagel_workdir
  from synermedgen_jax.input import vocab_files
  from synermedgen_jax.interop.bagel_table import key_table

  source, dtype = local_path('source', _SOURCE.value), jnp.dtype(_DTYPE.value)
  layout = LAYOUTS[_LAYOUT.value]
  if _DRY_RUN.value:
    print(key_table(source, dtype, layout))
    return
  if not _OUTPUT.value:
    raise UsageError('--output: name a new folder, or use --dry_run.')
  output = local_path('output', _OUTPUT.value)
  params = bagel_workdir.import_bagel(source, output, dtype, layout)
  numbers = sum(array.size for array in params.values())
  print(
    f'{numbers / 1e6:.2f} M numbers in {dtype.name}; start a run from them '
    f'with --config.init_from={output}.'
  )
  if not vocab_files.holds_tokenizer(output / FOLDER):
    print(f'{source} has no tokenizer: copy its files to {output / FOLDER}.')
  print(output)


if __name__ == '__main__':
  run_command(main, required=['source'])
