"""A workdir from BAGEL's files, and BAGEL's files from a workdir."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.checkpoint import streaming
from synermedgen_jax.config.defaults import BAGEL_SAMPLING
from synermedgen_jax.config.tokenizer import FOLDER, tokenizer_of_run
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.inference.workdir import WorkdirError
from synermedgen_jax.input import tokenizer, vocab_files
from synermedgen_jax.input.tokenizer import PROJECT
from synermedgen_jax.interop import bagel_configs, bagel_weights, tensor_files
from synermedgen_jax.models.bagel import BagelConfig

# BAGEL's sides for editing an image, in pixels.
_VIT_SIDE, _VAE_SIDE = 518, 512
Progress = Callable[[int, int], object]


def import_bagel(
  source: Path,
  output: Path,
  dtype: np.dtype,
  progress: Progress = lambda done, total: None,
) -> dict[str, LazyArray]:
  """Makes BAGEL's files a workdir that a run, or inference, starts from.

  Args:
    source: BAGEL's files.
    output: the new workdir: `checkpoints/0`, `config.json` and, where the
      source has one, `tokenizer/`. After an error it does not exist.
    dtype: of the weights and of the model's arithmetic.
    progress: called with the bytes written so far, and the bytes in all.

  Returns:
    The parameters by name.

  Raises:
    BagelError, TensorFileError: naming what is wrong with the files.
    WorkdirError: `output` is not empty.
  """
  model = bagel_configs.bagel_config(source)
  matches = bagel_weights.match(source, model)
  params = bagel_weights.parameters(matches, model, dtype)
  total = sum(array.nbytes for array in params.values())
  with _new_folder(output):
    if vocab_files.holds_tokenizer(source):
      vocab_files.copy(source, output / FOLDER)
    record = {'config': _run_config(model, dtype), 'source': str(source)}
    _write_json(output / 'config.json', record)
    # The checkpoint last: with it the workdir counts as whole.
    streaming.save_model(
      output / 'checkpoints', model, params, lambda n: progress(n, total)
    )
  return params


def export_bagel(
  workdir: Path,
  output: Path,
  dtype: np.dtype | None = None,
  progress: Progress = lambda done, total: None,
) -> dict[str, LazyArray]:
  """Writes the newest checkpoint of a workdir as BAGEL's files.

  Args:
    workdir: a run's, or what `import_bagel` made.
    output: the new folder. After an error it does not exist.
    dtype: of all weights; by default each as the checkpoint has it.
    progress: called with the bytes written so far, and the bytes in all.

  Returns:
    The tensors by key.

  Raises:
    BagelError: naming parts of the model that BAGEL lacks.
    CheckpointError: `workdir` holds no checkpoint.
    WorkdirError: it is no workdir, or `output` is not empty.
  """
  files = _tokenizer_files(workdir)
  model, params = streaming.open_model(workdir / 'checkpoints')
  configs = bagel_configs.config_files(model)
  weights = bagel_weights.source_tensors(model, params, dtype)
  tensors = {key: t for file in weights.values() for key, t in file.items()}
  total = sum(tensor.nbytes for tensor in tensors.values())
  with _new_folder(output):
    if files:
      vocab_files.copy(files, output)
    for name, options in configs.items():
      _write_json(output / f'{name}.json', options)
    for name, file in weights.items():
      tensor_files.write_tensors(
        output / name, file, lambda n: progress(n, total)
      )
  return tensors


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[None]:
  """Makes a folder; takes it away again where filling it fails."""
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise WorkdirError(
      f'{path}: is there already; remove it, or name a new folder.'
    )
  path.mkdir(parents=True, exist_ok=True)
  try:
    yield
  except BaseException:
    shutil.rmtree(path, ignore_errors=True)
    raise


def _write_json(path: Path, value: Any) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n')


def _run_config(model: BagelConfig, dtype: np.dtype) -> dict[str, Any]:
  """The part of a run's config that `evaluate` and `translate` read."""
  patches = min(_VIT_SIDE // model.vit.patch, model.vit_table, model.vit.table)
  latents = min(_VAE_SIDE // model.latent_stride, model.latent_table)
  return {
    'stage': 'joint',  # BAGEL answers and synthesises
    'model': 'init_from',
    'compute': {
      'dtype': dtype.name,
      'remat': 'full',
      'attention': '',
      'unroll': 1,
    },
    'modules': [],
    'store': '',
    'tokenizer': '',  # the files beside this one
    'prompts': 'paper',
    'image': {
      'vit_side': patches * model.vit.patch,
      'vae_side': latents * model.latent_stride,
    },
    'neighbours': 3,
    'sampling': BAGEL_SAMPLING,
  }


def _tokenizer_files(workdir: Path) -> Path | None:
  """The folder of a run's tokenizer, or its one file; None = it has none."""
  if not (workdir / 'config.json').is_file():
    raise WorkdirError(f'{workdir}: holds no config.json of a run.')
  try:
    name = tokenizer_of_run(workdir)
  except ValueError as error:
    raise WorkdirError(str(error)) from None
  if name == PROJECT:
    return Path(tokenizer.__file__).with_name('tokenizer.json')
  return Path(name) if name else None
