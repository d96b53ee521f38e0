"""Imports BAGEL's files as a workdir for `main`, `evaluate` and `predict`.

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

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from synermedgen_jax.config.command_line import (
  UsageError,
  local_path,
  run_command,
)
from synermedgen_jax.config.tokenizer import FOLDER
from synermedgen_jax.inference import bagel_workdir
from synermedgen_jax.input import vocab_files
from synermedgen_jax.interop import bagel_configs, bagel_weights
from synermedgen_jax.interop.layouts import LAYOUTS, Layout
from synermedgen_jax.models.bagel_config import BagelConfig

_SOURCE = flags.DEFINE_string('source', None, "Folder of BAGEL's files.")
_LAYOUT = flags.DEFINE_enum(
  'layout',
  'bagel',
  ['bagel', 'unimedvl'],
  'Program whose file names, model options and settings of sampling apply.',
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'New workdir, which gets the checkpoint, the config and the tokenizer.',
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


def _print_table(
  matches: Sequence[bagel_weights.Match], model: BagelConfig, dtype: np.dtype
) -> None:
  """Prints keys, parameters and their total sizes."""
  rows = [('source', 'shape', 'dtype', 'parameter', 'shape', 'layout')]
  for entry, tensors in matches:
    layers = f'{{0..{entry.layers - 1}}}'
    rows.append(
      (
        entry.source.replace('{layer}', layers),
        str(tensors[0].shape),
        '/'.join(sorted({tensor.dtype.name for tensor in tensors})),
        entry.ours,
        str(entry.to_ours(tensors, dtype).shape),
        entry.layout,
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = [cell.ljust(n) for cell, n in zip(row, widths, strict=True)]
    print('  '.join(cells[:3]), ' -> ', '  '.join(cells[3:]).rstrip())
  tensors = [tensor for _, part in matches for tensor in part]
  params = bagel_weights.parameters(matches, model, dtype).values()
  print(
    f'{len(tensors)} tensors, {sum(t.nbytes for t in tensors) / 1e9:.3f} GB  '
    f'->  {len(params)} parameters, {sum(p.size for p in params) / 1e6:.2f} M '
    f'numbers, {sum(p.nbytes for p in params) / 1e9:.3f} GB in {dtype.name}'
  )


def _dry_run(source: Path, dtype: np.dtype, layout: Layout) -> None:
  model = bagel_configs.bagel_config(source, layout)
  matches = bagel_weights.match(source, model, layout, header_only=True)
  _print_table(matches, model, dtype)


def _import(
  source: Path, output: Path, dtype: np.dtype, layout: Layout
) -> None:
  with tqdm(desc='import', unit='B', unit_scale=True, delay=0.5) as bar:

    def progress(done: int, total: int) -> None:
      bar.total = total
      bar.update(done)

    params = bagel_workdir.import_bagel(source, output, dtype, progress, layout)
  numbers = sum(array.size for array in params.values())
  print(
    f'{output}: {numbers / 1e6:.2f} M numbers in {dtype.name}; start a run '
    f'from it with --config.init_from={output}.'
  )
  if not vocab_files.holds_tokenizer(output / FOLDER):
    print(f'{source} has no tokenizer: copy its files to {output / FOLDER}.')


def main() -> None:
  source, dtype = local_path('source', _SOURCE.value), jnp.dtype(_DTYPE.value)
  layout = LAYOUTS[_LAYOUT.value]
  if _DRY_RUN.value:
    _dry_run(source, dtype, layout)
  elif not _OUTPUT.value:
    raise UsageError('--output: name a new folder, or use --dry_run.')
  else:
    _import(source, local_path('output', _OUTPUT.value), dtype, layout)


if __name__ == '__main__':
  run_command(main, required=['source'])
